"""Knobs of the evaluation."""

from dataclasses import dataclass
from typing import Literal

from tritower.config import check


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the held-out searches are judged."""

    bootstrap: int = 500
    """Bootstrap replicates, 100 to 10,000; users are drawn, with all their rows. 500 puts the ends of a 95 % interval
    within about a tenth of its width."""

    level: float = 0.95
    """Confidence level of every interval, .5 to .999."""

    bins: int = 20
    """Bins of equal size for the calibration curve and error, 5 to 200."""

    propensity_floor: float = 0.05
    """Lowest examination probability used as a divisor, above 0 and at most 1: bounds the weight of a click."""

    min_randomised_requests: int = 50
    """Fewest randomised test searches with a click for which the randomised slice is reported and decides, 1 or more; with
    50 an interval of mAP@1 is about 27 points wide."""

    gate_metric: Literal["auc", "map@1", "map@3", "ndcg@10"] = "map@3"
    """The metric whose lift opens the gate. mAP@3 is what a user sees of a result page, and steadier than mAP@1."""

    gate_min_lift: float = 0.0
    """The gate opens when the low end of the lift's interval lies above this fraction, -.5 to 10; 0 asks for any sure gain."""

    cold_job_impressions: int = 20
    """A job shown fewer times than this before the test period is cold, 1 or more; the features' prior counts as many."""

    rare_query_requests: int = 5
    """A query searched fewer times than this before the test period is rare, 1 or more."""

    regions: int = 5
    """The regions with most searches that get a slice of their own, 0 to 50."""

    browse: int = 8
    """Searches in each half of the error browser, 0 to 100."""

    seed: int = 0
    """Seed of tie-breaking and bootstrap, 0 or more."""

    def __post_init__(self) -> None:
        check(100 <= self.bootstrap <= 10_000, "bootstrap", self.bootstrap, "between 100 and 10000")
        check(0.5 <= self.level <= 0.999, "level", self.level, "between 0.5 and 0.999")
        check(5 <= self.bins <= 200, "bins", self.bins, "between 5 and 200")
        check(0 < self.propensity_floor <= 1, "propensity_floor", self.propensity_floor, "above 0 and at most 1")
        check(self.min_randomised_requests >= 1, "min_randomised_requests", self.min_randomised_requests, "of at least 1")
        check(-0.5 <= self.gate_min_lift <= 10, "gate_min_lift", self.gate_min_lift, "between -0.5 and 10")
        check(self.cold_job_impressions >= 1, "cold_job_impressions", self.cold_job_impressions, "of at least 1")
        check(self.rare_query_requests >= 1, "rare_query_requests", self.rare_query_requests, "of at least 1")
        check(0 <= self.regions <= 50, "regions", self.regions, "between 0 and 50")
        check(0 <= self.browse <= 100, "browse", self.browse, "between 0 and 100")
        check(self.seed >= 0, "seed", self.seed, "of at least 0")
