"""The search on a cluster: each trial a job in pods of its own, which read features and embeddings from the run's store."""

import dataclasses
import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritower import logs, storage
from tritower.config import to_dict
from tritower.errors import StepError
from tritower.jobs import Job, Resources, open_launcher
from tritower.searches import Search, open_searcher
from tritower.tuning import space, trial
from tritower.tuning.config import TuningConfig

_log = logging.getLogger(__name__)
_SEEDLESS = ("sobol", "grid")


def run(
    config: TuningConfig,
    *,
    module: str,
    inputs: Mapping[str, str],
    place: str,
    launcher: str,
    cluster: Mapping[str, Any] | None,
) -> tuple[list[dict[str, Any]], float]:
    """Search, or go on with the search that was begun for the same place.

    Args:
        module: the tuned step's entry point; see `trial.run`. Its --metrics-file takes a location as well.
        inputs: option -> location in a store, for every trial.
        place: location of what the search makes.
        launcher: one of `searches.LAUNCHERS`.
        cluster: its settings.

    Returns:
        The trials, as `search.table` has them, and the metric of the step's own defaults.

    Raises:
        TritowerError: the defaults, or too many trials, failed; the cluster lacks something.
    """
    searcher = open_searcher(launcher, cluster)
    job, wanted = _trial(config, module, inputs), described(config)
    searcher.check(job, wanted, place)
    untuned = _defaults(config, job, place, launcher, cluster)
    found = [dataclasses.asdict(one) for one in searcher.run(job, wanted, place)]
    for one in found:
        one |= {"params": dict(one["params"]), "along": list(one["along"])}
    return found, untuned


def described(config: TuningConfig) -> Search:
    """The search as Katib takes it."""
    names = {parameter.name: "" for parameter in config.space}
    shared = trial.one_member({**(config.fixed or {}), **names})
    seed = {} if config.algorithm in _SEEDLESS else {"random_state": str(config.seed)}
    stop = {
        "min_trials_required": str(config.prune_after_trials),
        "start_step": str(max(1, config.prune_after_reports)),
    }
    return Search(
        parameters=tuple(space.katib(config.space)),
        fixed={name: value for name, value in shared.items() if name not in names},
        metric=config.metric,
        goal=config.goal,
        trials=config.trials,
        parallel=config.parallel,
        max_failed=config.max_failed,
        algorithm=config.algorithm,
        settings=seed | (config.algorithm_settings or {}),
        early_stopping=stop if config.prune else {},
        trial_timeout_s=config.trial_timeout_s,
    )


def _trial(config: TuningConfig, module: str, inputs: Mapping[str, str]) -> Job:
    """What all trials have in common: as many processes as the fixed knobs say, each with a GPU where they say cuda."""
    processes = int(_knob(config, "processes", 1))
    gpus = processes if _knob(config, "device", "") == "cuda" else 0
    return Job(name="tune", module=module, inputs=inputs, processes=processes, resources=Resources(gpus=gpus))


def _knob(config: TuningConfig, name: str, default: Any) -> Any:
    """A fixed knob, known by the last part of its name, as the ranker takes `launch.processes` and `processes`."""
    given = config.fixed or {}
    inner = [(key, value) for group in given.values() if isinstance(group, dict) for key, value in group.items()]
    found = {key.rpartition(".")[2]: value for key, value in [*inner, *given.items()]}
    return found.get(name, default)


def _defaults(config: TuningConfig, common: Job, place: str, launcher: str, cluster: Mapping[str, Any] | None) -> float:
    """The metric of the tuned step without the knobs that are searched: a job before the search, which shows that it runs."""
    knobs = trial.one_member(dict(config.fixed or {}))
    what = {"knobs": to_dict(config)["fixed"], "metric": config.metric, "job": dataclasses.asdict(common)}
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    home = f"{place.rstrip('/')}.defaults/{digest}"
    file = f"{home}/metrics.txt"
    if not storage.names(file):  # an earlier attempt of this step left it
        outputs = {"metrics-file": file, "model": f"{home}/model"}
        job = dataclasses.replace(common, name="tune-defaults", arguments=(f"--config={json.dumps(knobs)}",), outputs=outputs)
        with logs.phase(_log, "defaults"):
            open_launcher(launcher, cluster).run(job)
        storage.remove(outputs["model"])
    with tempfile.TemporaryDirectory(prefix="defaults-") as scratch:
        values = trial.read(storage.fetch(file, Path(scratch) / "metrics.txt"), config.metric)
    if not values:
        raise StepError(f"the defaults reported no finite {config.metric}", where=file, remedy="Is `metric` the name of it?")
    return max(values) if config.goal == "maximize" else min(values)
