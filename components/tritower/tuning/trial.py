"""One trial: the tuned step in a child process, followed by the metrics file it appends to."""

import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tritower import processes
from tritower.errors import StepError, TritowerError
from tritower.tuning.config import TuningConfig

_log = logging.getLogger(__name__)
_POLL_S = 0.2
_TAIL, _TAIL_LINES = 1500, 5


class Stopped(StepError):
    """The trial was stopped because it is behind the others."""


def run(
    *,
    config: TuningConfig,
    knobs: dict[str, object],
    places: dict[str, Path],
    folder: Path,
    behind: Callable[[int, float], bool],
) -> list[float]:
    """Run the tuned step with `knobs`; the metric at each of its validations.

    Args:
        places: what the command's placeholders {features} and {embeddings} stand for.
        folder: the trial's own folder; its log and its metrics file are left there.
        behind: called with each validation's number, from 0, and metric; True stops the trial.

    Raises:
        Stopped: `behind` said so.
        StepError: the child failed, reported nothing finite, or took too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metrics, log = folder / "metrics.txt", folder / "log.txt"
    metrics.unlink(missing_ok=True)
    filled = {
        "python": sys.executable,
        "model": str(folder / "model"),
        "metrics": str(metrics),
        "config": json.dumps(knobs),
        **{name: str(place) for name, place in places.items()},
    }
    command = [_fill(part, filled) for part in config.command]
    values: list[float] = []
    deadline = time.monotonic() + config.trial_timeout_s
    with log.open("wb") as output, processes.started(processes.program(*command), stdout=output, stderr=output) as child:
        while True:
            code = child.popen.poll()
            for value in read(metrics, config.metric)[len(values) :]:
                values.append(value)
                if code is None and behind(len(values) - 1, value):
                    raise Stopped("the trial is behind the others", where=str(folder))
            if code is not None:
                break
            if time.monotonic() > deadline:
                raise StepError(
                    f"the trial took over {config.trial_timeout_s:g} s", where=str(folder), remedy="Raise trial_timeout_s."
                )
            time.sleep(_POLL_S)
        if code:
            raise _failed(child.failure(), log)
    if not values:
        raise StepError(
            f"the trial reported no finite {config.metric}", where=str(metrics), remedy="Is `metric` the name it reports?"
        )
    return values


def read(metrics: Path, name: str) -> list[float]:
    """Every finite value of `name` in a file of `name=value` lines; a last line without its end is not read yet."""
    if not metrics.exists():
        return []
    values = []
    for line in metrics.read_text(encoding="utf-8").splitlines(keepends=True):
        key, _, text = line.partition("=")
        if key.strip() == name and line.endswith("\n"):
            with contextlib.suppress(ValueError):
                values.append(float(text))
    return [value for value in values if math.isfinite(value)]


def _fill(part: str, values: dict[str, str]) -> str:
    # str.format would trip over the braces of JSON.
    for name, value in values.items():
        if f"{{{name}}}" in part:
            return part.replace(f"{{{name}}}", value)
    return part


def _failed(error: TritowerError, log: Path) -> StepError:
    """The error of a trial; the log goes with the trials' folder, so that its end is quoted."""
    tail = log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip().splitlines()[-_TAIL_LINES:]
    remedy = f"{error.remedy} Last lines of its log: {' | '.join(tail)}"
    return StepError(f"the trial failed: {type(error).__name__}: {error.problem}", where=error.where or str(log), remedy=remedy)
