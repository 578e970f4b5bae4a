"""Knobs of the XGBoost baselines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from tritower.config import Removed, check


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """How one XGBoost rival is trained."""

    FORMER: ClassVar[Mapping[str, str | Removed]] = {
        "batch_rows": Removed("rows are read 131,072 at a time", off=131_072),
    }

    variant: Literal["standard", "cosines", "full"] = "standard"
    """What the trees see. `standard`: every feature that needs no embedding (the published baseline). `cosines`: every
    feature. `full`: every feature, principal components of the query, the document and their product, and a position
    offset in training: the strongest rival we could build."""

    rounds: int = 1000
    """Most boosting rounds, 1 or more; early stopping ends most fits far sooner."""

    early_stopping_rounds: int = 40
    """Rounds without a better validation score after which training stops, 1 or more."""

    search_trials: int = 4
    """Settings of depth, eta, min_child_weight, subsample and colsample tried before the final fit, 0 to 100. The first
    is `depth` and `eta` as given here; 0 or 1 keeps them."""

    search_rows: int = 100_000
    """About how many training rows each trial sees, 1,000 or more: whole requests, drawn by a hash."""

    search_rounds: int = 150
    """Most boosting rounds of a trial, 1 or more."""

    depth: int = 6
    """Tree depth of the first setting, 1 to 16 (XGBoost's default)."""

    eta: float = 0.1
    """Learning rate of the first setting, above 0 and at most 1; .1 with early stopping is the customary choice."""

    max_bin: int = 256
    """Histogram bins per feature, 2 to 1024 (XGBoost's default); 256 keeps one byte per value in memory."""

    components: int = 16
    """Principal components of each of query, document and product, 1 to 256, for the `full` variant. 16 keeps about
    half of MiniLM's variance; more slowed the trees and did not lift validation AUC."""

    pca_rows: int = 50_000
    """Most texts, and most pairs, a principal component analysis is fitted on, 100 or more."""

    position_rounds: int = 3
    """Alternations between trees and position offsets, 0 to 10, for the `full` variant where the log holds too few randomised
    rows to measure the offsets; 0 leaves positions out of training."""

    position_cap: int = 50
    """Positions below this one on the page share its offset, 1 to 1000."""

    threads: int = 0
    """Threads of XGBoost, 0 or more; 0 takes OMP_NUM_THREADS where set, else what the container or the machine has.
    The trees are the same with any number."""

    seed: int = 0
    """Seed of the search and of row sampling, 0 or more."""

    def __post_init__(self) -> None:
        check(self.rounds >= 1, "rounds", self.rounds, "of at least 1")
        check(self.early_stopping_rounds >= 1, "early_stopping_rounds", self.early_stopping_rounds, "of at least 1")
        check(0 <= self.search_trials <= 100, "search_trials", self.search_trials, "between 0 and 100")
        check(self.search_rows >= 1000, "search_rows", self.search_rows, "of at least 1000")
        check(self.search_rounds >= 1, "search_rounds", self.search_rounds, "of at least 1")
        check(1 <= self.depth <= 16, "depth", self.depth, "between 1 and 16")
        check(0 < self.eta <= 1, "eta", self.eta, "above 0 and at most 1")
        check(2 <= self.max_bin <= 1024, "max_bin", self.max_bin, "between 2 and 1024")
        check(1 <= self.components <= 256, "components", self.components, "between 1 and 256")
        check(self.pca_rows >= 100, "pca_rows", self.pca_rows, "of at least 100")
        check(0 <= self.position_rounds <= 10, "position_rounds", self.position_rounds, "between 0 and 10")
        check(1 <= self.position_cap <= 1000, "position_cap", self.position_cap, "between 1 and 1000")
        check(self.threads >= 0, "threads", self.threads, "of at least 0")
        check(self.seed >= 0, "seed", self.seed, "of at least 0")
