"""What a user clicked and searched before, against the job on offer.

Clicks: the cosine of the candidate's document with the last clicked one, with the nearest, and with the decayed centroid; the
shares of those clicks at the same company, in the same city, in the same occupation, on this very job.
Searches: the same cosines with the words of past searches, and how often these very words were searched.

A user without a click or search has missing values, and a count of 0.

Legend: U users, H items remembered, J jobs, T texts, D dimensions, N rows, C clicks, F columns.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tritower.features import rings
from tritower.features.timeline import Batch
from tritower.half import products
from tritower.numba_cache import njit

DAY_US = 86_400_000_000
NAMES = (
    "history_cos_centroid", "history_cos_max", "history_cos_last", "history_same_company", "history_same_city",
    "history_same_occupation", "history_same_job", "history_clicks", "history_days_since_click",
)  # fmt: skip
SEARCH_NAMES = (
    "searches_cos_centroid", "searches_cos_max", "searches_cos_last", "searches_same_query", "searches",
    "searches_days_since",
)  # fmt: skip
Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]


class Jobs(NamedTuple):
    """What is known of the jobs: the text of the document, and company, city and occupation (-1 = unknown)."""

    vectors: rings.Vectors
    document_J: Array
    traits_3J: Array


class Texts(NamedTuple):
    """What is known of the searches: for each text the number that equal searches share (-1 = blank)."""

    vectors: rings.Vectors
    query_T: Array
    identity_T: Array


class Events(NamedTuple):
    """A batch as the kernels take it. `item_N` is the job of a row for clicks, the text of its query for searches."""

    ts_N: Array
    user_N: Array
    item_N: Array
    document_N: Array
    request_N: Array
    counts_N: Array
    out_N: Array
    click_ts_C: Array
    click_user_C: Array
    click_item_C: Array


class History:
    """The rings of clicked jobs."""

    def __init__(self, users: int, *, clicks: int, half_life_days: float) -> None:
        self.rings = rings.empty(users, clicks)
        self.half_life_us = half_life_days * DAY_US

    def read(self, batch: Batch, jobs: Jobs, out_FN: Float32) -> None:
        """Fill in the rows that want features, and remember the batch's clicks.

        Args:
            batch: from `Timeline.start`.
            jobs: the job table.
            out_FN: columns `NAMES`, NaN before.
        """
        self.rings = rings.reserve(self.rings, len(batch.clicks))
        click_pass(self.rings, _events(batch, batch.rows.job, jobs), jobs, batch.first, self.half_life_us, out_FN)


class Searches:
    """The rings of the texts searched for; blank searches are not remembered."""

    def __init__(self, users: int, *, searches: int, half_life_days: float) -> None:
        self.rings = rings.empty(users, searches)
        self.identity_T = np.empty(0, np.int64)
        self.half_life_us = half_life_days * DAY_US

    def read(self, batch: Batch, jobs: Jobs, query_T: npt.NDArray[np.int32], out_FN: Float32) -> None:
        """Fill `out_FN` (columns `SEARCH_NAMES`, NaN before), and remember the batch's searches.

        Args:
            batch: from `Timeline.start`.
            jobs: for the vectors.
            query_T: for each text the number that equal searches share; -1 for a blank one.
            out_FN: see above.
        """
        self.rings = rings.reserve(self.rings, len(batch.rows))
        if len(self.identity_T) != len(query_T):
            self.identity_T = np.arange(len(query_T))
        texts = Texts(jobs.vectors, query_T, self.identity_T)
        search_pass(self.rings, _events(batch, batch.rows.query, jobs), texts, batch.first, self.half_life_us, out_FN)


def _events(batch: Batch, item_N: npt.NDArray[np.int32], jobs: Jobs) -> Events:
    rows, clicks = batch.rows, batch.clicks
    document_N = jobs.document_J[rows.job]
    return Events(
        rows.ts, rows.user, item_N, document_N, rows.request, rows.counts, rows.out, clicks.clicked_at, clicks.user, clicks.job
    )


@njit(cache=True, forceinline=True)
def _traits(item_SH: Array, slot: Any, count: Any, held: Any, traits_3J: Array, trait_4H: Array) -> None:
    """Company, city, occupation and number of the jobs in a ring."""
    for h in range(held):
        job = item_SH[slot, rings.column(count, item_SH.shape[1], h)]
        for trait in range(3):
            trait_4H[trait, h] = traits_3J[trait, job]
        trait_4H[3, h] = job


@njit(cache=True, forceinline=True)
def _shares(traits_3J: Array, job: Any, held: Any, trait_4H: Array, out_FN: Array, o: Any) -> None:
    for trait in range(4):
        mine = traits_3J[trait, job] if trait < 3 else job
        if mine >= 0:
            same = 0
            for h in range(held):
                same += trait_4H[trait, h] == mine
            out_FN[3 + trait, o] = same / held


@njit(cache=True, forceinline=True)
def _next(which: Any, i: Any, ts_N: Array, user_N: Array, out_N: Array) -> Any:
    """Where row i has its products: 1 = computed with the row before; 0 = alone; 2 = with the next, which sees the same ring.

    `which` is what this gave for the row before; rows of one request see the same ring.
    """
    if which == 2:
        return 1
    last = ts_N.shape[0] - 1
    return 2 if i < last and user_N[i + 1] == user_N[i] and ts_N[i + 1] == ts_N[i] and out_N[i + 1] >= 0 else 0


@njit(cache=True)
def _ring(past: rings.Rings, dims: int) -> rings.Open:
    held = past.item_SH.shape[1] + 3  # products are computed four at a time
    vector_HD, sum_D = np.zeros((held, dims), np.float32), np.empty(dims, np.float32)
    return rings.Open(
        vector_HD, np.empty(held, np.float32), sum_D, np.empty((2, held), np.float32), np.empty((4, held), np.int32)
    )


@njit(cache=True)
def click_pass(past: rings.Rings, events: Events, jobs: Jobs, first: int, half_life_us: float, out_FN: Array) -> None:
    """For each row from `first` on, remember the clicks strictly before it, then read."""
    matrix_TD, extra_XD = jobs.vectors.matrix_TD, jobs.vectors.extra_XD
    document_J, traits_3J = jobs.document_J, jobs.traits_3J
    slot_U, count_S, item_SH, ts_SH, used_1 = past.slot_U, past.count_S, past.item_SH, past.ts_SH, past.used_1
    ts_N, user_N, job_N = events.ts_N, events.user_N, events.item_N
    document_N, out_N = events.document_N, events.out_N
    click_ts_C, click_user_C, click_job_C = events.click_ts_C, events.click_user_C, events.click_item_C
    ring = _ring(past, matrix_TD.shape[1])
    vector_HD, weight_H, sum_D, product_2H, trait_4H = ring.vector_HD, ring.weight_H, ring.sum_D, ring.product_2H, ring.trait_4H
    items = item_SH.shape[1]
    clicked = 0
    open_slot = open_count = held = np.int64(0) - 1
    which = np.int64(0)
    length = np.float64(0.0)
    logged = np.float32(0.0)
    for i in range(first, ts_N.shape[0]):
        t = ts_N[i]
        while clicked < click_ts_C.shape[0] and click_ts_C[clicked] < t:
            user, job = click_user_C[clicked], click_job_C[clicked]
            rings.remember(slot_U, count_S, item_SH, ts_SH, used_1, user, job, click_ts_C[clicked])
            clicked += 1
        o = out_N[i]
        if o < 0:
            continue
        slot = np.int64(slot_U[user_N[i]])
        if slot < 0:
            out_FN[7, o] = 0.0
            continue
        count = count_S[slot]
        if slot != open_slot or count != open_count:
            held, length = rings.widen_ring(
                item_SH, ts_SH, slot, count, matrix_TD, extra_XD, document_J, half_life_us, vector_HD, weight_H, sum_D
            )
            _traits(item_SH, slot, count, held, traits_3J, trait_4H)
            open_slot, open_count = slot, count
            logged = np.float32(np.log1p(count))
        which = _next(which, i, ts_N, user_N, out_N)
        if which != 1:
            products(matrix_TD, document_N[i], document_N[i + which // 2], vector_HD, held, product_2H)
        centroid, best, last = rings.cosines(product_2H, which & 1, held, length, weight_H)
        out_FN[0, o], out_FN[1, o], out_FN[2, o] = centroid, best, last
        _shares(traits_3J, job_N[i], held, trait_4H, out_FN, o)
        out_FN[7, o] = logged
        out_FN[8, o] = (t - ts_SH[slot, rings.column(count, items, 0)]) / DAY_US


@njit(cache=True)
def search_pass(past: rings.Rings, events: Events, texts: Texts, first: int, half_life_us: float, out_FN: Array) -> None:
    """For each row from `first` on, remember the searches strictly before it, then read."""
    matrix_TD, extra_XD = texts.vectors.matrix_TD, texts.vectors.extra_XD
    query_T, identity_T = texts.query_T, texts.identity_T
    slot_U, count_S, item_SH, ts_SH, used_1 = past.slot_U, past.count_S, past.item_SH, past.ts_SH, past.used_1
    ts_N, user_N, text_N, document_N = events.ts_N, events.user_N, events.item_N, events.document_N
    request_N, counts_N, out_N = events.request_N, events.counts_N, events.out_N
    ring = _ring(past, matrix_TD.shape[1])
    vector_HD, weight_H, sum_D, product_2H = ring.vector_HD, ring.weight_H, ring.sum_D, ring.product_2H
    items = item_SH.shape[1]
    searched = 0
    latest = np.int64(np.iinfo(np.int64).min)  # the last request remembered: its rows follow one another
    open_slot = open_count = held = np.int64(0) - 1
    which = np.int64(0)
    length = np.float64(0.0)
    for i in range(first, ts_N.shape[0]):
        t = ts_N[i]
        while searched < i and ts_N[searched] < t:
            text = text_N[searched]
            if counts_N[searched] and query_T[text] >= 0 and request_N[searched] != latest:
                rings.remember(slot_U, count_S, item_SH, ts_SH, used_1, user_N[searched], text, ts_N[searched])
                latest = request_N[searched]
            searched += 1
        o = out_N[i]
        if o < 0:
            continue
        slot = np.int64(slot_U[user_N[i]])
        if slot < 0:
            out_FN[4, o] = 0.0
            continue
        count = count_S[slot]
        if slot != open_slot or count != open_count:
            held, length = rings.widen_ring(
                item_SH, ts_SH, slot, count, matrix_TD, extra_XD, identity_T, half_life_us, vector_HD, weight_H, sum_D
            )
            open_slot, open_count = slot, count
        which = _next(which, i, ts_N, user_N, out_N)
        if which != 1:
            products(matrix_TD, document_N[i], document_N[i + which // 2], vector_HD, held, product_2H)
        centroid, best, last = rings.cosines(product_2H, which & 1, held, length, weight_H)
        out_FN[0, o], out_FN[1, o], out_FN[2, o] = centroid, best, last
        mine = query_T[text_N[i]]
        if mine >= 0:
            same = 0
            for h in range(held):
                same += query_T[item_SH[slot, rings.column(count, items, h)]] == mine
            out_FN[3, o] = same / held
        out_FN[4, o] = np.log1p(count)
        out_FN[5, o] = (t - ts_SH[slot, rings.column(count, items, 0)]) / DAY_US
