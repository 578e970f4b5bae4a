"""Reading a journal's records in order while its writer goes on, merges segments and lets old ones go."""

import logging
import time

from tritower import storage
from tritower.errors import ArtifactError
from tritower.serving import records, segments
from tritower.serving.records import Framed

_log = logging.getLogger(__name__)
_LIST_S = 10.0
"""A store is asked for the next object by its name, and for all names only so often: objects are merged after a minute."""


class Reader:
    """The records of a journal in order, as far as they are there."""

    def __init__(self, location: storage.LocationLike, after: int = 0) -> None:
        """Args: after: number of the record to begin behind."""
        self.location, self.last, self.missing = location, after, 0
        self._name, self._position, self._ahead = "", 0, ("", b"")
        self._grows, self._listed = storage.is_local(location), 0.0

    def read(self) -> list[Framed]:
        """The next records, those of one segment at most; none where nothing has come.

        Raises:
            StorageError: the place cannot be read.
            ArtifactError: a segment is damaged.
        """
        for _ in range(5):
            if not self._name and not self._find():
                return []
            found = self._next()
            if found is not None:
                return found
        return []

    def _next(self) -> list[Framed] | None:
        """The next records of this segment or the one behind it; none where nothing has come, None to look again."""
        if self._position and not self._grows:
            return self._turn()
        name, data = self._ahead
        if name != self._name:
            piece = segments.look(self.location, self._name, self._position)
            if piece is None or piece[1] < self._position:  # its time was over; it was written anew (`forget.py`)
                self._name, self._position = "" if piece is None else self._name, 0
                return None
            data = piece[0]
        self._ahead = "", b""
        found = [frame for frame in records.frames(data, self._position) if frame.number > self.last]
        if found:
            self._position, self.last = found[-1].stop, found[-1].number
            return found
        if not data:
            return self._turn()
        if self._position:
            self._position = 0  # no record: still being written, or the segment was written anew
            return None
        if self._is_whole(data):
            return None
        if segments.names(self.location)[-1] > self._name:
            where, remedy = segments.at(self.location, self._name), "Restore it, or remove it: its events are then missing."
            raise ArtifactError(f"the segment is damaged after record {self.last}", where=where, remedy=remedy)
        return []

    def _turn(self) -> list[Framed] | None:
        """Go on to the segment behind."""
        following = records.segment_name(self.last + 1)
        piece = None
        if following != self._name:
            piece = segments.look(self.location, following, size=1 if self._grows else None)
        if piece:
            self._name, self._position = following, 0
            self._ahead = ("", b"") if self._grows else (following, piece[0])
            return None
        if not self._grows and time.monotonic() - self._listed > _LIST_S:  # it may have come, and have been merged since
            self._name = ""
            return None
        return []

    def _is_whole(self, data: bytes) -> bool:
        """Whether all of a segment are records, which were read before; then go on behind them."""
        found = records.frames(data)
        end = found[-1].stop if found else len(records.MAGIC)
        self._position = end
        return len(data) == end

    def _find(self) -> bool:
        """The segment that holds the next record."""
        names = segments.names(self.location)
        self._listed = time.monotonic()
        if not names:
            return False
        first = [records.first_number(name) or 1 for name in names]
        at = max((i for i, number in enumerate(first) if number <= self.last + 1), default=-1)
        if at < 0:
            self.missing += first[0] - 1 - self.last
            _log.warning("%s: records %d to %d are not there any more", self.location, self.last + 1, first[0] - 1)
            at, self.last = 0, first[0] - 1
        self._name, self._position = names[at], 0
        return True


def last_record(location: storage.LocationLike) -> int:
    """The number of a journal's last record, 0 where there is none."""
    names = segments.names(location)
    if not names:
        return 0
    found = records.frames(segments.read(location, names[-1]))
    return found[-1].number if found else (records.first_number(names[-1]) or 1) - 1
