"""One trial: the tuned step as a job on this machine, followed by the metrics file it appends to."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tritower.errors import StepError, TritowerError
from tritower.jobs import Job, open_launcher
from tritower.searches import figures
from tritower.tuning.config import TuningConfig

_TAIL, _TAIL_LINES = 1500, 5


class Stopped(StepError):
    """The trial was stopped because it is behind the others."""


class Late(StepError):
    """The trial took too long."""


def run(
    *,
    config: TuningConfig,
    module: str,
    knobs: Mapping[str, object],
    inputs: Mapping[str, str],
    folder: Path,
    behind: Callable[[int, float], bool],
) -> list[float]:
    """Run the tuned step with `knobs`; the metric at each of its validations.

    Args:
        module: the tuned step's entry point. It takes --model (a folder to write), --metrics-file (to append `name=value` lines
            to, as Katib's collector reads), --config (knobs as JSON) and its inputs.
        inputs: option -> location that it reads.
        folder: the trial's own folder; its log and its metrics file are left there.
        behind: called with each validation's number, from 0, and metric; True stops the trial.

    Raises:
        Stopped: `behind` said so.
        StepError: the child failed, reported nothing finite, or took too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metrics, log = folder / "metrics.txt", folder / "log.txt"
    metrics.unlink(missing_ok=True)
    job = Job(
        name=folder.name,
        module=module,
        arguments=(f"--metrics-file={metrics}", f"--config={json.dumps(one_member(knobs))}"),
        inputs=inputs,
        outputs={"model": str(folder / "model")},
    )
    values: list[float] = []
    deadline = time.monotonic() + config.trial_timeout_s

    def look() -> None:
        for value in read(metrics, config.metric)[len(values) :]:
            values.append(value)
            if behind(len(values) - 1, value):
                raise Stopped("the trial is behind the others", where=str(folder))
        if time.monotonic() > deadline:
            problem = f"the trial took over {config.trial_timeout_s:g} s"
            raise Late(problem, where=str(folder), remedy="Raise trial_timeout_s.")

    try:
        open_launcher().run(job, look=look, log=log)
    except (Stopped, Late):
        raise
    except TritowerError as error:
        raise _failed(error, log) from error
    for value in read(metrics, config.metric)[len(values) :]:
        values.append(value)
        behind(len(values) - 1, value)
    if not values:
        raise StepError(
            f"the trial reported no finite {config.metric}", where=str(metrics), remedy="Is `metric` the name it reports?"
        )
    return values


def one_member(knobs: Mapping[str, object]) -> dict[str, object]:
    """The knobs of a trial: it trains one network unless they say how many.

    The ranker trains its members one after the other: three take three times as long, and the figure that is searched is one's.
    """
    return {**knobs} if "members" in json.dumps(knobs) else {"members": 1, **knobs}


def read(metrics: Path, name: str) -> list[float]:
    """The figures in a file; see `searches.figures`."""
    return figures(metrics.read_text(encoding="utf-8"), name) if metrics.exists() else []


def _failed(error: TritowerError, log: Path) -> StepError:
    """The error of a trial; the log goes with the trials' folder, so that its end is quoted."""
    tail = log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip().splitlines()[-_TAIL_LINES:]
    remedy = f"{error.remedy} Last lines of its log: {' | '.join(tail)}"
    return StepError(f"the trial failed: {type(error).__name__}: {error.problem}", where=error.where or str(log), remedy=remedy)
