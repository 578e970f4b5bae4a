"""Jobs to stand beside each view, for logs that hold only views or clicks.

A ranker learns from what was shown and not chosen; such a log does not say what was shown. For each view, jobs are drawn from
what *other* users viewed in the days after it, first in the same region. Drawing events rather than jobs gives the drawn jobs
the same popularity as the viewed ones, and drawing from the future keeps past popularity from telling them apart: jobs drawn
from what the user had already seen make popularity an inverted leak.

Legend: N views in time order, K jobs drawn per view.
"""

import numpy as np
from numpy.typing import NDArray

from tritower.numba_cache import njit

_SMALL = 64  # windows up to this many events are shuffled, larger ones are sampled with rejection
_TRIES = 16  # draws per job wanted before a large window is walked through
_WALK = 4_096  # events looked at on that walk


def draw(
    *,
    user_N: NDArray[np.int64],
    job_N: NDArray[np.int64],
    ts_N: NDArray[np.int64],
    job_region_N: NDArray[np.int64],
    near_N: NDArray[np.int64],
    count: int,
    window_us: int,
    seed: int,
) -> NDArray[np.int64]:
    """Draw `count` distinct jobs for each view.

    Args:
        user_N: who viewed; 0 or more.
        job_N: what was viewed; 0 or more.
        ts_N: when, in microseconds, ascending.
        job_region_N: region of the viewed job; -1 where unknown.
        near_N: region to draw from first; -1 for none.
        count: jobs per view, K.
        window_us: how far after the view the pool reaches, in microseconds.
        seed: the result depends on it and on the views only.

    Returns:
        Job numbers (N, K); -1 where a view's pool holds too few jobs. None was viewed by the same user at any time, and none
        occurs twice in a row.
    """
    jobs = int(job_N.max(initial=0)) + 1
    seen = np.unique(user_N * jobs + job_N)
    order = np.lexsort((ts_N, job_region_N))
    regions = int(max(job_region_N.max(initial=-1), near_N.max(initial=-1))) + 1
    start_R = np.searchsorted(job_region_N[order], np.arange(regions + 1))
    drawn_NK: NDArray[np.int64] = _draw(
        user_N, job_N, ts_N, near_N, order, ts_N[order], start_R, seen, jobs, count, window_us, np.uint64(seed)
    )
    return drawn_NK


@njit(cache=True)
def _draw(user, job, ts, near, order, ordered_ts, start_R, seen, jobs, count, window_us, seed):  # type: ignore[no-untyped-def]
    drawn = np.full((len(job), count), -1, np.int64)
    everywhere = np.arange(len(job))
    for view in range(len(job)):
        state = _mix(seed * np.uint64(0x9E3779B97F4A7C15) + np.uint64(view))
        have = 0
        if near[view] >= 0:
            low, high = start_R[near[view]], start_R[near[view] + 1]
            first = low + np.searchsorted(ordered_ts[low:high], ts[view], side="right")
            last = low + np.searchsorted(ordered_ts[low:high], ts[view] + window_us, side="right")
            have, state = _fill(drawn[view], have, order, first, last, view, user, job, seen, jobs, state)
        if have < count:
            first = np.searchsorted(ts, ts[view], side="right")
            last = np.searchsorted(ts, ts[view] + window_us, side="right")
            have, state = _fill(drawn[view], have, everywhere, first, last, view, user, job, seen, jobs, state)
    return drawn


@njit(cache=True)
def _fill(row, have, events, first, last, view, user, job, seen, jobs, state):  # type: ignore[no-untyped-def]
    """Put jobs of events[first:last] into row[have:]; return how many the row holds, and the generator's state."""
    size = last - first
    if size > _SMALL:
        for _ in range(_TRIES * (len(row) - have)):
            if have == len(row):
                return have, state
            state = _mix(state)
            event = events[first + np.int64(state % np.uint64(size))]
            if _fits(event, row, have, view, user, job, seen, jobs):
                row[have] = job[event]
                have += 1
    if have == len(row) or size == 0:
        return have, state
    if size > _SMALL:  # a pool of few distinct jobs: walk on from a random index
        state = _mix(state)
        start = np.int64(state % np.uint64(size))
        for step in range(min(size, _WALK)):
            event = events[first + (start + step) % size]
            if _fits(event, row, have, view, user, job, seen, jobs):
                row[have] = job[event]
                have += 1
                if have == len(row):
                    break
        return have, state
    pool = events[first:last].copy()
    for index in range(size):
        state = _mix(state)
        other = index + np.int64(state % np.uint64(size - index))
        pool[index], pool[other] = pool[other], pool[index]
        if _fits(pool[index], row, have, view, user, job, seen, jobs):
            row[have] = job[pool[index]]
            have += 1
            if have == len(row):
                break
    return have, state


@njit(cache=True, inline="always")
def _fits(event, row, have, view, user, job, seen, jobs):  # type: ignore[no-untyped-def]
    if user[event] == user[view]:
        return False
    for index in range(have):
        if row[index] == job[event]:
            return False
    key = user[view] * jobs + job[event]
    index = np.searchsorted(seen, key)
    return index == len(seen) or seen[index] != key


@njit(cache=True)
def _mix(state):  # type: ignore[no-untyped-def]
    """The finaliser of splitmix64: a well-spread 64-bit value from any other."""
    state += np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
