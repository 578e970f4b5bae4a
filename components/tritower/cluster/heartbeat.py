"""Who follows a job says so; a job that nobody follows ends itself.

The launcher renews a small object in the run's store. The first pod looks at it, and when it has stayed the same for a stated
time, by the pod's own clock, it leaves a mark beside it. Every pod looks for the mark before it starts anything.
"""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Mapping

from tritower import storage
from tritower.errors import LaunchError
from tritower.storage.staging import sent

logger = logging.getLogger(__name__)
_BEAT, _MARK = "heartbeat", "abandoned"
RENDEZVOUS = "rendezvous"
"""The word of `rendezvous.py`; it goes with the heartbeat."""
_LAST_S = 20.0
"""Seconds that the last beat may take."""
_KEPT = "the job is left in place\n"


def home(outputs: Mapping[str, str]) -> str:
    """The folder of a job's heartbeat and of what is kept of a failure: a hidden sibling of its first output."""
    return storage.beside(outputs[min(outputs)], "launch")


class Heartbeat:
    """Beats in a thread of its own while the block runs, and leaves nothing behind.

    A node that was lost may come back, and with it a launcher whose job another one has followed since. The one that began last
    counts: the other finds that one's beat in the place of its own, and beats no more.

    Args:
        place: the folder, a location.
        every_s: seconds between two beats.
    """

    def __init__(self, place: str, every_s: float) -> None:
        self.place, self.every_s = place, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._own, self._count = (1, uuid.uuid4().hex), 0
        self._kept = False
        self.superseded = False
        """Whether another launcher follows the job."""

    def __enter__(self) -> "Heartbeat":
        """The first beat, and the mark of an earlier launcher removed, before anything starts.

        Raises:
            StorageError: the store cannot be read or written.
        """
        self._own = (_order(read(f"{self.place}/{_BEAT}"))[0] + 1, self._own[1])
        self._send()
        clear(self.place)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(max(self.every_s, _LAST_S))
        if not self._thread.is_alive() and not self.superseded:
            with contextlib.suppress(OSError):
                if self._kept:
                    write(f"{self.place}/{_BEAT}", _KEPT)
                else:
                    _remove(f"{self.place}/{_BEAT}")
                    _remove(f"{self.place}/{RENDEZVOUS}")

    def keep(self) -> None:
        """The job is to stay when the block ends: silence will not count."""
        self._kept = True

    def check(self) -> None:
        """Raises: LaunchError: another launcher follows the job."""
        if self.superseded:
            raise LaunchError(
                "another launcher follows this job", where=self.place, remedy="Nothing is lost: the other one goes on with it."
            )

    def _beat(self) -> None:
        while not self._over.wait(self.every_s):
            try:
                self.superseded = _order(read(f"{self.place}/{_BEAT}")) > self._own
                if self.superseded:
                    return
                self._send()
            except OSError as error:  # the store is away, or this machine's disk is full
                logger.warning("no heartbeat: %s", error)

    def _send(self) -> None:
        self._count += 1
        write(f"{self.place}/{_BEAT}", f"{self._own[0]} {self._own[1]} {self._count}\n")


def _order(beat: str | None) -> tuple[int, str]:
    """Which launcher began last: how many were before it, and its name."""
    number, _, rest = (beat or "").partition(" ")
    return (int(number), rest.partition(" ")[0]) if number.isdigit() else (0, "")


class Silence:
    """How long a heartbeat has been the same, as seen from here. One that is not there stays the same as well.

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
        beat: str | None = None
        try:
            beat = read(f"{self.place}/{_BEAT}") or "none"
        except OSError as error:
            logger.warning("the heartbeat cannot be read: %s", error)
        if beat in (None, _KEPT) or beat != self._last:
            self._last, self._since = beat, time.monotonic()
        return time.monotonic() - self._since


def mark(place: str) -> None:
    """Leave the mark: nobody follows this job any more."""
    write(f"{place}/{_MARK}", "nobody follows this job any more\n")


def marked(place: str) -> bool:
    """Whether the mark is there."""
    return read(f"{place}/{_MARK}") is not None


def clear(place: str) -> None:
    """Remove the mark."""
    _remove(f"{place}/{_MARK}")


def _remove(location: str) -> None:
    if storage.is_local(location):
        storage.local_path(location).unlink(missing_ok=True)
    else:
        storage.remove(location)


def write(location: str, text: str) -> None:
    """Put a small text there, as a whole."""
    if storage.is_local(location):
        storage.local_path(location).parent.mkdir(parents=True, exist_ok=True)
    with sent(location) as file:
        file.write_text(text, encoding="utf-8")


def read(location: str) -> str | None:
    """The text that is there; None where there is none."""
    found = storage.read_small(location)
    return found[0].decode(errors="replace") if found else None
