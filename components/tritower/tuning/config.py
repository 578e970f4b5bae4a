"""The search space and the knobs of the search."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tritower.config import Removed, check


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One knob of the tuned step and the values it may take.

    The same description becomes an Optuna suggestion and a Katib parameter; values travel as text, as Katib sends them.
    """

    name: str
    """The knob's name in the tuned step's config: letters, digits and underscores."""

    kind: Literal["double", "int", "categorical"]
    """double and int take `low` to `high`; categorical takes `choices`."""

    low: float | None = None
    """Smallest value, inclusive."""

    high: float | None = None
    """Largest value, inclusive."""

    log: bool = False
    """Draw evenly on the logarithm: for knobs that span powers of ten. `low` is then above 0."""

    choices: tuple[str, ...] = ()
    """The values of a categorical parameter as text, two or more; a tuple is written `128,64`."""

    def __post_init__(self) -> None:
        check(self.name.isidentifier(), "name", self.name, "of letters, digits and underscores")
        if self.kind == "categorical":
            check(len(self.choices) >= 2, f"{self.name}.choices", self.choices, "with two or more values")
            check(self.low is None and self.high is None, f"{self.name}.low", self.low, "only for double and int")
            return
        check(not self.choices, f"{self.name}.choices", self.choices, "only for categorical")
        low, high = self.low, self.high
        check(low is not None and high is not None and low < high, f"{self.name}.low", low, "below `high`; give both")
        check(not self.log or (low or 0) > 0, f"{self.name}.low", low, "above 0 where `log` is on")
        whole = self.kind != "int" or (float(low or 0).is_integer() and float(high or 0).is_integer())
        check(whole, f"{self.name}.low", (low, high), "that is whole, for an int")


SPACE = (
    Parameter(name="learning_rate", kind="double", low=3e-4, high=5e-3, log=True),
    Parameter(name="weight_decay", kind="double", low=1e-3, high=0.3, log=True),
    Parameter(name="batch_size", kind="categorical", choices=("1024", "2048", "4096", "8192")),
    Parameter(name="interaction_tower", kind="categorical", choices=("64,32", "128,64", "256,128", "256,128,64")),
    Parameter(name="head", kind="categorical", choices=("64", "128", "256,64")),
)
"""Knobs of the ranker whose best value depends on the data, with ranges by judgement; architecture switches are settled by
ablation, not by search."""


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """What is searched, how long, and what counts."""

    space: tuple[Parameter, ...] = SPACE
    """The parameters, one or more, each name once."""

    fixed: dict[str, Any] | None = None
    """Knobs of the tuned step that every trial shares, such as {"epochs": 4}."""

    metric: str = "auc"
    """Name of the figure the tuned step reports at each validation: letters, digits and underscores."""

    goal: Literal["maximize", "minimize"] = "maximize"
    """Which way is better."""

    trials: int = 20
    """Trials in all, those of an earlier, interrupted search counted in, 1 to 10,000."""

    algorithm: str = "tpe"
    """How the next trial is chosen: tpe or random; a cluster takes whatever its Katib has, such as cmaes or sobol."""

    algorithm_settings: dict[str, str] | None = None
    """Katib's settings of the algorithm, such as {"n_startup_trials": "10"}; only on a cluster."""

    parallel: int = 1
    """Trials at the same time, 1 to 64."""

    max_failed: int = 3
    """Failed trials after which the search ends with an error, 0 or more."""

    prune: bool = True
    """Stop a trial whose figure lies below the median of the earlier trials at the same validation."""

    prune_after_trials: int = 5
    """Trials that always run to their end, 1 or more (Optuna's default)."""

    prune_after_reports: int = 2
    """Validations of a trial before it may be stopped, 0 or more."""

    trial_timeout_s: float = 3600.0
    """Seconds after which a trial is stopped and counts as failed, above 0."""

    storage: str = ""
    """SQLite file that keeps the search, so that it goes on after an interruption: on a disk of this machine. Empty keeps it
    beside the result that the step makes, in the run's store, until the step has ended well."""

    FORMER: ClassVar[Mapping[str, str | Removed]] = {"command": Removed("a trial runs the ranker", off=())}

    seed: int = 0
    """Seed of the sampler, 0 or more."""

    def __post_init__(self) -> None:
        names = [parameter.name for parameter in self.space]
        check(bool(names) and len(set(names)) == len(names), "space", names, "with one or more parameters, each name once")
        both = sorted(set(names) & set(self.fixed or {}))
        check(not both, "fixed", both, "that is not searched as well")
        check(self.metric.isidentifier(), "metric", self.metric, "of letters, digits and underscores")
        check(1 <= self.trials <= 10_000, "trials", self.trials, "between 1 and 10000")
        check(bool(self.algorithm), "algorithm", self.algorithm, "with a name")
        check(1 <= self.parallel <= 64, "parallel", self.parallel, "between 1 and 64")
        check(self.max_failed >= 0, "max_failed", self.max_failed, "of at least 0")
        check(self.prune_after_trials >= 1, "prune_after_trials", self.prune_after_trials, "of at least 1")
        check(self.prune_after_reports >= 0, "prune_after_reports", self.prune_after_reports, "of at least 0")
        check(self.trial_timeout_s > 0, "trial_timeout_s", self.trial_timeout_s, "above 0")
        remote = "://" in self.storage and not self.storage.startswith("file://")
        check(not remote, "storage", self.storage, "that is a path: SQLite needs a disk")
        check(self.seed >= 0, "seed", self.seed, "of at least 0")
