"""Processes of containers. A container's are found by a mark in their environment, whatever session they are in."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import IO

from tests.support import family
from tests.support.apiserver.store import CLOCK

_PAGE = os.sysconf("SC_PAGE_SIZE")


class NotFound(Exception):
    """The command is not in the image."""


class Attempt:
    """One run of a container's command. `lines` are (time, bytes with the newline), `exit_code` is None while it runs.

    Args:
        memory: bytes that its processes may hold together, 0 for no limit.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path, memory: float) -> None:
        self.lines: list[tuple[float, bytes]] = []
        self.exit_code: int | None = None
        self.is_read = threading.Event()
        self.is_oom = False
        self.started = time.time()
        self.ended: float | None = None
        self.mark, self._memory, self._next_look = family.mark(), memory, 0.0
        whole = {**environment, **self.mark}
        path = shutil.which(command[0], path=whole["PATH"])
        if path is None:
            raise NotFound(command[0])
        # The first process ends with this one, whatever ends this one.
        guard = [setpriv, "--pdeathsig", "KILL", "--"] if (setpriv := shutil.which("setpriv")) else []
        self.process = Popen(
            [*guard, path, *command[1:]], env=whole, cwd=folder, stdout=PIPE, stderr=STDOUT, start_new_session=True, bufsize=0
        )
        assert self.process.stdout
        threading.Thread(target=self._read, args=[self.process.stdout], daemon=True).start()

    def poll(self) -> int | None:
        """The exit code once the first process has ended, and with it all others."""
        if self.exit_code is None:
            self._look_at_memory()
            code = self.process.poll()
            if code is not None:
                self._kill_all()
                self.is_read.wait(60)
                self.ended = time.time()
                self.exit_code = 137 if self.is_oom else code if code >= 0 else 128 - code
        return self.exit_code

    def ask(self) -> None:
        """SIGTERM to the first process, which has to have a handler for it: to the kernel it is process 1."""
        if self.process.poll() is None and _catches(self.process.pid, signal.SIGTERM):
            self.process.terminate()

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self, *, oom: bool = False) -> None:
        self.is_oom = self.is_oom or oom
        self._kill_all()

    def _kill_all(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        end = time.monotonic() + 10
        while family.members(self.mark) and time.monotonic() < end:
            family.end(self.mark)
            time.sleep(0.005)

    def _read(self, stream: IO[bytes]) -> None:
        rest = b""
        while chunk := stream.read(2**16):
            *whole, rest = (rest + chunk).split(b"\n")
            self.lines += [(CLOCK.time(), line + b"\n") for line in whole]
        if rest:
            self.lines.append((CLOCK.time(), rest))
        stream.close()
        self.is_read.set()

    def _look_at_memory(self) -> None:
        now = time.monotonic()
        if self._memory and now >= self._next_look:
            if sum(_own_memory(pid) for pid in _family(self.process.pid)) > self._memory:
                self.kill(oom=True)
            # Java has hundreds of threads: a tenth of the time at most goes into looking.
            self._next_look = time.monotonic() + max(0.02, 10 * (time.monotonic() - now))


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def _own_memory(pid: int) -> int:
    """Bytes of a process that it shares with no file."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * _PAGE


def _catches(pid: int, number: int) -> bool:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    (mask,) = (line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)
