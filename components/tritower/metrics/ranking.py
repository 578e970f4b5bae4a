"""Ranking metrics per request, in one pass: average precision at 1 and 3, nDCG at 10.

AP@K = sum over k <= K of precision@k * rel(k) / min(K, relevant). All three follow from the ranks of the clicked rows
alone, and a clicked row's rank is one plus the rows of its request that score higher: no sort is needed. Ties are broken
by a seeded hash of the row number; a stable sort would keep the logged order and leak it.

Legend: N rows, Q requests with a click.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tritower.numba_cache import njit


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Where each request's rows lie. Requests without a click are left out: no ranking of them is right or wrong."""

    start_Q: npt.NDArray[np.int64]
    stop_Q: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class PerRequest:
    """One value per request with a click, each in 0 to 1."""

    map1_Q: npt.NDArray[np.float64]
    map3_Q: npt.NDArray[np.float64]
    ndcg10_Q: npt.NDArray[np.float64]


def requests(request_N: npt.NDArray[np.int64], clicked_N: npt.NDArray[np.bool_]) -> Requests:
    """Bounds of the runs of equal request numbers that hold a click; each request's rows must lie together."""
    start_Q, stop_Q = _bounds(np.ascontiguousarray(request_N), np.ascontiguousarray(clicked_N).view(np.uint8))
    return Requests(start_Q=start_Q, stop_Q=stop_Q)


def per_request(
    score_N: npt.NDArray[np.float32],
    clicked_N: npt.NDArray[np.bool_],
    row_N: npt.NDArray[np.int64],
    where: Requests,
    *,
    seed: int,
) -> PerRequest:
    """The metrics of every request of `where`."""
    values = _metrics(
        np.ascontiguousarray(score_N, dtype=np.float32),
        np.ascontiguousarray(clicked_N).view(np.uint8),
        row_N,
        where.start_Q,
        where.stop_Q,
        np.uint64(seed),
        1 / np.log2(np.arange(2, 12)),
    )
    return PerRequest(map1_Q=values[0], map3_Q=values[1], ndcg10_Q=values[2])


def reweighted(
    score_N: npt.NDArray[np.float32],
    clicked_N: npt.NDArray[np.bool_],
    row_N: npt.NDArray[np.int64],
    where: Requests,
    *,
    weight_N: npt.NDArray[np.float64],
    seed: int,
) -> tuple[PerRequest, npt.NDArray[np.float64]]:
    """Unbiased estimates of the metrics, and of whether there is a click, had every job of the page been examined.

    With examination independent of relevance and between rows, click x `weight_N` (1 / examination) has the mean of the
    label on a fully examined page. A metric of the labels is a multilinear function of them, and stays unbiased when
    the labels are replaced by these values: the sum over subsets S of the clicked rows of prod(i in S) w_i
    prod(i not in S) (1 - w_i) metric(S). Single values lie outside 0 to 1; ratios of sums over many requests are what to
    use. The clicks of a request beyond the tenth are taken as certain.

    Returns:
        The metrics' numerators, and the denominator (Q,) that turns their sums into means over requests with a click.
    """
    values = _subsets(
        np.ascontiguousarray(score_N, dtype=np.float32),
        np.ascontiguousarray(clicked_N).view(np.uint8),
        row_N,
        where.start_Q,
        where.stop_Q,
        np.ascontiguousarray(weight_N, dtype=np.float64),
        np.uint64(seed),
        1 / np.log2(np.arange(2, 12)),
    )
    return PerRequest(map1_Q=values[0], map3_Q=values[1], ndcg10_Q=values[2]), values[3]


@njit(cache=True, nogil=True)
def _bounds(request_N, clicked_N):  # type: ignore[no-untyped-def]
    n = len(request_N)
    start_Q, stop_Q = np.empty(n, np.int64), np.empty(n, np.int64)
    count, i = 0, 0
    while i < n:
        first, request, clicks = i, request_N[i], 0
        while i < n and request_N[i] == request:
            clicks += clicked_N[i]
            i += 1
        if clicks:
            start_Q[count], stop_Q[count] = first, i
            count += 1
    return start_Q[:count].copy(), stop_Q[:count].copy()


@njit(cache=True, nogil=True, inline="always")
def _mixed(row, seed):  # type: ignore[no-untyped-def]
    """SplitMix64 finaliser: a random-looking, repeatable tie-break."""
    x = np.uint64(row) + (seed + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True, nogil=True)
def _rank(score_N, row_N, start, stop, i, seed):  # type: ignore[no-untyped-def]
    """1-based rank of row `i` among the rows start to stop."""
    score, higher, equal = score_N[i], 0, 0
    for j in range(start, stop):
        higher += score_N[j] > score
        equal += score_N[j] == score
    if equal > 1:
        own = _mixed(row_N[i], seed)
        for j in range(start, stop):
            if j != i and score_N[j] == score:
                higher += _mixed(row_N[j], seed) > own
    return higher + 1


@njit(cache=True, nogil=True)
def _judge(at, relevant, discount):  # type: ignore[no-untyped-def]
    """AP@1, AP@3 and nDCG@10 of one request from which of its first ten ranks are relevant, and how many rows are."""
    hits, precision, gain, ideal = 0, 0.0, 0.0, 0.0
    for k in range(10):
        if at[k]:
            hits += 1
            gain += discount[k]
            if k < 3:
                precision += hits / (k + 1)
        if k < relevant:
            ideal += discount[k]
    return float(at[0]), precision / min(3, relevant), gain / ideal


@njit(cache=True, nogil=True)
def _metrics(score_N, clicked_N, row_N, start_Q, stop_Q, seed, discount):  # type: ignore[no-untyped-def]
    values = np.empty((3, len(start_Q)))
    at = np.zeros(10, np.uint8)
    for q in range(len(start_Q)):
        start, stop = start_Q[q], stop_Q[q]
        at[:] = 0
        relevant = 0
        for i in range(start, stop):
            if clicked_N[i]:
                relevant += 1
                rank = _rank(score_N, row_N, start, stop, i, seed)
                if rank <= 10:
                    at[rank - 1] = 1
        values[0, q], values[1, q], values[2, q] = _judge(at, relevant, discount)
    return values


@njit(cache=True, nogil=True)
def _subsets(score_N, clicked_N, row_N, start_Q, stop_Q, weight_N, seed, discount):  # type: ignore[no-untyped-def]
    values = np.zeros((4, len(start_Q)))
    at = np.zeros(10, np.uint8)
    rank_M, weight_M = np.zeros(10, np.int64), np.zeros(10)
    for q in range(len(start_Q)):
        start, stop = start_Q[q], stop_Q[q]
        free, certain = 0, 0
        at[:] = 0
        for i in range(start, stop):
            if clicked_N[i]:
                rank = _rank(score_N, row_N, start, stop, i, seed)
                if free < 10:
                    rank_M[free], weight_M[free] = rank, weight_N[i]
                    free += 1
                else:
                    certain += 1
                    if rank <= 10:
                        at[rank - 1] = 1
        for subset in range(1 << free):
            weight, relevant = 1.0, certain
            for m in range(free):
                chosen = (subset >> m) & 1
                weight *= weight_M[m] if chosen else 1 - weight_M[m]
                relevant += chosen
                if rank_M[m] <= 10:
                    at[rank_M[m] - 1] = chosen
            if relevant and weight != 0.0:
                first, third, tenth = _judge(at, relevant, discount)
                values[0, q] += weight * first
                values[1, q] += weight * third
                values[2, q] += weight * tenth
                values[3, q] += weight
    return values
