"""Training examples from a log: a query, a clicked document, and documents shown for the same search and not clicked.

Legend: N impressions, C clicks, K negatives per click, P pairs of a click and a row of its search. All texts are text numbers.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shown:
    """Impressions of whole requests, each request in one run of rows; position 0 where unknown."""

    request_N: Ints
    user_N: Ints
    query_N: Ints
    document_N: Ints
    position_N: Ints
    clicked_N: npt.NDArray[np.bool_]

    @staticmethod
    def concatenate(parts: "list[Shown]") -> "Shown":
        """One table of several, or of none."""
        none = np.empty(0, np.int64)
        wide = ("request_N", "user_N", "query_N", "document_N", "position_N")
        columns = [np.concatenate([none, *(getattr(part, name) for part in parts)]) for name in wide]
        clicked_N = np.concatenate([none.astype(bool), *(part.clicked_N for part in parts)])
        return Shown(columns[0], columns[1], columns[2], columns[3], columns[4], clicked_N)


@dataclass(frozen=True)
class Clicks:
    """Training examples: `negative_CK` repeats negatives where a search offers fewer than K."""

    user_C: Ints
    anchor_C: Ints
    positive_C: Ints
    negative_CK: Ints
    priority_C: Ints

    def __len__(self) -> int:
        return len(self.anchor_C)

    def take(self, index: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "Clicks":
        """The examples at `index`."""
        return Clicks(
            self.user_C[index], self.anchor_C[index], self.positive_C[index], self.negative_CK[index], self.priority_C[index]
        )

    def shifted(self, by: int) -> "Clicks":
        """The same examples with `by` added to every text number."""
        return Clicks(self.user_C, self.anchor_C + by, self.positive_C + by, self.negative_CK + by, self.priority_C)

    @staticmethod
    def concatenate(parts: "list[Clicks]") -> "Clicks":
        """One table of several; `parts` must not be empty."""
        names = ("user_C", "anchor_C", "positive_C", "negative_CK", "priority_C")
        return Clicks(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def clicks_of(shown: Shown, *, negatives: int, skipped_above: bool, empty_query: int, seed: int) -> Clicks:
    """Every click of `shown` with `negatives` documents that its search offered in vain.

    Left out: clicks of the query `empty_query` (its text says nothing), and clicks of searches with no usable negative. A
    document whose text was also clicked in the same search is no negative.

    Args:
        negatives: K; a search that offers fewer repeats them.
        skipped_above: take as negatives only what stood above the click, which the user most likely saw (Joachims et al.,
            "Accurately interpreting clickthrough data as implicit feedback", SIGIR 2005). Rows without a position offer none.
        empty_query: text number of the empty text; -1 where there is none.
        seed: of the draw, which for one click depends on nothing but this, its request and the documents shown.
    """
    start_N, end_N = _bounds(shown.request_N)
    pair_N = _pair(start_N, shown.document_N)
    usable_N = ~np.isin(pair_N, pair_N[shown.clicked_N])
    row_C = np.flatnonzero(shown.clicked_N & (shown.query_N != empty_query))
    size_C = end_N[row_C] - start_N[row_C]
    click_P = np.repeat(np.arange(len(row_C)), size_C)
    row_P = np.arange(size_C.sum()) - np.repeat(np.cumsum(size_C) - size_C, size_C) + np.repeat(start_N[row_C], size_C)
    keep_P = usable_N[row_P]
    if skipped_above:
        position_P = shown.position_N[row_P]
        keep_P &= (position_P > 0) & (position_P < shown.position_N[row_C][click_P])
    click_P, row_P = click_P[keep_P], row_P[keep_P]
    priority_C = _scatter(_scatter(np.full(len(row_C), seed), shown.request_N[row_C]), shown.document_N[row_C])
    order = np.lexsort((_scatter(priority_C[click_P], shown.document_N[row_P]), click_P))
    found, first_C, count_C = np.unique(click_P[order], return_index=True, return_counts=True)
    pick_CK = first_C[:, None] + np.arange(negatives) % count_C[:, None]
    at = row_C[found]
    negative_CK = shown.document_N[row_P[order][pick_CK]].reshape(len(at), negatives)
    return Clicks(shown.user_N[at], shown.query_N[at], shown.document_N[at], negative_CK, priority_C[found])


def cap(clicks: Clicks, *, per_user: int, total: int) -> Clicks:
    """At most `per_user` clicks of each user and `total` in all, drawn evenly; 0 means no limit.

    Capping parts and then their concatenation gives the same as capping all at once, so a log can be streamed.
    """
    order = np.lexsort((clicks.priority_C, clicks.user_C))
    if per_user:
        user_C = clicks.user_C[order]
        starts = np.flatnonzero(np.r_[True, user_C[1:] != user_C[:-1]]) if len(order) else np.empty(0, np.int64)
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        order = order[rank < per_user]
    order = order[np.argsort(clicks.priority_C[order], kind="stable")]
    return clicks.take(order[:total] if total else order)


def mine(
    clicks: Clicks,
    vector_TD: npt.NDArray[np.float32],
    *,
    negatives: int,
    skip: int = 5,
    depth: int = 50,
    below: float = 0.95,
    seed: int = 0,
) -> Clicks:
    """The same clicks with hard negatives: documents of other clicks that lie near the query and were not clicked for it.

    Of the documents nearest to the query, the first `skip` are passed over as likely unseen positives, and so are those whose
    cosine is above `below` times that of the clicked one; `negatives` are drawn from the next `depth`. (Moreira et al.,
    NV-Retriever, 2024.) A click with none keeps its own negatives.

    Args:
        vector_TD: L2-normalised vectors by text number; rows of other texts are not read.
    """
    documents = np.unique(np.r_[clicks.positive_C, clicks.negative_CK.ravel()])
    clicked = set(zip(clicks.anchor_C.tolist(), clicks.positive_C.tolist(), strict=True))
    random = np.random.default_rng(seed)
    mined = clicks.negative_CK[:, np.arange(negatives) % clicks.negative_CK.shape[1]].copy()
    reach = min(len(documents), skip + depth)
    for start in range(0, len(clicks), 1024):
        part = slice(start, start + 1024)
        cosine_CM = vector_TD[clicks.anchor_C[part]] @ vector_TD[documents].T
        top_CM = np.argpartition(-cosine_CM, reach - 1, axis=1)[:, :reach]
        for i, (anchor, positive) in enumerate(zip(clicks.anchor_C[part], clicks.positive_C[part], strict=True)):
            near = top_CM[i][np.argsort(-cosine_CM[i, top_CM[i]])][skip:]
            limit = below * float(vector_TD[anchor] @ vector_TD[positive])
            pool = [documents[m] for m in near if cosine_CM[i, m] < limit and (int(anchor), int(documents[m])) not in clicked]
            if pool:
                mined[start + i] = random.choice(pool, negatives, replace=len(pool) < negatives)
    return Clicks(clicks.user_C, clicks.anchor_C, clicks.positive_C, mined, clicks.priority_C)


def _bounds(request_N: Ints) -> tuple[Ints, Ints]:
    """First row of each row's request, and the row after its last."""
    starts = np.flatnonzero(np.r_[True, request_N[1:] != request_N[:-1]]) if len(request_N) else np.empty(0, np.int64)
    sizes = np.diff(np.r_[starts, len(request_N)])
    return np.repeat(starts, sizes), np.repeat(starts + sizes, sizes)


def _pair(first: Ints, second: Ints) -> Ints:
    return first.astype(np.int64) << 32 | second.astype(np.int64)


def _scatter(state: Ints, value: Ints) -> Ints:
    """A pseudo-random 63-bit number of both arguments (the mixing function of SplitMix64, Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        mixed = state.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + value.astype(np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))).astype(np.int64) & np.int64(0x7FFFFFFFFFFFFFFF)
