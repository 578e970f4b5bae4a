"""What a user clicked before, against the job on offer.

Each user who has clicked owns a ring of the latest H clicks. For a row, the vectors of that ring are compared with the
candidate's document vector:

* last: cosine with the newest click; max: the largest cosine; centroid: cosine with sum w_i e_i, w_i = 2^(-age_i / half-life).
  The centroid needs no vector of its own per user: its product with the candidate is sum w_i (e_i . x), and its length is
  computed once per request. Ages are taken from the newest click, which scales all weights alike and leaves the cosine as is.
* shares of those clicks at the same company, in the same city, in the same occupation, on this very job.

Rows of one request follow one another, so the ring is widened to float32 once per request and stays in the first-level
cache. A user without a click has missing values, and a count of 0.

Legend: U users, S users with a click, H clicks remembered, J jobs, T texts, D dimensions, N rows, C clicks, F columns.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tritower.features.half import dot_float, half_to_float, widen
from tritower.features.timeline import Batch

DAY_US = 86_400_000_000
NAMES = (
    "history_cos_centroid", "history_cos_max", "history_cos_last", "history_same_company", "history_same_city",
    "history_same_occupation", "history_same_job", "history_clicks", "history_days_since_click",
)  # fmt: skip
Array = npt.NDArray[Any]
Int32 = npt.NDArray[np.int32]


class State(NamedTuple):
    """What the pass carries from row to row; `used_1` is the number of slots taken."""

    slot_U: Array
    count_S: Array
    job_SH: Array
    ts_SH: Array
    used_1: Array


class Events(NamedTuple):
    """A batch as the kernel takes it."""

    ts_N: Array
    user_N: Array
    job_N: Array
    out_N: Array
    click_ts_C: Array
    click_user_C: Array
    click_job_C: Array


class JobVectors(NamedTuple):
    """What is known of the jobs: the vector of each document, and company, city and occupation (-1 = unknown)."""

    matrix_TD: Array
    document_J: Array
    traits_3J: Array


class Open(NamedTuple):
    """The ring last looked at, widened to float32, newest click first."""

    past_HD: Array
    weight_H: Array
    centroid_D: Array


class History:
    """The state: the slot of each user with a click, and each slot's ring of clicks."""

    def __init__(self, users: int, *, clicks: int, half_life_days: float) -> None:
        self.state = State(
            slot_U=np.full(max(users, 1), -1, np.int32),
            count_S=np.zeros(1024, np.int64),
            job_SH=np.zeros((1024, clicks), np.int32),
            ts_SH=np.zeros((1024, clicks), np.int64),
            used_1=np.zeros(1, np.int64),
        )
        self.half_life_us = half_life_days * DAY_US

    def read(self, batch: Batch, jobs: JobVectors, out_FN: npt.NDArray[np.float32]) -> None:
        """Fill `out_FN` (columns `NAMES`, NaN before) for the rows that want features, and remember the batch's clicks."""
        self._reserve(int(self.state.used_1[0]) + len(batch.clicks))
        rows, clicks = batch.rows, batch.clicks
        events = Events(rows.ts, rows.user, rows.job, rows.out, clicks.clicked_at, clicks.user, clicks.job)
        history_pass(self.state, events, jobs, batch.first, self.half_life_us, out_FN)

    def _reserve(self, slots: int) -> None:
        have = len(self.state.count_S)
        if slots > have:
            rows = max(slots, 2 * have) - have
            grown = {
                name: np.concatenate([old, np.zeros((rows, *old.shape[1:]), old.dtype)])
                for name, old in self.state._asdict().items()
                if name in ("count_S", "job_SH", "ts_SH")
            }
            self.state = self.state._replace(**grown)


@njit(cache=True)
def _remember(state: State, events: Events, c: int) -> None:
    user = events.click_user_C[c]
    if state.slot_U[user] < 0:
        state.slot_U[user] = state.used_1[0]
        state.used_1[0] += 1
    slot = state.slot_U[user]
    at = state.count_S[slot] % state.job_SH.shape[1]
    state.job_SH[slot, at] = events.click_job_C[c]
    state.ts_SH[slot, at] = events.click_ts_C[c]
    state.count_S[slot] += 1


@njit(cache=True, fastmath=True)
def _open(state: State, jobs: JobVectors, ring: Open, slot: Any, half_life_us: float) -> tuple[Any, Any]:
    """Widen the ring's vectors, newest first; return how many there are and the length of their centroid."""
    size, count = state.job_SH.shape[1], state.count_S[slot]
    held = min(count, size)
    newest = state.ts_SH[slot, (count - 1) % size]
    ring.centroid_D[:] = 0.0
    for h in range(held):
        at = (count - 1 - h) % size
        widen(jobs.matrix_TD[jobs.document_J[state.job_SH[slot, at]]], ring.past_HD[h])
        weight = np.float32(np.exp2((state.ts_SH[slot, at] - newest) / half_life_us))
        ring.weight_H[h] = weight
        for d in range(ring.centroid_D.shape[0]):
            ring.centroid_D[d] += weight * ring.past_HD[h, d]
    return held, np.sqrt(dot_float(ring.centroid_D, ring.centroid_D))


@njit(cache=True)
def _shares(state: State, jobs: JobVectors, slot: Any, job: int, held: Any, out_FN: Array, o: int) -> None:
    size, count = state.job_SH.shape[1], state.count_S[slot]
    for trait in range(3):
        mine = jobs.traits_3J[trait, job]
        if mine >= 0:
            same = 0
            for h in range(held):
                same += jobs.traits_3J[trait, state.job_SH[slot, (count - 1 - h) % size]] == mine
            out_FN[3 + trait, o] = same / held
    same = 0
    for h in range(held):
        same += state.job_SH[slot, (count - 1 - h) % size] == job
    out_FN[6, o] = same / held


@njit(cache=True)
def _clip(cosine: Any) -> Any:
    return min(np.float32(1.0), max(np.float32(-1.0), np.float32(cosine)))


@njit(cache=True, fastmath=True)
def _cosines(candidate_D: Array, held: Any, ring: Open, length: Any, out_FN: Array, o: int) -> None:
    total = np.float32(0.0)
    best = np.float32(-2.0)
    for h in range(held):
        product = np.float32(0.0)
        for d in range(candidate_D.shape[0]):
            product += half_to_float(candidate_D[d]) * ring.past_HD[h, d]
        total += ring.weight_H[h] * product
        best = max(best, product)
        if h == 0:
            out_FN[2, o] = _clip(product)
    out_FN[1, o] = _clip(best)
    if length > 0.0:
        out_FN[0, o] = _clip(total / length)


@njit(cache=True)
def history_pass(state: State, events: Events, jobs: JobVectors, first: int, half_life_us: float, out_FN: Array) -> None:
    """The pass: for each row from `first` on, remember the clicks strictly before it, then read."""
    clicks_held, dims = state.job_SH.shape[1], jobs.matrix_TD.shape[1]
    ring = Open(np.empty((clicks_held, dims), np.float32), np.empty(clicks_held, np.float32), np.empty(dims, np.float32))
    clicked = 0
    open_slot = open_count = held = np.int64(0) - 1
    length = np.float64(0.0)
    for i in range(first, events.ts_N.shape[0]):
        t = events.ts_N[i]
        while clicked < events.click_ts_C.shape[0] and events.click_ts_C[clicked] < t:
            _remember(state, events, clicked)
            clicked += 1
        o = events.out_N[i]
        if o < 0:
            continue
        slot = np.int64(state.slot_U[events.user_N[i]])
        if slot < 0:
            out_FN[7, o] = 0.0
            continue
        count = state.count_S[slot]
        if slot != open_slot or count != open_count:
            held, length = _open(state, jobs, ring, slot, half_life_us)
            open_slot, open_count = slot, count
        job = events.job_N[i]
        _cosines(jobs.matrix_TD[jobs.document_J[job]], held, ring, length, out_FN, o)
        _shares(state, jobs, slot, job, held, out_FN, o)
        out_FN[7, o] = np.log1p(count)
        out_FN[8, o] = (t - state.ts_SH[slot, (count - 1) % state.ts_SH.shape[1]]) / DAY_US
