"""How long what a server keeps is kept."""

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tritower import storage
from tritower.config import check
from tritower.serving import forgetting, records, segments, served

_DAY_US = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Days after which something goes; 0 = never. The defaults are ours: say what your own rules ask for."""

    journal_days: int = 30
    """Events. Longer than the age of any state that a server starts from: it counts from there on."""
    served_days: int = 400
    """The log of what was served: a year of training data, and tests that ended."""
    state_days: int = 400
    """Clicks and searches in a state of people who have not come for so long."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        for name in ("journal_days", "served_days", "state_days"):
            check(getattr(self, name) >= 0, name, getattr(self, name), "of at least 0")


@dataclass(frozen=True, kw_only=True)
class Expired:
    """What went: segments of the journal, files of the log, people's histories."""

    segments: int = 0
    files: int = 0
    people: int = 0


def expire(
    keep: Retention, *, journal_at: storage.LocationLike = "", served_at: storage.LocationLike = "", folder: str | Path = "",
    now: int | None = None,
) -> Expired:  # fmt: skip
    """Remove what is older than `keep` allows. A server may be at work on journal and log.

    Args:
        keep: how long each is kept.
        journal_at, served_at: where they are; empty = left alone.
        folder: a bundle or a state on this machine; it is replaced.
        now: microseconds since 1970; None = now.

    Raises:
        StorageError: a place cannot be read or written.
    """
    moment = time.time_ns() // 1_000 if now is None else now
    return Expired(
        segments=_segments(journal_at, moment - keep.journal_days * _DAY_US) if journal_at and keep.journal_days else 0,
        files=_files(served_at, moment - keep.served_days * _DAY_US) if served_at and keep.served_days else 0,
        people=_people(Path(folder), moment - keep.state_days * _DAY_US) if folder and keep.state_days else 0,
    )


def _segments(location: storage.LocationLike, before: int) -> int:
    """Remove segments all of whose records were taken before a time; never the last one, which is written to."""
    names, count = segments.names(location), 0
    for name, following in itertools.pairwise(names):
        begun = records.taken_first(segments.read(location, following, 0, records.HEAD_BYTES))
        if not begun or begun >= before:
            break
        segments.remove(location, name)
        count += 1
    return count


def _files(location: storage.LocationLike, before: int) -> int:
    count = 0
    for name in served.files(location):
        hour = served.hour_of(name)
        if hour is not None and hour + served.HOUR_US <= before:
            served.remove(name)
            count += 1
    return count


def _people(folder: Path, before: int) -> int:
    """Thin a state of those whose last click and last search are older."""
    state = folder / "state" if (folder / "state").is_dir() else folder
    last: dict[str, int] = {}
    for name in ("clicks", "searches"):
        table = pq.read_table(state / f"{name}.parquet", columns=["user_id", "ts"])
        newest = pc.list_element(table.filter(pc.greater(pc.list_value_length(table["ts"]), 0))["ts"], 0)
        users = table.filter(pc.greater(pc.list_value_length(table["ts"]), 0))["user_id"]
        for user, ts in zip(users.to_pylist(), newest.cast(pa.int64()).to_pylist(), strict=True):
            last[user] = max(last.get(user, 0), ts)
    idle = {user for user, ts in last.items() if ts < before}
    if idle:
        forgetting.thin(folder, idle, profiles=False)
    return len(idle)
