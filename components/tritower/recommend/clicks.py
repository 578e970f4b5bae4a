"""What past clicks say about a search: the searcher's own, and everyone's on similar searches.

Only clicks made strictly before the search count.

Legend: E clicks in time order, S searches, T texts, D embedding size, U distinct clicked queries, N neighbours, K list length.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 50
_POWER = 4  # a vote counts cosine ** 4: nearly equal searches outweigh many vaguely similar ones
_BLOCK = 256  # searches compared with every clicked query at once

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
_NONE: Ints = np.empty(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class Clicks:
    """Clicks in time order: who, on which job, after which query (text number), when (microseconds since 1970)."""

    user_E: Ints
    job_E: Ints
    query_text_E: Ints
    clicked_us_E: Ints


def centroids(clicks: Clicks, user_S: Ints, ts_us_S: Ints, matrix_TD: NDArray[np.floating], text_J: Ints) -> Floats:
    """Mean embedding of the documents each searcher clicked before, L2-normalised; zeros where there are none.

    Args:
        text_J: each job's row in the embedding matrix.
    """
    groups = _Groups(clicks.user_E)
    out_SD = np.zeros((len(user_S), matrix_TD.shape[1]), dtype=np.float32)
    for search, (user, ts) in enumerate(zip(user_S, ts_us_S, strict=True)):
        earlier = _before(groups.of(user), clicks.clicked_us_E, ts)
        if len(earlier):
            mean = matrix_TD[text_J[clicks.job_E[earlier]]].astype(np.float32).mean(axis=0)
            out_SD[search] = mean / max(float(np.linalg.norm(mean)), 1e-9)
    return out_SD


def voted(clicks: Clicks, query_SD: Floats, ts_us_S: Ints, matrix_TD: NDArray[np.floating], *, limit: int) -> list[Ints]:
    """The jobs most clicked after the searches most like each search, best first; at most `limit`.

    A click after one of the nearest `NEIGHBOURS` queries votes with its cosine to the power of 4. Searches without a query
    (a row of zeros) get no jobs.
    """
    queries_U, of_click_E = np.unique(clicks.query_text_E, return_inverse=True)
    clicked_UD = matrix_TD[queries_U].astype(np.float32)
    groups = _Groups(of_click_E)
    lists: list[Ints] = []
    for start in range(0, len(ts_us_S), _BLOCK):
        for cosine_U, ts in zip(query_SD[start : start + _BLOCK] @ clicked_UD.T, ts_us_S[start : start + _BLOCK], strict=True):
            nearest = np.argsort(-cosine_U, kind="stable")[:NEIGHBOURS]
            nearest = nearest[cosine_U[nearest] > 0]
            earlier = [_before(groups.of(query), clicks.clicked_us_E, ts) for query in nearest]
            weight = np.repeat(cosine_U[nearest].astype(np.float64) ** _POWER, [len(one) for one in earlier])
            lists.append(_most_voted(clicks.job_E[np.concatenate([*earlier, _NONE])], weight)[:limit])
    return lists


def _most_voted(job: Ints, weight: NDArray[np.float64]) -> Ints:
    distinct, inverse = np.unique(job, return_inverse=True)
    votes = np.bincount(inverse, weights=weight, minlength=len(distinct))
    return distinct[np.lexsort((distinct, -votes))]


class _Groups:
    """The positions of equal keys, ascending within each."""

    def __init__(self, key_E: Ints) -> None:
        self._order = np.argsort(key_E, kind="stable")
        self._sorted = key_E[self._order]

    def of(self, key: np.int64 | int) -> Ints:
        start, stop = np.searchsorted(self._sorted, key, side="left"), np.searchsorted(self._sorted, key, side="right")
        positions: Ints = self._order[start:stop]
        return positions


def _before(positions: Ints, clicked_us_E: Ints, ts: np.int64) -> Ints:
    return positions[: np.searchsorted(clicked_us_E[positions], ts, side="left")]
