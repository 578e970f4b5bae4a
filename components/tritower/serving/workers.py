"""Several processes on one listening socket: started, counted, started again when one dies, ended in order.

A worker listens only once its bundle is warm, so the others take all requests until then. What a dead one had not answered is
lost; connections it had not accepted yet wait in the socket that all share.
"""

import contextlib
import logging
import signal
import tempfile
import time
from pathlib import Path
from types import FrameType

from tritower import processes
from tritower.serving import server
from tritower.serving.config import ServeConfig
from tritower.serving.metrics import FOLDER, forget_worker

_LOOK_S = 0.05
_LONGEST_PAUSE_S = 30.0
_log = logging.getLogger(__name__)


class _Worker:
    """A process that answers, and those that take its place."""

    def __init__(self, command: list[str], folder: Path, listener: int) -> None:
        self._command, self._folder, self._listener = command, folder, listener
        self._block = contextlib.ExitStack()
        self._pause_s, self._next = 0.0, 0.0
        self.served = False
        self.start()

    def start(self) -> None:
        """Start a process."""
        environment = {FOLDER: str(self._folder), server.SOCKET: str(self._listener)}
        started = processes.started(self._command, environment=environment, pass_fds=(self._listener,))
        self.process = self._block.enter_context(started)
        self.pid = self.process.popen.pid

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return server.ready_file(self._folder, self.pid).exists()

    def look(self) -> None:
        """Start it again where it died: at once where it had served, else after a pause that doubles.

        Raises:
            TritowerError: the first process did not come to serve, with its reason.
        """
        if self.process.ended(0) is None:
            if self.ready and not self.served:
                self.served, self._pause_s = True, 0.0
            return
        if not self._next:
            came = self.ready
            why = self.process.failure()
            self.forget()
            if not (came or self.served):
                raise why
            self._pause_s = 0.0 if came else min(_LONGEST_PAUSE_S, max(1.0, 2 * self._pause_s))
            self._next = time.monotonic() + self._pause_s
            _log.error("worker %d died: %s; another one starts in %g s", self.pid, why, self._pause_s)
        if time.monotonic() >= self._next:
            self._next = 0.0
            self.start()

    def ask_to_end(self) -> None:
        """Send SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            self.process.popen.send_signal(signal.SIGTERM)

    def forget(self) -> None:
        """Clear away what is left of a process; it is ended where it still runs."""
        self._block.close()
        server.ready_file(self._folder, self.pid).unlink(missing_ok=True)
        forget_worker(self.pid, self._folder)


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
        workers: list[_Worker] = []
        try:
            workers += [_Worker(command, Path(folder), listener.fileno()) for _ in range(config.workers)]
            announced = False
            while not asked:
                for worker in workers:
                    worker.look()
                if not announced and all(worker.ready for worker in workers):
                    server.announce(listener, config)
                    announced = True
                time.sleep(_LOOK_S)
            listener.close()
            _end(workers, config.linger_s + config.drain_s)
        finally:
            for worker in workers:
                worker.forget()


def _end(workers: list[_Worker], within_s: float) -> None:
    for worker in workers:
        worker.ask_to_end()
    until = time.monotonic() + within_s + processes.GRACE_S
    for worker in workers:
        worker.process.ended(max(0.0, until - time.monotonic()))
