"""The table of searches, read piece by piece: its length is that of the log.

Legend: N rows, T texts, G row groups of the table, W searches held.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tritower.errors import StorageError
from tritower.features.places import PlaceCodes, names_remote

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
NO_REQUEST = np.iinfo(np.int64).max


def opened(path: Path) -> pq.ParquetFile:
    """A Parquet file of the dataset.

    Raises:
        StorageError: it is missing.
    """
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise StorageError("the table is missing", where=str(path), remedy="Was ingest run to its end?") from None


class Requests:
    """Searches by their number, read as they are asked for: one run of row groups is held, whatever the table's length.

    Searches are numbered in time order and rows come in time order, so a pass reads each row group once.
    """

    def __init__(self, path: Path, remote_T: Bool, codes: PlaceCodes) -> None:
        self.path = path
        self._remote_T, self._codes = remote_T, codes
        with opened(path) as file:
            column = file.schema_arrow.get_field_index("request")
            ranges = [file.metadata.row_group(g).column(column).statistics for g in range(file.num_row_groups)]
        # A group without statistics may hold any number.
        self._low_G = np.array([s.min if s and s.has_min_max else 0 for s in ranges], np.int64)
        self._high_G = np.array([s.max if s and s.has_min_max else NO_REQUEST for s in ranges], np.int64)
        self._groups: list[int] | None = None
        self._start = 0
        self._place_3W = np.empty((3, 0), np.int32)
        self._remote_W = np.empty(0, np.bool_)

    def of(self, request_N: npt.NDArray[np.int64]) -> tuple[Int32, Bool]:
        """The place searched in as codes (3, N), and whether remote work was asked for."""
        if not len(request_N):
            return np.empty((3, 0), np.int32), np.empty(0, np.bool_)
        groups = self._holding(int(request_N.min()), int(request_N.max()))
        if self._groups is None or not set(groups) <= set(self._groups):
            self._hold(groups)
        return self._place_3W[:, request_N - self._start], self._remote_W[request_N - self._start]

    def ids(self, requests: npt.NDArray[np.int64]) -> pa.Array:
        """The source's ids of distinct requests."""
        if not len(requests):
            return pa.array([], pa.string())
        asked = np.append(np.sort(requests), NO_REQUEST)
        groups = np.flatnonzero(asked[np.searchsorted(asked, self._low_G)] <= self._high_G)
        table = self._read(groups.tolist(), ["request", "request_id"])
        where = pc.index_in(pa.array(requests), value_set=table.column("request").combine_chunks())
        return table.column("request_id").combine_chunks().take(where)

    def _holding(self, low: int, high: int) -> list[int]:
        """The row groups that may hold a request from `low` to `high`."""
        found: list[int] = np.flatnonzero((self._low_G <= high) & (self._high_G >= low)).tolist()
        return found

    def _read(self, groups: list[int], columns: list[str]) -> pa.Table:
        with opened(self.path) as file:
            return file.read_row_groups(groups, columns=columns)

    def _hold(self, groups: list[int]) -> None:
        table = self._read(groups, ["request", "query_text", "city", "region", "country"])
        request = table.column("request").to_numpy()
        self._groups, self._start = groups, int(request.min())
        size = int(request.max()) + 1 - self._start
        self._place_3W, self._remote_W = np.full((3, size), -1, np.int32), np.zeros(size, np.bool_)
        self._place_3W[:, request - self._start] = self._codes.encode(table)
        remote = self._remote_T[table.column("query_text").to_numpy()] | names_remote(table)
        self._remote_W[request - self._start] = remote


class OneSearch:
    """The place searched in and whether remote work was asked for, the same for all rows."""

    def __init__(self, place_3: Int32, is_remote: bool) -> None:
        self._place_3, self._is_remote = place_3, is_remote

    def of(self, request_N: npt.NDArray[np.int64]) -> tuple[Int32, Bool]:
        """As `Requests.of`."""
        count = len(request_N)
        return np.repeat(self._place_3[:, None], count, axis=1), np.full(count, self._is_remote)
