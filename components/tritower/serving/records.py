"""Records of the journal as bytes: what was committed together is one record, and one checksum.

    segment   MAGIC, then records
    record    length, checksum, number, taken, count, then `length` bytes: the keys of the events, and the events as JSON

Numbers are little-endian. `checksum` is the CRC-32 of all that follows it. `number` counts records from 1 without a gap; a
segment `segment-<number of its first record>.log` is followed by the one that its last number + 1 names. `taken` is when the
record was committed, in microseconds since 1970, never less than that of the record before. The keys let a writer that starts
again know an event without reading its JSON.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAGIC = b"ttjrnl\x00\x01"
LONGEST = 64 << 20
"""Bytes of a record; more is no record."""
_HEAD = struct.Struct("<IIQQI")
_CHECKED_FROM = 8
HEAD_BYTES = len(MAGIC) + _HEAD.size
Event = Mapping[str, Any]
"""A row of `features.online.EVENTS` in JSON's types: times are microseconds since 1970, what is unknown is left out."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was committed together.

    Attributes:
        number: from 1, without a gap.
        taken: when, microseconds since 1970.
        keys: `key` of each event.
        events: the rows, in the order in which they came.
    """

    number: int
    taken: int
    keys: tuple[int, ...]
    events: tuple[Event, ...]

    def encode(self) -> bytes:
        """The record as bytes."""
        keys = struct.pack(f"<{len(self.keys)}Q", *self.keys)
        body = keys + json.dumps(self.events, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        checked = _HEAD.pack(0, 0, self.number, self.taken, len(self.keys))[_CHECKED_FROM:] + body
        return struct.pack("<II", len(body), zlib.crc32(checked)) + checked


@dataclass(frozen=True, kw_only=True)
class Framed:
    """A record in a segment, its events still as text.

    Attributes:
        start, stop: its bytes.
    """

    number: int
    taken: int
    keys: tuple[int, ...]
    text: bytes
    start: int
    stop: int

    def record(self) -> Record:
        """The record with its events."""
        events = tuple(json.loads(self.text.decode("utf-8", "surrogatepass")))
        return Record(number=self.number, taken=self.taken, keys=self.keys, events=events)


def frames(data: bytes, position: int = 0) -> list[Framed]:
    """The whole records of a segment's bytes from a position on, up to the first that is not whole; `start` and `stop` of each
    are positions in the segment."""
    found: list[Framed] = []
    start = position
    if position == 0:
        if data[: len(MAGIC)] != MAGIC:
            return found
        start = len(MAGIC)
    while frame := _frame(data, start, position):
        found.append(frame)
        start = frame.stop
    return found


def _frame(data: bytes, start: int, position: int) -> Framed | None:
    at = start - position
    begin = at + _HEAD.size
    if begin > len(data):
        return None
    length, checksum, number, taken, count = _HEAD.unpack_from(data, at)
    stop = begin + length
    if length > LONGEST or stop > len(data) or 8 * count > length:
        return None
    if zlib.crc32(memoryview(data)[at + _CHECKED_FROM : stop]) != checksum:
        return None
    keys = struct.unpack_from(f"<{count}Q", data, begin)
    text = data[begin + 8 * count : stop]
    return Framed(number=number, taken=taken, keys=keys, text=text, start=start, stop=stop + position)


def key(event: Event) -> int:
    """64 bits that stand for (request_id, job_id, event): equal for an event and its repetition.

    Among 10 million events, two that differ have the same key with a probability of 3 in a million.
    """
    parts = (event["request_id"], event["job_id"], event.get("event") or "impression")
    return int.from_bytes(hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest(), "little")


def segment_name(number: int) -> str:
    """The name of the segment whose first record has this number; names sort as numbers do."""
    return f"segment-{number:020d}.log"


def taken_first(head: bytes) -> int:
    """When the first record of a segment was committed, from its first `HEAD_BYTES`; 0 where there is none yet."""
    return int(_HEAD.unpack_from(head, len(MAGIC))[3]) if len(head) >= HEAD_BYTES else 0


def first_number(name: str) -> int | None:
    """The number of the first record of a segment; None where the name is none of a segment."""
    middle = name.removeprefix("segment-").removesuffix(".log")
    return int(middle) if name.startswith("segment-") and name.endswith(".log") and middle.isdigit() else None


def concise(event: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """An event's known columns, those without a value left out."""
    return {name: event[name] for name in names if event.get(name) is not None}


def digest(parts: Iterable[str]) -> str:
    """One hash of several."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
