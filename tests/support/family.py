"""Who is there: the processes that descend from a test, found in /proc by a mark in their environment."""

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path

VARIABLE = "TEST_FAMILY"


def mark() -> dict[str, str]:
    """A variable that a process and all its descendants have, and nobody else."""
    return {VARIABLE: uuid.uuid4().hex}


def members(of: dict[str, str]) -> dict[int, str]:
    """Process id -> command line of every living process with the mark."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"{VARIABLE}={of[VARIABLE]}".encode() in (folder / "environ").read_bytes().split(
                b"\0"
            ):
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX":
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    found.pop(os.getpid(), None)
    return found


def wait_for(condition: Callable[[], object], what: str, seconds: float = 300.0) -> None:
    """Return when the condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def assert_gone(of: dict[str, str], seconds: float = 120.0) -> None:
    """Nobody of the family is there any more, or goes within so many seconds; who is left over sleeps for ten minutes."""
    deadline = time.monotonic() + seconds
    while left := members(of):
        if time.monotonic() > deadline:
            end(of)
            raise AssertionError(left)
        time.sleep(0.02)


def end(of: dict[str, str]) -> None:
    """Kill whoever is left of the family."""
    for number in members(of):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
