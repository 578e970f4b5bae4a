"""Several processes on one listening socket: started, counted, replaced when one dies, ended in order.

A process loads its bundle, says that it is warm, and waits; it listens once it is told to serve. More are started than serve: a
spare one takes the place of one that died at once, while the next spare loads. What a dead one had not answered is lost;
connections that it had not accepted yet wait in the socket that all share.
"""

import contextlib
import logging
import signal
import tempfile
import time
from pathlib import Path
from types import FrameType

from tritower import processes
from tritower.errors import TritowerError
from tritower.serving import server, standby
from tritower.serving.config import ServeConfig
from tritower.serving.metrics import FOLDER, forget_worker

_LOOK_S = 0.05
_LONGEST_PAUSE_S = 30.0
_STEADY_S = 10.0
"""One that served for so long did not die of its start."""
_log = logging.getLogger(__name__)


class _Worker:
    """A process: it loads, is warm, is told to serve, serves."""

    def __init__(self, command: list[str], folder: Path, listener: int) -> None:
        self._folder, self._block = folder, contextlib.ExitStack()
        environment = {FOLDER: str(folder), server.SOCKET: str(listener)}
        started = processes.started(command, environment=environment, pass_fds=(listener,))
        self.process = self._block.enter_context(started)
        self.pid = self.process.popen.pid
        self.told = False
        self._since = 0.0

    @property
    def warm(self) -> bool:
        """Whether it waits for its word."""
        return not self.told and standby.warm_file(self._folder, self.pid).exists()

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        if not self._since and server.ready_file(self._folder, self.pid).exists():
            self._since = time.monotonic()
        return self._since > 0

    @property
    def steady(self) -> bool:
        """Whether it has served for a while."""
        return self.ready and time.monotonic() - self._since >= _STEADY_S

    def tell(self) -> None:
        """Let it serve."""
        standby.word_file(self._folder, self.pid).touch()
        self.told = True

    def ask_to_end(self) -> None:
        """Send SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            self.process.popen.send_signal(signal.SIGTERM)

    def forget(self) -> None:
        """Clear away what is left of a process; it is ended where it still runs."""
        self._block.close()
        for file in (server.ready_file, standby.warm_file, standby.word_file):
            file(self._folder, self.pid).unlink(missing_ok=True)
        forget_worker(self.pid, self._folder)


class _Pool:
    """The processes of a server.

    Args:
        command: starts one of them.
        config: how many serve, and how many wait.
        folder: where they say how far they are.
        listener: number of the socket that they share.
    """

    def __init__(self, command: list[str], config: ServeConfig, folder: Path, listener: int) -> None:
        self._command, self._config, self._folder, self._listener = command, config, folder, listener
        self.workers: list[_Worker] = []
        self.whole = False
        """All have served at one time. Spare ones load only then: they would delay the first answer."""
        self._pause_s, self._next, self._why = 0.0, 0.0, ""

    def look(self) -> None:
        """Clear away the dead, let warm ones serve where some are lacking, start new ones.

        Raises:
            TritowerError: a process did not come to serve at the server's start, with its reason.
        """
        for worker in [one for one in self.workers if one.process.ended(0) is not None]:
            self.workers.remove(worker)
            self._clear(worker)
        lacking = self._config.workers - sum(one.told for one in self.workers)
        for worker in [one for one in self.workers if one.warm][:lacking]:
            worker.tell()
        self.whole = self.whole or sum(one.ready for one in self.workers) == self._config.workers
        wanted = self._config.workers + (self._config.spares if self.whole else 0)
        if time.monotonic() >= self._next:
            self.workers += [self._started() for _ in range(wanted - len(self.workers))]

    def end(self) -> None:
        """Ask all to end, and wait while they answer what they have taken."""
        for worker in self.workers:
            worker.ask_to_end()
        until = time.monotonic() + self._config.linger_s + self._config.drain_s + processes.GRACE_S
        for worker in self.workers:
            worker.process.ended(max(0.0, until - time.monotonic()))

    def _started(self) -> _Worker:
        return _Worker(self._command, self._folder, self._listener)

    def _clear(self, worker: _Worker) -> None:
        """Say why one died; after one that did not serve for long the next one waits, each time for twice as long."""
        steady, served, why = worker.steady, worker.ready, worker.process.failure()
        worker.forget()
        if not (served or self.whole):
            raise why
        self._pause_s = 0.0 if steady else min(_LONGEST_PAUSE_S, max(1.0, 2 * self._pause_s))
        self._next = time.monotonic() + self._pause_s
        self._say(worker, why)

    def _say(self, worker: _Worker, why: TritowerError) -> None:
        what = "worker" if worker.told else "spare worker"
        spare = worker.told and any(one.warm for one in self.workers)
        then = "a spare one takes its place" if spare else f"another one starts in {self._pause_s:g} s"
        _log.error("%s %d died: %s; %s", what, worker.pid, why, then)


def serve(command: list[str], config: ServeConfig) -> None:
    """Serve by `config.workers` processes until SIGTERM or SIGINT.

    Args:
        command: starts one of them; it calls `server.run`.
        config: the server's.

    Raises:
        TritowerError: what the first of them could not do.
    """
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    listener = server.listen(config)
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        pool = _Pool(command, config, Path(folder), listener.fileno())
        announced = False
        try:
            while not asked:
                pool.look()
                if pool.whole and not announced:
                    server.announce(listener, config)
                    announced = True
                time.sleep(_LOOK_S)
            listener.close()
            pool.end()
        finally:
            for worker in pool.workers:
                worker.forget()
