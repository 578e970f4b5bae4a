"""Start other processes: they end with this one, and their failure is raised here with its own class and words.

`child.py` runs in them. Start them from a thread that outlives them: to the kernel, the thread is the parent.
"""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from tritower import child, errors
from tritower.errors import ConfigError, StepError, TritowerError

GRACE_S = 5.0
"""Seconds between asking a process to end and ending it."""
START_TIMEOUT = "TRITOWER_START_TIMEOUT_S"
_START_TIMEOUT_S = 300.0
_LOOK_S = 0.05
_PORTS = range(20_000, 30_000)
"""Below those that Linux gives to whoever asks for any (from 32768 on): nobody is given one of these by chance."""


class Process:
    """A running child.

    Args:
        popen: the process, leader of a session of its own.
        reports: the folder for its report of a failure.
    """

    def __init__(self, popen: "subprocess.Popen[Any]", reports: Path) -> None:
        self.popen, self.reports = popen, reports
        self._lost = child.lost_to_memory()

    def ended(self, within_s: float) -> int | None:
        """Its exit status, as soon as it has one; None when that takes longer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.popen.wait(within_s)
        return None

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
    """The first failure that the processes reported; see `first`."""
    word = first(words(reports))
    return error_of(word) if word else None


def words(reports: Path) -> list[dict[str, Any]]:
    """What the processes reported, as `child.report` writes it."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in reports.glob("*.json")]


def first(reported: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The report that counts: a TritowerError before a death by a signal, that before anything else, and the earliest of them.

    Where one of several processes dies, the others fail for want of it, with whatever error their library has.
    """
    return min(reported, key=lambda word: (2 if word["foreign"] else 1 if word["signal"] else 0, word["time"]), default=None)


def error_of(word: Mapping[str, Any]) -> TritowerError:
    """The error that a report speaks of."""
    kind: type[TritowerError] = getattr(errors, word["kind"])
    return kind(word["problem"], where=word["where"], remedy=word["remedy"])


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


@dataclass(frozen=True)
class Node:
    """This process among those of torchrun's environment: rank 0 of 1, alone on its node, where there is no torchrun.

    A node is what one torchrun agent started: processes that have a disk in common. Two agents on one machine are two nodes.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    number: int = 0
    store: Any = None
    """By which they know each other: `met`. Outside torchrun there is none."""

    @classmethod
    def here(cls) -> "Node":
        """From the environment, without a store."""
        names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "GROUP_RANK": 0}
        return cls(*(int(os.environ.get(name, default)) for name, default in names.items()))

    def once(self, what: str, act: Callable[[], str]) -> str:
        """What `act` returns in the node's first process, told to all processes of the node; they wait for as long as it takes.

        They need no limit: torchrun ends them when the first one fails.

        Args:
            what: a name of this call's own.
        """
        if self.local_world == 1:
            return act()
        key = f"node/{self.number}/{what}"
        if not self.local_rank:
            self.store.set(key, act())
        while not self.store.check([key]):  # its `wait` would keep other threads of this process from the store
            time.sleep(_LOOK_S)
        return str(self.store.get(key).decode())

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A temporary folder that the processes of the node share; its first process removes it."""
        path = Path(self.once(f"folder/{name}", lambda: tempfile.mkdtemp(prefix=f"{name}-")))
        try:
            yield path
        finally:
            if not self.local_rank:
                shutil.rmtree(path, ignore_errors=True)


def met(rendezvous: Callable[..., Iterator[tuple[Any, int, int]]], failure: type[Exception], device: str = "cpu") -> Node:
    """This process, when all processes of torchrun's environment are there; at once where there is no other.

    The process group itself would wait as long as its slowest operation may take: half an hour. Where only some processes have
    a GPU, they would join groups of two kinds, and each kind would wait for the other.

    Args:
        rendezvous: `torch.distributed.rendezvous.rendezvous`, passed in because the ground floor does not import torch.
        failure: what it and its store raise, `torch.distributed.DistError`.
        device: the kind of device that this process computes on, `cpu` or `cuda`.

    Raises:
        StepError: some process did not arrive within `start_timeout_s`.
        ConfigError: the processes compute on devices of several kinds.
    """
    node = Node.here()
    if node.world == 1:
        return node
    limit_s = start_timeout_s()
    limit = timedelta(seconds=limit_s)
    try:
        store, _, _ = next(rendezvous("env://", timeout=limit))
        keys = [f"here/{other}" for other in range(node.world)]
        store.set(keys[node.rank], f"{device} {socket.gethostname()}")
        store.wait(keys, limit)
        said = [store.get(key).decode() for key in keys]
    except failure as error:
        raise StepError(
            f"not all of {node.world} processes have come within {limit_s:g} s",
            where="start of the process group",
            remedy=f"Look at the logs of the others and at the network between them, or raise {START_TIMEOUT}.",
        ) from error
    _check_devices(said)
    return replace(node, store=store)


def _check_devices(said: Sequence[str]) -> None:
    """Refuse processes that compute on devices of several kinds.

    Args:
        said: of each rank, the kind of its device and the name of its machine.
    """
    ranks: dict[str, list[str]] = {}
    for rank, word in enumerate(said):
        kind, _, machine = word.partition(" ")
        ranks.setdefault(kind, []).append(f"{rank} on {machine}")
    if len(ranks) > 1:
        sides = "; ".join(f"{kind}: rank {', '.join(found)}" for kind, found in sorted(ranks.items()))
        raise ConfigError(
            f"the processes of one job compute on different devices ({sides})",
            where="start of the process group",
            remedy="Give every node GPUs that its torch can use, or none: CUDA_VISIBLE_DEVICES= (empty) hides them.",
        )


def free_port() -> int:
    """A port of this machine for a server that is about to start: it may need seconds to take it, and finds it free still."""
    numbers = random.SystemRandom()
    while True:
        port = numbers.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
                return port
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise


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
