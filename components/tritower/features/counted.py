"""Which searches a run has counted, so that the next one can tell a row that it may skip from one that came too late.

A run that continues skips what lies before the last row of its state. Most of that was counted by an earlier run; what was
not came late, and is left out for good: the counters have moved on. Searches are known by day and 32 bits of a hash of their
id: 8 bytes each here, about half of that in the file, and less than one in a thousand taken for another at a million a day.
Of days that lie further back than the state remembers only the number of searches is kept: what is beyond it came late.

Legend: S searches remembered, R searches of a dataset, D days.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tritower.features.requests import opened
from tritower.numba_cache import njit

DAY_US = 86_400_000_000
Int64 = npt.NDArray[np.int64]
_FILE = "counted.parquet"


@dataclass(frozen=True, kw_only=True)
class Counted:
    """`key_S`: sorted keys (see `keys`) of the searches of the last days; `searches_D`: how many there were on each `day_D`."""

    key_S: Int64
    day_D: Int64
    searches_D: Int64

    @staticmethod
    def empty() -> "Counted":
        """Nothing counted."""
        none = np.empty(0, np.int64)
        return Counted(key_S=none, day_D=none, searches_D=none)

    @staticmethod
    def read(folder: Path) -> "Counted":
        """As `write` left it in a state's folder."""
        table = pq.read_table(folder / _FILE, partitioning=None)
        keys = table.column("keys").combine_chunks().flatten().to_numpy()
        return Counted(key_S=keys, day_D=table.column("day").to_numpy(), searches_D=table.column("searches").to_numpy())

    def write(self, folder: Path) -> None:
        """One row a day: its number since 1970, its searches, and the keys of those still remembered."""
        ends_D = np.searchsorted(self.key_S, (self.day_D + 1) << 32)
        starts_D = np.searchsorted(self.key_S, self.day_D << 32)
        offsets = pa.array(np.append(starts_D, ends_D[-1:]).astype(np.int32))
        keys = (
            pa.ListArray.from_arrays(offsets, pa.array(self.key_S)) if len(self.day_D) else pa.array([], pa.list_(pa.int64()))
        )
        table = pa.table({"day": self.day_D, "searches": self.searches_D, "keys": keys})
        encoding = {"keys.list.element": "DELTA_BINARY_PACKED"}
        pq.write_table(table, folder / _FILE, compression="zstd", use_dictionary=False, column_encoding=encoding)

    def with_new(self, requests: Path, *, since_us: int, remembered_days: int) -> "Counted":
        """Together with the searches of a dataset from `since_us` on, all but the last days forgotten.

        Args:
            requests: the table of searches, requests.parquet.
            since_us: time of the state's last row in microseconds; its searches may be among those counted already.
            remembered_days: days of searches to keep, counted back from the last.
        """
        found = [keys(ids, ts)[ts >= since_us] for _, ids, ts in _searches(requests)]
        key_R = np.concatenate([self.key_S[:0], *found])
        key_R = key_R[~_among(key_R, self.key_S)]
        key_S = np.union1d(self.key_S, key_R)
        day_D, added_D = np.unique(key_R >> 32, return_counts=True)
        days = np.union1d(self.day_D, day_D)
        searches_D = np.zeros(len(days), np.int64)
        searches_D[np.searchsorted(days, self.day_D)] = self.searches_D
        searches_D[np.searchsorted(days, day_D)] += added_D
        kept = key_S >> 32 > (days[-1] - remembered_days if len(days) else 0)
        return Counted(key_S=key_S[kept], day_D=days, searches_D=searches_D)

    def late(self, requests: Path, rows_R: Int64, before_us: int) -> int:
        """How many of a dataset's rows lie before a time and belong to searches that were never counted.

        Args:
            requests: its table of searches, requests.parquet.
            rows_R: rows before that time, by number of the search.
            before_us: the time in microseconds.
        """
        late = 0
        forgotten_before = self.key_S[0] >> 32 if len(self.key_S) else np.iinfo(np.int64).max
        old_day, old_rows = [], []
        for request, ids, ts in _searches(requests):
            early = (ts < before_us) & (request < len(rows_R))
            key_E, rows = keys(ids, ts)[early], rows_R[request[early]]
            day = key_E >> 32
            remembered = day >= forgotten_before
            unknown = ~_among(key_E[remembered], self.key_S)
            late += int(rows[remembered][unknown].sum())
            old_day.append(day[~remembered])
            old_rows.append(rows[~remembered])
        return late + self._beyond(np.concatenate(old_day), np.concatenate(old_rows)) if old_day else late

    def _beyond(self, day_R: Int64, rows_R: Int64) -> int:
        """Rows of the days forgotten, as far as their searches are more than were counted on that day."""
        late = 0.0
        for day in np.unique(day_R).tolist():
            rows, searches = int(rows_R[day_R == day].sum()), int((day_R == day).sum())
            at = np.searchsorted(self.day_D, day)
            counted = int(self.searches_D[at]) if at < len(self.day_D) and self.day_D[at] == day else 0
            late += rows * max(0, searches - counted) / searches
        return int(np.ceil(round(late, 9)))


def keys(ids: pa.StringArray, ts_us: Int64) -> Int64:
    """Searches as numbers that sort by day: the day since 1970, then 32 bits of a hash of the id."""
    _, offsets, data = ids.buffers()
    first_R = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    key_R: Int64 = ((ts_us // DAY_US) << 32) | _hash(np.frombuffer(data or b"", np.uint8), first_R)
    return key_R


@njit(cache=True)
def _hash(data: npt.NDArray[np.uint8], first_R: npt.NDArray[np.int32]) -> Int64:
    """The upper half of 64-bit FNV-1a of each text of an Arrow column (Fowler, Noll, Vo; RFC 9923), mixed once more."""
    hash_R = np.empty(len(first_R) - 1, np.int64)
    for r in range(len(hash_R)):
        mixed = np.uint64(0xCBF29CE484222325)
        for i in range(first_R[r], first_R[r + 1]):
            mixed = (mixed ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
        hash_R[r] = mixed >> np.uint64(32)
    return hash_R


def _among(key_R: Int64, key_S: Int64) -> npt.NDArray[np.bool_]:
    """Which keys are among sorted ones."""
    if not len(key_S):
        return np.zeros(len(key_R), np.bool_)
    found: npt.NDArray[np.bool_] = key_S[np.minimum(np.searchsorted(key_S, key_R), len(key_S) - 1)] == key_R
    return found


def _searches(requests: Path) -> Iterator[tuple[Int64, pa.StringArray, Int64]]:
    """Number, id and time in microseconds of a dataset's searches, some at a time."""
    with opened(requests) as file:
        for batch in file.iter_batches(batch_size=131_072, columns=["request", "request_id", "ts"]):
            ts = batch.column("ts").cast(pa.int64()).to_numpy()
            yield batch.column("request").to_numpy(), batch.column("request_id"), ts
