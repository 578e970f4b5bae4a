"""Knobs of the evaluation."""

from dataclasses import dataclass

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

    min_randomised_requests: int = 200
    """Fewest randomised test searches with a click for which the randomised slice is reported, 1 or more."""

    seed: int = 0
    """Seed of tie-breaking and bootstrap, 0 or more."""

    def __post_init__(self) -> None:
        check(100 <= self.bootstrap <= 10_000, "bootstrap", self.bootstrap, "between 100 and 10000")
        check(0.5 <= self.level <= 0.999, "level", self.level, "between 0.5 and 0.999")
        check(5 <= self.bins <= 200, "bins", self.bins, "between 5 and 200")
        check(0 < self.propensity_floor <= 1, "propensity_floor", self.propensity_floor, "above 0 and at most 1")
        check(self.min_randomised_requests >= 1, "min_randomised_requests", self.min_randomised_requests, "of at least 1")
        check(self.seed >= 0, "seed", self.seed, "of at least 0")
