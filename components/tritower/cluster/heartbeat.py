"""Who follows a job says so; a job that nobody follows ends itself.

The launcher renews a small object in the run's store. The first pod looks at it, and when it has stayed the same for a stated
time, by the pod's own clock, it leaves a mark beside it. Every pod looks for the mark before it starts anything.
"""

import contextlib
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from tritower import storage
from tritower.errors import StorageError
from tritower.storage.staging import sent

logger = logging.getLogger(__name__)
_BEAT, _MARK = "heartbeat", "abandoned"


def home(outputs: Mapping[str, str]) -> str:
    """The folder of a job's heartbeat and of what is kept of a failure: `<its first output>.launch`."""
    return f"{outputs[min(outputs)].rstrip('/')}.launch"


class Heartbeat:
    """Beats in a thread of its own while the block runs.

    Args:
        place: the folder, a location.
        every_s: seconds between two beats.
    """

    def __init__(self, place: str, every_s: float) -> None:
        self.place, self.every_s = place, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._own, self._count = uuid.uuid4().hex, 0

    def __enter__(self) -> "Heartbeat":
        """The first beat, and the mark of an earlier launcher removed, before anything starts.

        Raises:
            StorageError: the store cannot be written.
        """
        self._send()
        clear(self.place)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(self.every_s)

    def _beat(self) -> None:
        while not self._over.wait(self.every_s):
            try:
                self._send()
            except StorageError as error:
                logger.warning("no heartbeat: %s", error)

    def _send(self) -> None:
        self._count += 1
        _write(f"{self.place}/{_BEAT}", f"{self._own} {self._count}\n")


class Silence:
    """How long a heartbeat has been the same, as seen from here.

    A look that fails says nothing about the launcher: the time starts anew after it.

    Args:
        place: the folder, a location.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._last: str | None = None
        self._since = time.monotonic()

    def seconds(self) -> float:
        """Look, and tell for how many seconds nothing has changed."""
        try:
            beat = _read(f"{self.place}/{_BEAT}")
        except StorageError as error:
            logger.warning("the heartbeat cannot be read: %s", error)
            beat = None
        if beat is None or beat != self._last:
            self._last, self._since = beat, time.monotonic()
        return time.monotonic() - self._since


def mark(place: str) -> None:
    """Leave the mark: nobody follows this job any more."""
    _write(f"{place}/{_MARK}", "nobody follows this job any more\n")


def marked(place: str) -> bool:
    """Whether the mark is there."""
    return _read(f"{place}/{_MARK}") is not None


def clear(place: str) -> None:
    """Remove the mark."""
    location = f"{place}/{_MARK}"
    if storage.is_local(location):
        storage.local_path(location).unlink(missing_ok=True)
    else:
        storage.remove(location)


def _write(location: str, text: str) -> None:
    if storage.is_local(location):
        storage.local_path(location).parent.mkdir(parents=True, exist_ok=True)
    with sent(location) as file:
        file.write_text(text, encoding="utf-8")


def _read(location: str) -> str | None:
    there = storage.local_path(location).exists() if storage.is_local(location) else bool(storage.names(location))
    if not there:
        return None
    with tempfile.TemporaryDirectory(prefix="beat-") as scratch, contextlib.suppress(FileNotFoundError):
        return storage.fetch(location, Path(scratch) / "text").read_text(encoding="utf-8")
    return None
