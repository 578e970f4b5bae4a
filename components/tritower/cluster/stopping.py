"""SIGTERM: the job is deleted before anything else.

A run that is terminated leaves its workflow, and so the job, in place; the step's process has about a second to live, and its
output is a pipe that nobody reads any more. So the handler sends DELETE over a connection of its own, prints nothing, and then
lets the process end as it would have.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tritower.cluster.api import GONE, Api, Refused
from tritower.errors import LaunchError

_TIMEOUT_S = (0.5, 0.5)
_TRIES, _PAUSE_S = 4, 0.15


class Stopping:
    """While the block runs, SIGTERM deletes the job. Only a process's main thread can be told of signals.

    Args:
        server: a connection for nothing else: the thread that is interrupted may hold the lock of its own.
        paths: the job, and then what goes with it.
    """

    def __init__(self, server: Api, paths: Sequence[str]) -> None:
        self.server, self.paths = server, paths
        self.creating = False
        """The job may come into being a moment after the signal."""
        self._former: Callable[..., Any] | int | None = None
        self._set = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Stopping":
        if self._set:
            self._former = signal.signal(signal.SIGTERM, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        if self._set:
            signal.signal(signal.SIGTERM, self._former)

    def _stop(self, *_: object) -> None:
        for path in self.paths:
            self._delete(path)
        signal.signal(signal.SIGTERM, self._former or signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    def _delete(self, path: str) -> None:
        for _attempt in range(_TRIES):
            try:
                self.server.raw("DELETE", path, body=GONE, timeout_s=_TIMEOUT_S)
                break
            except Refused as error:
                if error.status == 404 and not self.creating:
                    break
            except LaunchError:
                pass
            time.sleep(_PAUSE_S)
