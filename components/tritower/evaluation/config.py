"""Knobs of the evaluation."""

from dataclasses import dataclass
from typing import Literal

from tritower.config import check


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the held-out searches are judged."""

    level: float = 0.95
    """Confidence level of every interval, .5 to .999."""

    min_users: int = 20
    """Fewest users with a click for which there are intervals, 2 or more; with 20 the A/A tests of README.md hold their level.
    With fewer nothing can be judged, and the gate holds."""

    min_searches: int = 30
    """Fewest searches with a click for which there are intervals, 2 or more; below it an interval of mAP@1 spans a third of its
    range."""

    suspicious_auc: float = 0.95
    """A ranker whose AUC is at least this is too good to be true, .5 to 1; 1 turns the warning off. Clicks on jobs hold too
    much chance for it: the true probabilities of the simulated logs reach .85. The gate holds where it is the model."""

    suspicious_feature_auc: float = 0.9
    """A single feature, or whether it is missing, that separates clicks this well tells the label, .5 to 1; 1 turns the warning
    off. The best honest one of the simulated logs reaches about .7."""

    remark: str = ""
    """What a reader must know about this run, at most 300 characters; it stands on top of the report, of the summary and of the
    table at the terminal. The preset `quick` says there that its figures mean nothing."""

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
    """Seed of tie-breaking, of the redrawn clicks and of the error browser, 0 or more."""

    def __post_init__(self) -> None:
        check(0.5 <= self.level <= 0.999, "level", self.level, "between 0.5 and 0.999")
        check(self.min_users >= 2, "min_users", self.min_users, "of at least 2")
        check(self.min_searches >= 2, "min_searches", self.min_searches, "of at least 2")
        check(0.5 <= self.suspicious_auc <= 1, "suspicious_auc", self.suspicious_auc, "between 0.5 and 1")
        low = self.suspicious_feature_auc
        check(0.5 <= low <= 1, "suspicious_feature_auc", low, "between 0.5 and 1")
        check(len(self.remark) <= 300, "remark", f"{len(self.remark)} characters", "of at most 300 characters")
        check(5 <= self.bins <= 200, "bins", self.bins, "between 5 and 200")
        check(0 < self.propensity_floor <= 1, "propensity_floor", self.propensity_floor, "above 0 and at most 1")
        check(self.min_randomised_requests >= 1, "min_randomised_requests", self.min_randomised_requests, "of at least 1")
        check(-0.5 <= self.gate_min_lift <= 10, "gate_min_lift", self.gate_min_lift, "between -0.5 and 10")
        check(self.cold_job_impressions >= 1, "cold_job_impressions", self.cold_job_impressions, "of at least 1")
        check(self.rare_query_requests >= 1, "rare_query_requests", self.rare_query_requests, "of at least 1")
        check(0 <= self.regions <= 50, "regions", self.regions, "between 0 and 50")
        check(0 <= self.browse <= 100, "browse", self.browse, "between 0 and 100")
        check(self.seed >= 0, "seed", self.seed, "of at least 0")
