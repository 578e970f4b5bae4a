"""The search: an Optuna study in one SQLite file, that goes on where it was interrupted."""

import functools
import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from tritower import logs
from tritower.config import to_dict
from tritower.errors import ConfigError, StepError
from tritower.tuning import space, trial
from tritower.tuning.config import TuningConfig

_log = logging.getLogger(__name__)
_UNTUNED = "untuned"


def open_study(storage: Path, config: TuningConfig, module: str) -> optuna.Study:
    """The study of this very search: its name holds a hash of everything that makes trials comparable.

    Trials that an interrupted process left running are marked as failed; they are not counted against `max_failed`.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage.parent.mkdir(parents=True, exist_ok=True)
    what = {key: to_dict(config)[key] for key in ("space", "fixed", "metric", "goal")} | {"module": module}
    name = f"tuning-{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]}"
    pruner = optuna.pruners.MedianPruner(n_startup_trials=config.prune_after_trials, n_warmup_steps=config.prune_after_reports)
    study = optuna.create_study(
        storage=f"sqlite:///{storage}",
        study_name=name,
        direction=config.goal,
        load_if_exists=True,
        pruner=pruner if config.prune else optuna.pruners.NopPruner(),
    )
    for left in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(left.number, state=TrialState.FAIL)
    # A resumed sampler must not draw what the first one drew: its seed counts the trials there are.
    study.sampler = _sampler(config, config.seed + 7919 * len(study.trials))
    return study


def _sampler(config: TuningConfig, seed: int) -> optuna.samplers.BaseSampler:
    if config.algorithm == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if config.algorithm == "tpe":
        return optuna.samplers.TPESampler(seed=seed, multivariate=True)
    raise ConfigError(
        f"algorithm {config.algorithm!r}: a search on this machine has tpe and random",
        where="settings_tune",
        remedy="Choose one of them, or search on a cluster.",
    )


def run(
    study: optuna.Study,
    config: TuningConfig,
    *,
    module: str,
    inputs: Mapping[str, str],
    work: Path,
    keep: Callable[[], None] = lambda: None,
) -> float:
    """Run the trials that are still missing; the metric of the step's own defaults, for comparison.

    Args:
        module: the tuned step's entry point; see `trial.run`.
        inputs: option -> location that it reads.
        work: folder for the trials' folders.
        keep: called after each trial, and after the untuned step; by one thread at a time.

    Raises:
        StepError: the untuned step or more than `max_failed` trials failed.
    """
    better = max if config.goal == "maximize" else min
    one = functools.partial(trial.run, config=config, module=module, inputs=inputs)
    if _UNTUNED not in study.user_attrs:
        with logs.phase(_log, "defaults") as counts:
            values = one(knobs=dict(config.fixed or {}), folder=work / "defaults", behind=lambda *_: False)
            study.set_user_attr(_UNTUNED, better(values))
            counts[config.metric] = f"{better(values):.5f}"
        keep()
    failures: list[StepError] = []

    def objective(suggested: optuna.Trial) -> float:
        knobs = {**(config.fixed or {}), **space.suggest(suggested, config.space)}
        folder = work / f"trial-{suggested.number:04d}"

        def behind(step: int, value: float) -> bool:
            suggested.report(value, step)
            return bool(suggested.should_prune())

        try:
            return float(better(one(knobs=knobs, folder=folder, behind=behind)))
        except trial.Stopped:
            raise optuna.TrialPruned from None
        except StepError as error:
            failures.append(error)
            _log.warning("trial %d failed: %s", suggested.number, error)
            if len(failures) > config.max_failed:
                suggested.study.stop()
            raise
        finally:
            shutil.rmtree(folder / "model", ignore_errors=True)

    one_at_a_time = threading.Lock()

    def ended(study: optuna.Study, done: optuna.trial.FrozenTrial) -> None:
        _report(study, done)
        with one_at_a_time:
            keep()

    missing = config.trials - len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))
    study.optimize(objective, n_trials=max(missing, 0), n_jobs=config.parallel, catch=(StepError,), callbacks=[ended])
    if len(failures) > config.max_failed:
        raise StepError(f"{len(failures)} trials failed", where="tuning", remedy=f"The last one: {failures[-1]}") from failures[
            -1
        ]
    return float(study.user_attrs[_UNTUNED])


def table(study: optuna.Study) -> list[dict[str, Any]]:
    """Every trial: number, state, metric (None where there is none), knobs as text, the values along the way."""
    return [
        {
            "number": item.number,
            "state": item.state.name.lower(),
            "value": item.value if item.state == TrialState.COMPLETE else None,
            "params": space.texts(item.params),
            "along": [item.intermediate_values[step] for step in sorted(item.intermediate_values)],
            "seconds": round(item.duration.total_seconds(), 1) if item.duration else None,
        }
        for item in study.get_trials()
    ]


def _report(study: optuna.Study, done: optuna.trial.FrozenTrial) -> None:
    value = f"{done.value:.5f}" if done.value is not None else "-"
    _log.info("trial %d %s: %s with %s", done.number, done.state.name.lower(), value, space.texts(done.params))
