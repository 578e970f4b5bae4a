"""Looks for a new bundle where the one in use came from, and has it swapped in while the server serves."""

import logging
import threading
import time

from tritower import storage
from tritower.errors import StorageError, TritowerError
from tritower.serving.service import Service

MANIFEST = "bundle.json"
"""The file of a bundle that is written last."""
_LONGEST_S = 600.0
_log = logging.getLogger(__name__)


def tag(location: str) -> str:
    """What changes when another bundle lies at the location; empty where none does.

    Raises:
        StorageError: it cannot be read.
    """
    found = storage.read_small(f"{location.rstrip('/')}/{MANIFEST}")
    return found[1] if found else ""


class Watcher:
    """A thread that reads the manifest every so often; a manifest that changed means a new bundle.

    A bundle that is refused is tried again, as its parts may still be on their way, each time after twice the time.

    Args:
        service: takes the bundle.
        location: of the bundle.
        seen: what `tag` said before the bundle in use was read.
        name: the bundle's in this server.
    """

    def __init__(self, service: Service, location: str, *, seen: str, name: str = "main") -> None:
        self._service, self._location, self.name = service, location, name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"watch-{name}", daemon=True)
        self._tag, self._refused, self._pause_s, self._next = seen, "", 0.0, 0.0

    def start(self) -> None:
        """Begin to look."""
        if self._service.config.poll_s:
            self._thread.start()

    def stop(self) -> None:
        """End; a swap that is under way is waited for."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Look once, and swap where there is something new."""
        try:
            now = tag(self._location)
        except StorageError as error:
            _log.warning("the location of the bundle cannot be read, the bundle stays: %s", error)
            return
        if not now or now == self._tag or (now == self._refused and time.monotonic() < self._next):
            return
        metrics = self._service.metrics
        try:
            self._service.swap(self._location, self.name)
        except TritowerError as error:
            self._pause_s = min(_LONGEST_S, max(self._service.config.poll_s, 2 * self._pause_s if now == self._refused else 0))
            self._refused, self._next = now, time.monotonic() + self._pause_s
            if self._service.trouble != str(error):
                _log.error("the new bundle is refused, the one before stays: %s: %s", type(error).__name__, error)
            self._service.trouble = str(error)
            metrics.swaps.labels("refused").inc()
        else:
            self._tag, self._refused, self._service.trouble = now, "", ""
            metrics.swaps.labels("taken").inc()

    def _watch(self) -> None:
        while not self._ended.wait(self._service.config.poll_s):
            self.look()
