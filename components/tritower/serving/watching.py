"""Looks for a new bundle where the one in use came from, and has it swapped in while the server serves."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal

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


class Lookout:
    """Compares the manifest at a location with the one seen last; another one means a new bundle.

    A bundle that is refused is tried again, as its parts may still be on their way, each time after twice the time.

    Args:
        location: of the bundle.
        swap: takes the new one.
        seen: what `tag` said before the bundle in use was read.
        poll_s: seconds between two looks.

    Attributes:
        location: as above.
        seen: of the bundle in use.
        trouble: why the newest bundle is not in use; empty where it is.
    """

    def __init__(self, location: str, swap: Callable[[], object], *, seen: str, poll_s: float) -> None:
        self.location, self.seen, self.trouble = location, seen, ""
        self._swap, self._poll_s = swap, poll_s
        self._refused, self._pause_s, self._next = "", 0.0, 0.0

    def look(self) -> Literal["taken", "refused"] | None:
        """Look once, and swap where there is something new: what became of that, None where there is nothing."""
        try:
            now = tag(self.location)
        except StorageError as error:
            _log.warning("the location of the bundle cannot be read, the bundle stays: %s", error)
            return None
        if not now or now == self.seen or (now == self._refused and time.monotonic() < self._next):
            return None
        try:
            self._swap()
        except TritowerError as error:
            self._pause_s = min(_LONGEST_S, max(self._poll_s, 2 * self._pause_s if now == self._refused else 0))
            self._refused, self._next = now, time.monotonic() + self._pause_s
            if self.trouble != str(error):
                _log.error("the new bundle is refused, the one before stays: %s: %s", type(error).__name__, error)
            self.trouble = str(error)
            return "refused"
        self.seen, self._refused, self.trouble = now, "", ""
        return "taken"


class Watcher:
    """A thread that looks every so often.

    Args:
        service: takes the bundle.
        location: of the bundle.
        seen: what `tag` said before the bundle in use was read.
        name: the bundle's in this server.
    """

    def __init__(self, service: Service, location: str, *, seen: str, name: str = "main") -> None:
        self._service, self.name = service, name
        self._lookout = Lookout(
            location, lambda: service.swap(location, name), seen=seen, poll_s=service.config.poll_s
        )  # fmt: skip
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"watch-{name}", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        if self._service.config.poll_s:
            self._thread.start()

    def stop(self) -> None:
        """End; a swap that is under way is waited for."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._service.config.poll_s):
            result = self._lookout.look()
            if result:
                self._service.trouble = self._lookout.trouble
                self._service.metrics.swaps.labels(result).inc()
