"""Start other processes: they end with this one, and their failure is raised here with its own class and words.

`child.py` runs in them. Start them from a thread that outlives them: to the kernel, the thread is the parent.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from tritower import child, errors
from tritower.errors import ConfigError, StepError, TritowerError

GRACE_S = 5.0
"""Seconds between asking a process to end and ending it."""
START_TIMEOUT = "TRITOWER_START_TIMEOUT_S"
_START_TIMEOUT_S = 300.0


class Process:
    """A running child.

    Args:
        popen: the process, leader of a session of its own.
        reports: the folder for its report of a failure.
    """

    def __init__(self, popen: "subprocess.Popen[Any]", reports: Path) -> None:
        self.popen, self.reports = popen, reports
        self._lost = child.lost_to_memory()

    def failure(self) -> TritowerError:
        """Why it ended with a status other than 0."""
        return told(self.reports) or unsaid(self.popen.wait(), self._lost)


def unsaid(code: int, lost: tuple[int, int] | None = None) -> StepError:
    """The error for an exit status other than 0 of a process that reported nothing.

    Args:
        code: -n after signal n; a shell turns it into 128 + n.
        lost: `child.lost_to_memory()` before the process started, if it ran on this machine.
    """
    if code < 0 or code in (128 + signal.SIGKILL, 128 + signal.SIGTERM):
        return child.killed(-code if code < 0 else code - 128, lost or child.lost_to_memory())
    return StepError(f"the process ended with code {code} and left no word why", remedy="Its log may say more.")


def told(reports: Path) -> TritowerError | None:
    """The first failure that the processes reported: a TritowerError before a death by a signal, that before anything else."""
    words: list[tuple[int, int, TritowerError]] = []
    for file in reports.glob("*.json"):
        word = json.loads(file.read_text(encoding="utf-8"))
        kind: type[TritowerError] = getattr(errors, word["kind"])
        # Where one of several processes dies, the others fail for want of it, with whatever error their library has.
        rank = 2 if word["foreign"] else 1 if word["signal"] else 0
        words.append((rank, word["time"], kind(word["problem"], where=word["where"], remedy=word["remedy"])))
    return min(words, key=lambda item: item[:2])[2] if words else None


@contextlib.contextmanager
def started(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    stdout: "int | IO[Any] | None" = None,
    stderr: "int | IO[Any] | None" = None,
    **more: Any,
) -> Iterator[Process]:
    """Start a command in a session of its own; the end of the block ends it and everything it started.

    Args:
        command: the program and its arguments; `module(...)` gives one for a module of ours.
        environment: variables on top of this process's own.
        more: further arguments of `subprocess.Popen`.
    """
    with tempfile.TemporaryDirectory(prefix="reports-", ignore_cleanup_errors=True) as reports:
        own = {child.PARENT: str(os.getpid()), child.REPORTS: reports}
        popen = subprocess.Popen(
            command,
            env=os.environ | dict(environment or {}) | own,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            **more,
        )
        try:
            yield Process(popen, Path(reports))
        finally:
            end(popen)


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module as `python -m` does, tied to this process."""
    return [sys.executable, "-m", "tritower.child", name, *arguments]


def program(*command: str) -> list[str]:
    """The command that runs any program, tied to this process."""
    return [sys.executable, "-m", "tritower.child", "--exec", *command]


def end(popen: "subprocess.Popen[Any]") -> None:
    """End the leader of a session and the rest of its group: by SIGTERM, after `GRACE_S` seconds by SIGKILL."""
    if popen.poll() is None:
        _signal(popen.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(GRACE_S)
    _signal(popen.pid, signal.SIGKILL)
    popen.wait()
    if popen.stdout:
        popen.stdout.close()


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def torchrun(name: str, arguments: Sequence[str], *, processes: int, environment: Mapping[str, str] | None = None) -> None:
    """Run a module in several processes under torchrun on this machine; their output goes to standard error.

    Static rendezvous without restarts: when one process fails, all end at once. Every address is the loopback's, so no network
    and no host name is needed.

    Raises:
        TritowerError: what the first process that failed raised.
        StepError: it was killed, or nothing started within TRITOWER_START_TIMEOUT_S seconds (300).
    """
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={processes}",
        "--rdzv-backend=static", "--local-addr=127.0.0.1", "--master-addr=127.0.0.1", f"--master-port={_free_port()}",
        "--max-restarts=0", "-m", "tritower.child", "--worker", name, *arguments,
    ]  # fmt: skip
    own = {"PYTHONUNBUFFERED": "1", **_loopback(), **(environment or {})}
    limit_s = start_timeout_s()
    with started(program(*command), environment=own, stdout=2, stderr=2) as running:
        late = threading.Event()

        def look() -> None:
            if len(list(running.reports.glob("*.started"))) < processes and running.popen.poll() is None:
                late.set()
                end(running.popen)

        timer = threading.Timer(limit_s, look)
        timer.daemon = True
        timer.start()
        try:
            code = running.popen.wait()
        finally:
            timer.cancel()
        if late.is_set():
            raise StepError(
                f"torchrun has not started {processes} process(es) of {name} within {limit_s:g} s",
                where="torchrun",
                remedy=f"Look at the load and the network of the machine, or raise {START_TIMEOUT}.",
            )
        if code:
            raise running.failure()


def met(rendezvous: Callable[..., Iterator[tuple[Any, int, int]]], failure: type[Exception]) -> Any:
    """The store through which torchrun's processes meet, once all of them have arrived.

    The process group itself would wait as long as its slowest operation may take: half an hour.

    Args:
        rendezvous: `torch.distributed.rendezvous.rendezvous`, passed in because the ground floor does not import torch.
        failure: what it and its store raise, `torch.distributed.DistError`.

    Raises:
        StepError: some process did not arrive within `start_timeout_s`.
    """
    limit_s, world = start_timeout_s(), int(os.environ["WORLD_SIZE"])
    limit = timedelta(seconds=limit_s)
    try:
        store, rank, _ = next(rendezvous("env://", timeout=limit))
        keys = [f"here/{other}" for other in range(world)]
        store.set(keys[rank], "")
        store.wait(keys, limit)
    except failure as error:
        raise StepError(
            f"not all of {world} processes have come within {limit_s:g} s",
            where="start of the process group",
            remedy=f"Look at the logs of the others and at the network between them, or raise {START_TIMEOUT}.",
        ) from error
    return store


def start_timeout_s() -> float:
    """How long the processes of a group wait for each other at the start.

    Raises:
        ConfigError: TRITOWER_START_TIMEOUT_S is not a number above 0.
    """
    text = os.environ.get(START_TIMEOUT, "")
    try:
        value = float(text or _START_TIMEOUT_S)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{text!r} is not a number of seconds above 0", where=START_TIMEOUT, remedy="Correct the variable.")
    return value


def _loopback() -> dict[str, str]:
    """Without a network gloo finds no address for the machine's name, but the loopback interface is always there."""
    names = [name for _, name in socket.if_nameindex()]
    return {"GLOO_SOCKET_IFNAME": "lo"} if "lo" in names and "GLOO_SOCKET_IFNAME" not in os.environ else {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
