"""The first process of every pod of a job: it starts the step's processes and says why they failed.

    python -m tritower.cluster.agent [--home LOCATION --resource PATH --abandoned-after-s N --every-s N] [OPTIONS OF A TRIAL] \
        -- MODULE ARGUMENTS...

With one process in all, MODULE runs by itself; else under torchrun, whose environment the operator sets, with a static
rendezvous and without restarts: the container is what restarts. The reason of a failure goes to the container's termination
message, which the launcher reads.

A trial of a search has more: `--trial FILE` is the file of its figures, of which the first pod leaves a copy in the home;
`--throw-away NAME` gives MODULE an output that goes with the pod; `--limit-s N` ends a trial that takes longer.

Exit status: 0, or 1 after a failure; 75 when nobody follows the job any more; 143 after SIGTERM. Never 0 for work that
did not end: the first pod's 0 is the job's success.
"""

import argparse
import contextlib
import json
import logging
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tritower import child, logs, processes, storage
from tritower.cluster import api, heartbeat, katib
from tritower.cluster.rendezvous import Rendezvous
from tritower.errors import LaunchError, StepError, TritowerError

logger = logging.getLogger(__name__)
ABANDONED = 75
_STOPPED = 128 + signal.SIGTERM
_LOOK_S = 0.5
_LONGEST = 700
"""Characters of a part of the reason: a termination message has 4,096 bytes."""


def main(arguments: list[str] | None = None) -> int:
    """Run this pod's share of the job."""
    parser = argparse.ArgumentParser(prog="python -m tritower.cluster.agent", description="Run a pod's share of a job.")
    parser.add_argument("--home", default="", help="location of the heartbeat")
    parser.add_argument("--resource", default="", help="the job at the API server: a path")
    parser.add_argument("--abandoned-after-s", type=float, default=600.0, help="seconds without a heartbeat")
    parser.add_argument("--every-s", type=float, default=30.0, help="seconds between two looks at it")
    parser.add_argument("--trial", type=Path, help="the file of its figures, where this is a trial of a search")
    parser.add_argument("--throw-away", action="append", default=[], help="option of MODULE for an output that nobody keeps")
    parser.add_argument("--limit-s", type=float, default=math.inf, help="seconds after which it has failed")
    parser.add_argument("words", nargs="+", metavar="MODULE ARGUMENTS", help="what to run")
    given = parser.parse_args(arguments)
    logs.setup()
    signal.signal(signal.SIGTERM, _stop)
    try:
        if given.home and heartbeat.marked(given.home):
            return _abandoned(given.resource, "the job was abandoned before this start")
        return _run(given)
    except TritowerError as error:
        logger.error("%s: %s", type(error).__name__, error)
        _tell(error)
        return 1


def _stop(*_: object) -> None:
    raise SystemExit(_STOPPED)


def _run(given: argparse.Namespace) -> int:
    silent = threading.Event()
    number, pods, world = _place()
    if given.home and not number:
        threading.Thread(target=_listen, args=(given, silent), name="heartbeat", daemon=True).start()
    meeting = Rendezvous(given.home if pods > 1 else "", number, given.every_s)
    end = time.monotonic() + given.limit_s
    with _words(given, number) as words:
        while (code := _attempt(given, _command(words, world), silent, meeting, end)) is None and not silent.is_set():
            logger.warning("the first pod has begun anew: this one joins it again")
    if code is None:
        return _abandoned(given.resource, f"nobody has followed this job for {given.abandoned_after_s:g} s")
    return 1 if code else 0


def _attempt(
    given: argparse.Namespace, command: list[str], silent: threading.Event, meeting: Rendezvous, end: float
) -> int | None:
    """The processes' exit status; None when they were ended: nobody follows the job, or its first pod has begun anew."""
    with processes.started(command) as running:
        while (code := running.ended(_LOOK_S)) is None:
            if time.monotonic() > end:
                raise StepError(f"the trial took over {given.limit_s:g} s", remedy="Raise trial_timeout_s.")
            if silent.is_set():
                with contextlib.suppress(OSError):  # without the mark, the job is deleted all the same
                    heartbeat.mark(given.home)
                return None
            if meeting.moved():
                return None
        if code:
            reported = processes.first(processes.words(running.reports))
            _tell(running.failure(), reported)
    return code


@contextlib.contextmanager
def _words(given: argparse.Namespace, number: int) -> Iterator[list[str]]:
    """MODULE and its arguments, while there is a place for what it throws away; then a trial's figures go to the home."""
    with tempfile.TemporaryDirectory(prefix="thrown-away-", ignore_cleanup_errors=True) as scratch:
        try:
            yield [*given.words, *(f"--{name}={scratch}/{name}" for name in given.throw_away)]
        finally:
            name = os.environ.get(katib.TRIAL_NAME, "")
            if given.trial and given.home and name and not number:
                storage.tried(
                    lambda: storage.upload(given.trial, f"{given.home}/{katib.FIGURES}/{name}"), "what the trial reported"
                )


def _command(words: list[str], world: int) -> list[str]:
    if world == 1:
        return processes.module(*words)
    where = [
        f"--{option}={os.environ[f'PET_{variable}']}"
        for option, variable in _OPTIONS.items()
        if f"PET_{variable}" in os.environ
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *where, "--rdzv-backend=static", "--max-restarts=0"]
    return processes.program(*torchrun, "-m", "tritower.child", "--worker", *words)


_OPTIONS = {
    "nnodes": "NNODES",
    "node-rank": "NODE_RANK",
    "nproc-per-node": "NPROC_PER_NODE",
    "master-addr": "MASTER_ADDR",
    "master-port": "MASTER_PORT",
}


def _place() -> tuple[int, int, int]:
    """This pod's number, how many pods and how many processes there are, from torchrun's variables."""
    pods, each = (int(os.environ.get(name) or 1) for name in ("PET_NNODES", "PET_NPROC_PER_NODE"))
    return int(os.environ.get("PET_NODE_RANK") or 0), pods, pods * each


def _listen(given: argparse.Namespace, silent: threading.Event) -> None:
    silence = heartbeat.Silence(given.home)
    while silence.seconds() < given.abandoned_after_s:
        time.sleep(min(given.every_s, given.abandoned_after_s / 3))
    silent.set()


def _abandoned(job: str, why: str) -> int:
    """End the job: its pods would start again for ever, and hold their GPUs."""
    logger.warning("%s", why)
    _tell(LaunchError(why, remedy="Start the step again: it goes on from its checkpoint."))
    try:
        api.Api(patience_s=30.0).delete(job)
        logger.warning("deleted the job %s", job)
    except LaunchError as error:
        logger.error("the job %s cannot be deleted: %s", job, error)
    return ABANDONED


def _tell(error: TritowerError, reported: Any = None) -> None:
    """Leave the reason as the container's termination message."""
    parts = {"problem": error.problem, "where": error.where, "remedy": error.remedy}
    facts = {"kind": type(error).__name__, "foreign": not reported, "signal": 0, "time": time.time_ns()}
    word = facts | {key: reported[key] for key in ("kind", "foreign", "signal", "time") if reported}
    file = Path(os.environ.get("TRITOWER_TERMINATION_LOG", "/dev/termination-log"))
    with contextlib.suppress(OSError):
        file.write_text(json.dumps(word | {key: text[:_LONGEST] for key, text in parts.items()}), encoding="utf-8")


if __name__ == "__main__":
    child.tie()
    sys.exit(main())
