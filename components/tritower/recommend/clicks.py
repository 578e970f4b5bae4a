"""What past clicks say about a search: the searcher's own, and everyone's on similar searches.

Only clicks made strictly before the search count. New clicks are added one by one; the answers are those of a table built with
them, whatever the order in which they came.

Legend: E clicks, T texts, D embedding size, N names, Q queries that were clicked after, J jobs.
"""

import bisect
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tritower import storage
from tritower.errors import ArtifactError
from tritower.mapped import opened, read_strings, written
from tritower.numba_cache import njit
from tritower.recommend import scan
from tritower.storage import manifest

VERSION = 1
NEIGHBOURS = 50
_POWER = 4  # a vote counts cosine ** 4: nearly equal searches outweigh many vaguely similar ones

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class Clicks:
    """The clicks of a job board by user and by query. Any number of threads may read and add."""

    def __init__(self, by_user: "_Log", by_query: "_Log", half_QD: NDArray[np.float16]) -> None:
        """For `build` and `open`; row of `half_QD` = name in `by_query`."""
        self._by_user, self._by_query, self._half_QD = by_user, by_query, half_QD
        self._known = _Queries(half_QD, by_query.firsts())
        self._fresh = _Queries(np.empty((0, half_QD.shape[1]), np.float16), np.empty(0, np.int64))
        self._fresh_number: dict[str, int] = {}
        self._lock = threading.Lock()

    @staticmethod
    def build(
        *,
        user_E: pa.Array,
        job_E: Ints,
        query_text_E: Ints,
        clicked_us_E: Ints,
        text_T: pa.Array,
        matrix_TD: NDArray[np.float16],
    ) -> "Clicks":
        """From clicks in any order.

        Args:
            user_E: ids of who clicked.
            job_E: numbers of the jobs.
            query_text_E: row of each click's query in `text_T` and `matrix_TD`. A click without a query (the empty text) says
                nothing about queries, and counts for its user alone.
            clicked_us_E: microseconds since 1970.
        """
        text_U, query_E = np.unique(query_text_E, return_inverse=True)
        words_U = text_T.take(pa.array(text_U))
        query = words_U.take(pa.array(query_E))
        has_words = pc.not_equal(query, "").to_numpy(zero_copy_only=False)
        by_query = _Log.build(query.filter(pa.array(has_words)), job_E[has_words], clicked_us_E[has_words])
        row_Q = text_U[pc.index_in(by_query.names, value_set=words_U).to_numpy(zero_copy_only=False).astype(np.int64)]
        return Clicks(_Log.build(user_E, job_E, clicked_us_E), by_query, np.asarray(matrix_TD[row_Q], np.float16))

    def save(self, folder: Path, made_of: Mapping[str, str] | None = None) -> None:
        """Write all of it, new clicks among them, as a folder of files that `open` maps.

        Args:
            made_of: hashes of what it was made of, such as `dataset`; kept in clicks.json.
        """
        with self._lock:
            by_user, by_query = self._by_user.merged(), self._by_query.merged()
            half_QD = np.empty((len(by_query.names), self._half_QD.shape[1]), np.float16)
            for row, name in enumerate(by_query.names.to_pylist()):
                known = self._by_query.find(name)
                half_QD[row] = self._half_QD[known] if known >= 0 else self._fresh.half(self._fresh_number[name])
        with storage.atomic_directory(folder) as new:
            by_user.save(new, "user")
            by_query.save(new, "query")
            written(new, "query_vectors", half_QD)
            storage.write_json(new / "clicks.json", {"version": VERSION, **(made_of or {})})

    @staticmethod
    def open(folder: Path) -> "Clicks":
        """Map what `save` wrote.

        Raises:
            StorageError: a file is missing or may not be read.
            ArtifactError: the folder was changed, or is of another version.
        """
        return manifest.whole(folder, _open)

    def add(self, user_id: str, job: int, query: str, vector_D: NDArray[np.floating[Any]] | None, clicked_us: int) -> None:
        """Take in a click.

        Args:
            query: what was typed before it, with its embedding; both may be empty.
        """
        with self._lock:
            self._by_user.add(user_id, job, clicked_us)
            if query and vector_D is not None:
                self._by_query.add(query, job, clicked_us)
                known = self._by_query.find(query)
                if known >= 0:
                    self._known.first_Q[known] = min(self._known.first_Q[known], clicked_us)
                elif query in self._fresh_number:
                    number = self._fresh_number[query]
                    self._fresh.first_Q[number] = min(self._fresh.first_Q[number], clicked_us)
                else:
                    self._fresh_number[query] = self._fresh.add(vector_D, clicked_us)

    def forget(self, user_id: str) -> int:
        """Remove a person's clicks; how many there were. What is kept by query does not say who clicked."""
        with self._lock:
            return self._by_user.forget(user_id)

    def of_user(self, user_id: str, ts_us: int) -> Ints:
        """The jobs that somebody clicked before a time."""
        with self._lock:
            return self._by_user.before(user_id, ts_us, self._by_user.find(user_id))

    def voted(self, query_D: Floats, ts_us: int, order_J: NDArray[np.integer[Any]]) -> Ints:
        """The jobs most clicked after the searches most like this one, best first.

        A click after one of the nearest `NEIGHBOURS` queries, of those clicked before, votes with its cosine to the power of 4.

        Args:
            query_D: the query's embedding; zeros = none, which gets no jobs.
            order_J: settles ties.
        """
        asking = scan.vectors([query_D])
        if not asking.exact_VD.any():
            return np.empty(0, np.int64)
        with self._lock:
            row_K, value_K = self._known.nearest(asking, ts_us)
            names = self._by_query.names.take(pa.array(row_K)).to_pylist()
            found = [(-value, name, row) for value, name, row in zip(value_K.tolist(), names, row_K.tolist(), strict=True)]
            row_K, value_K = self._fresh.nearest(asking, ts_us)
            texts = list(self._fresh_number) if len(row_K) else []
            found += [(-value, texts[row], -1) for value, row in zip(value_K.tolist(), row_K.tolist(), strict=True)]
            nearest = [(-value, name, row) for value, name, row in sorted(found)[:NEIGHBOURS] if value < 0]
            jobs, length_K = self._by_query.before_all(
                [name for _, name, _ in nearest], ts_us, np.array([row for *_, row in nearest], np.int64)
            )
        return _most_voted(jobs, np.repeat([value**_POWER for value, *_ in nearest], length_K), order_J)


def centroid(job_N: Ints, half_TD: NDArray[np.uint16], text_J: NDArray[np.integer[Any]]) -> Floats:
    """Mean embedding of the documents of jobs, or of texts, L2-normalised and rounded to halves; zeros where there are none.

    Halves are added in float64, which holds their sum exactly: it does not depend on the order.

    Args:
        half_TD: bits of the embeddings.
        text_J: row of each job.
    """
    total_D = half_TD[text_J[job_N]].view(np.float16).astype(np.float64).sum(axis=0)
    length = np.sqrt((total_D**2).sum())
    unit_D: Floats = (total_D / max(length, 1e-12)).astype(np.float16).astype(np.float32)
    return unit_D


def _most_voted(job_E: Ints, weight_E: NDArray[np.float64], order_J: NDArray[np.integer[Any]]) -> Ints:
    distinct, inverse = np.unique(job_E, return_inverse=True)
    votes = np.bincount(inverse, weights=weight_E, minlength=len(distinct))
    return distinct[np.lexsort((order_J[distinct], -votes))]


def _open(folder: Path) -> Clicks:
    found = storage.read_json(folder / "clicks.json").get("version")
    if found != VERSION:
        problem = f"the clicks have version {found}, this tritower reads version {VERSION}"
        raise ArtifactError(problem, where=str(folder), remedy="Make them again from their dataset and embeddings.")
    return Clicks(_Log.open(folder, "user"), _Log.open(folder, "query"), opened(folder, "query_vectors"))


class _Log:
    """Clicks by name: a sorted table, and what came since."""

    def __init__(self, names: pa.Array, offset_N: Ints, job_E: NDArray[np.int32], ts_E: Ints) -> None:
        self.names, self._offset_N, self._job_E, self._ts_E = names, offset_N, job_E, ts_E
        for array in (offset_N, job_E, ts_E):
            array.flags.writeable = False  # the kernel is compiled for such arrays, as those of files are
        self._since: dict[str, list[tuple[int, int]]] = {}
        self._gone: set[str] = set()

    @staticmethod
    def build(name_E: pa.Array, job_E: Ints, ts_E: Ints) -> "_Log":
        names = pc.unique(name_E)
        names = names.take(pc.sort_indices(names))
        number_E = pc.index_in(name_E, value_set=names).to_numpy(zero_copy_only=False).astype(np.int64)
        order = np.lexsort((ts_E, number_E))
        offset_N = np.concatenate([[0], np.cumsum(np.bincount(number_E, minlength=len(names)))]).astype(np.int64)
        return _Log(names, offset_N, job_E[order].astype(np.int32), ts_E[order])

    def find(self, name: str) -> int:
        """Its row in the table, -1 where it has none."""
        row = bisect.bisect_left(range(len(self.names)), name, key=lambda row: self.names[row].as_py())
        return row if row < len(self.names) and self.names[row].as_py() == name else -1

    def firsts(self) -> Ints:
        """The time of each name's first click in the table."""
        return np.array(self._ts_E[self._offset_N[:-1]])

    def add(self, name: str, job: int, ts: int) -> None:
        self._since.setdefault(name, []).append((ts, job))

    def forget(self, name: str) -> int:
        count = len(self._since.pop(name, ()))
        row = self.find(name)
        if row >= 0 and name not in self._gone:
            self._gone.add(name)
            count += int(self._offset_N[row + 1] - self._offset_N[row])
        return count

    def before(self, name: str, ts: int, row: int) -> Ints:
        """The jobs clicked before a time, by name and its row in the table; those that came since stand behind."""
        row, since = -1 if name in self._gone else row, self._since.get(name, ())
        start, stop = (self._offset_N[row], self._offset_N[row + 1]) if row >= 0 else (0, 0)
        stop = start + np.searchsorted(self._ts_E[start:stop], ts, side="left")
        table: Ints = np.asarray(self._job_E[start:stop], np.int64)
        return np.concatenate([table, np.array([job for when, job in since if when < ts], np.int64)]) if since else table

    def before_all(self, names: list[str], ts: int, row_K: Ints) -> tuple[Ints, Ints]:
        """What `before` gives of some names, one behind the other, and how many jobs each has."""
        if self._gone or not self._since.keys().isdisjoint(names):
            jobs = [self.before(name, ts, row) for name, row in zip(names, row_K.tolist(), strict=True)]
            return np.concatenate([*jobs, np.empty(0, np.int64)]), np.array([len(one) for one in jobs], np.int64)
        return _before(self._offset_N, self._job_E, self._ts_E, row_K, ts)  # type: ignore[no-any-return]

    def merged(self) -> "_Log":
        """The same as one table."""
        kept_N = np.ones(len(self.names), np.bool_)
        kept_N[[self.find(name) for name in self._gone]] = False
        number_E = np.repeat(np.arange(len(self.names)), np.diff(self._offset_N))
        kept_E = kept_N[number_E]
        since = [(name, job, ts) for name, clicks in self._since.items() for ts, job in clicks]
        names = pa.concat_arrays(
            [self.names.take(pa.array(number_E[kept_E])), pa.array([name for name, *_ in since], pa.string())]
        )
        return _Log.build(
            names,
            np.concatenate([self._job_E[kept_E], np.array([job for _, job, _ in since], np.int64)]),
            np.concatenate([self._ts_E[kept_E], np.array([ts for *_, ts in since], np.int64)]),
        )

    def save(self, folder: Path, name: str) -> None:
        written(folder, f"{name}_names", self.names)
        for what, array in (("offsets", self._offset_N), ("jobs", self._job_E), ("times", self._ts_E)):
            written(folder, f"{name}_{what}", array)

    @staticmethod
    def open(folder: Path, name: str) -> "_Log":
        return _Log(
            read_strings(folder, f"{name}_names"), *(opened(folder, f"{name}_{what}") for what in ("offsets", "jobs", "times"))
        )


@njit(cache=True, nogil=True)
def _before(offset_N, job_E, ts_E, row_K, ts):  # type: ignore[no-untyped-def]
    room = 0
    for row in row_K:
        room += offset_N[row + 1] - offset_N[row]
    out_M, length_K, found = np.empty(room, np.int64), np.zeros(len(row_K), np.int64), 0
    for k in range(len(row_K)):
        for e in range(offset_N[row_K[k]], offset_N[row_K[k] + 1]):
            if ts_E[e] >= ts:
                break
            out_M[found] = job_E[e]
            found, length_K[k] = found + 1, length_K[k] + 1
    return out_M[:found].copy(), length_K


class _Queries:
    """Vectors of queries and the time of the first click after each; room is doubled when it is full."""

    def __init__(self, half_QD: NDArray[np.float16], first_Q: Ints) -> None:
        self._bits_QD, self.first_Q, self._count = scan.bits(half_QD), first_Q, len(first_Q)
        self._codes = scan.coded(self._bits_QD, np.arange(self._count))

    def half(self, row: int) -> NDArray[np.float16]:
        half_D: NDArray[np.float16] = self._bits_QD[row].view(np.float16)
        return half_D

    def add(self, vector_D: NDArray[np.floating[Any]], ts_us: int) -> int:
        """Its row."""
        row, room = self._count, len(self.first_Q)
        if row == room:
            more = max(64, room)
            codes = self._codes
            self.first_Q = _longer(self.first_Q, more)
            self._bits_QD = _longer(self._bits_QD, more)
            self._codes = scan.of_arrays((_longer(array, more) for array in codes.arrays), codes.longest)
        one_1D = np.asarray(vector_D, np.float16)[None].view(np.uint16)
        code = scan.coded(scan.bits(one_1D.view(np.float16)), np.zeros(1, np.int64))
        self.first_Q[row], self._bits_QD[row] = ts_us, one_1D[0]
        self._codes.code_JD[row], self._codes.scale_J[row], self._codes.off_J[row] = (
            code.code_JD[0],
            code.scale_J[0],
            code.off_J[0],
        )
        self._codes = self._codes._replace(longest=max(self._codes.longest, code.longest))
        self._count += 1
        return row

    def nearest(self, asking: scan.Vectors, ts_us: int) -> tuple[Ints, Floats]:
        """The rows clicked before a time, the nearest `NEIGHBOURS` with what ties with the last, and their cosines."""
        count = self._count
        codes = scan.frozen(scan.of_arrays((array[:count] for array in self._codes.arrays), self._codes.longest))
        own = np.arange(count)
        bits_QD = scan.bits(self._bits_QD[:count].view(np.float16))
        high = scan.bounded(codes, asking, scan.wanted(self.first_Q[:count] < ts_us))
        given = codes, asking.exact_VD[0], asking.asked, 0, own[:0], high.high_VL[0], high.peak_VG[0]
        key_K = scan.nearest(bits_QD, own, own, *given, NEIGHBOURS)
        row_K, value_K = scan.decoded(np.sort(key_K))
        if len(row_K) > NEIGHBOURS:
            ties = value_K >= value_K[NEIGHBOURS - 1]
            row_K, value_K = row_K[ties], value_K[ties]
        return row_K, value_K


def _longer(array: NDArray[Any], more: int) -> NDArray[Any]:
    return np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)])
