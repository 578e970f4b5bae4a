"""A search of knobs that a service of the cluster runs: what is tried (`Search`), who sees to it (`Searcher`), what came of it.

A search on this machine (`tuning/search.py`) needs none of it. Each trial is a job (`jobs.Job`); the searcher is found by the
launcher's name, as `jobs.open_launcher` finds a launcher.
"""

import contextlib
import importlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tritower.config import check
from tritower.errors import ConfigError
from tritower.jobs import Job

LAUNCHERS = ("pytorchjob", "katib")
"""The launchers that have a searcher: an Experiment whose trials are PyTorchJobs."""
LOCAL = "local"


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched, by the words of Katib; a local search has the same in its own config."""

    parameters: tuple[Mapping[str, Any], ...]
    """`spec.parameters`: name, parameterType, feasibleSpace with every value as text."""

    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Knobs that all trials share."""

    metric: str = "auc"
    """What a trial reports: letters, digits and underscores. Katib drops names with `@`, `.` or `/`."""

    goal: str = "maximize"
    """maximize or minimize."""

    trials: int = 20
    """Trials in all, 1 or more."""

    parallel: int = 1
    """Trials at the same time, 1 or more."""

    max_failed: int = 3
    """Failed trials after which the search has failed, 0 or more."""

    algorithm: str = "tpe"
    """tpe (as the local search), random, cmaes, sobol, ..., as far as the cluster has it."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """The algorithm's settings by name."""

    early_stopping: Mapping[str, str] = field(default_factory=dict)
    """Settings of the median stopping rule, min_trials_required and start_step; empty = no early stopping."""

    trial_timeout_s: float = 3600.0
    """Seconds after which a trial is stopped and counts as failed, above 0. Waiting for a node does not count."""

    thrown_away: tuple[str, ...] = ("model",)
    """Options of a trial that name what it writes and nobody keeps; each gets a place that goes with the trial's pod."""

    def __post_init__(self) -> None:
        check(bool(self.parameters), "parameters", self.parameters, "with at least one parameter")
        check(bool(re.fullmatch(r"\w+", self.metric)), "metric", self.metric, "of letters, digits and underscores")
        check(self.goal in ("maximize", "minimize"), "goal", self.goal, "that is maximize or minimize")
        check(min(self.trials, self.parallel) >= 1, "trials", (self.trials, self.parallel), "of at least 1")
        check(self.max_failed >= 0, "max_failed", self.max_failed, "of at least 0")
        check(self.trial_timeout_s > 0, "trial_timeout_s", self.trial_timeout_s, "above 0")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How one set of knobs did."""

    number: int
    """From 0, in the order in which they were made."""

    state: Literal["running", "complete", "pruned", "fail"]
    """complete has a finite value; pruned was stopped early; everything else that ended is fail."""

    value: float | None
    """The best of its figures; None where it is not complete."""

    params: Mapping[str, str]
    """The knobs that were searched, as text."""

    along: Sequence[float] = ()
    """The finite figures along the way."""

    seconds: float | None = None
    """From its creation to its end."""


def figures(text: str, name: str) -> list[float]:
    """Every finite value of `name` in a text of `name=value` lines; a last line without its end is not read yet."""
    values = []
    for line in text.splitlines(keepends=True):
        key, _, value = line.partition("=")
        if key.strip() == name and line.endswith("\n"):
            with contextlib.suppress(ValueError):
                values.append(float(value))
    return [value for value in values if math.isfinite(value)]


class Searcher(Protocol):
    """Runs searches. A search ends with its searcher, as a job does with its launcher."""

    def check(self, job: Job, search: Search, place: str) -> None:
        """Whether `run` could begin, without beginning.

        Raises:
            LaunchError: something is missing on the cluster; the remedy says how to mend it.
        """

    def run(self, job: Job, search: Search, place: str) -> list[Trial]:
        """Run a search to its end, or go on with the one that was begun for the same place.

        Args:
            job: a trial, without its knobs, the file of its metrics and what it throws away.
            search: the space and the budget.
            place: location of what the search makes; beside it, in `<place>.launch`, lies what it keeps.

        Raises:
            TritowerError: more than `max_failed` trials failed, or all of them; it could not be begun or followed.
        """


def open_searcher(launcher: str, settings: Mapping[str, Any] | str | None = None) -> Searcher:
    """The searcher for a launcher's name.

    Args:
        launcher: one of `LAUNCHERS`.
        settings: knobs of `cluster.config.ClusterConfig`.

    Raises:
        ConfigError: this launcher has none, or a setting is wrong.
    """
    if launcher not in LAUNCHERS:
        names = ", ".join((LOCAL, *LAUNCHERS))
        why = ": Katib does not see the end of a TrainJob's pod" if launcher == "trainjob" else ""
        raise ConfigError(f"{launcher!r} runs no search{why}", where="launcher", remedy=f"A search takes {names}.")
    searcher: Searcher = importlib.import_module("tritower.cluster.searching").open_searcher(settings)
    return searcher
