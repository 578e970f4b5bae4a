"""A server as a process: started, waited for, asked, ended."""

import contextlib
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from tritower import processes

START_S = 240.0
"""A busy machine takes long to import what a server needs."""


@dataclass
class Served:
    """A server that takes requests.

    Attributes:
        address: http://host:port.
        process: its first process.
        log: what it wrote to standard error.
    """

    address: str
    process: processes.Process
    log: Path

    def client(self, **more: object) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=300, **more)  # type: ignore[arg-type]

    def said(self) -> str:
        return self.log.read_text()

    def figure(self, name: str) -> float:
        """The sum of a figure of /metrics over its labels; `name` may bring a part of the labels: `a{b="c"`."""
        lines = httpx.get(f"{self.address}/metrics", timeout=300).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and line[len(name)] in "{ ,}")


@contextlib.contextmanager
def served(
    command: Sequence[str], folder: Path, environment: dict[str, str] | None = None, *, within_s: float = START_S
) -> Iterator[Served]:
    """Start a server and wait until it takes requests.

    Raises:
        AssertionError: it ended before; with what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    with (
        log.open("w") as stderr,
        processes.started(command, environment=environment, stdout=subprocess.PIPE, stderr=stderr) as process,
    ):
        stdout = process.popen.stdout
        assert stdout is not None
        assert select.select([stdout], [], [], within_s)[0], log.read_text()
        line = stdout.readline().decode().strip()
        assert line, log.read_text()
        yield Served(line, process, log)


def until(what: Callable[[], object], within_s: float = 300.0, *, pause_s: float = 0.05) -> None:
    """Wait until a function returns something true."""
    end = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end, "it did not come to be in time"
        time.sleep(pause_s)
