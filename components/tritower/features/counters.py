"""Impressions, clicks and click-through rates of jobs, occupations and companies as they stood before each row.

One time-ordered pass with a few numbers of state per key. Nothing is ever recomputed and nothing is sorted but clicks, so the
cost per row is constant and memory is the state plus one batch.

* Smoothed rate (c + s m) / (n + s), the posterior mean under a Beta prior of mean m and strength s. The prior is fitted by
  moments on the events before the row and kept up to date in O(1): over keys, sum n(n-1) and sum c(c-1) estimate the second
  moment q of the keys' rates (pairs of distinct impressions of one key), and s = (m - q) / (q - m^2). A prior fitted on the
  whole training period would show each training row its own future.
* Decayed rate: the same with each event weighted 2^(-age / half-life). Sums are kept in units of a reference time (forward
  decay, Cormode et al. 2009): an event costs one exponential whatever the number of keys, and a key at rest costs nothing.
* Clicks over expected clicks (COEC, Zhang and Jones 2007): an impression at position p is expected to earn the click-through
  rate that position p had so far; the ratio is smoothed towards 1 with the prior's clicks s m.

Legend: K keys of a level, L levels (job, occupation, company), P positions, N rows, C clicks, F output columns.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tritower.features.timeline import Batch

LEVELS = ("job", "occupation", "company")
PER_LEVEL = ("impressions", "clicks", "ctr", "ctr_decayed", "coec")
SHOWN, CLICKS, SHOWN_DECAYED, CLICKS_DECAYED, EXPECTED, FIRST_TS, WIDTH = 0, 1, 2, 3, 4, 5, 6
PAIRS_SHOWN, PAIRS_CLICKED, TOTAL_SHOWN, TOTAL_CLICKS = 0, 1, 2, 3
MIN_PAIRS = 20.0  # pairs of clicks on one key before the prior's strength is fitted
MAX_STRENGTH = 1e4
UNSET = np.iinfo(np.int64).min
REBASE = 512.0  # half-lives after which the reference time moves; 2^512 squared still fits a float64

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
DAY_US = 86_400_000_000


class State(NamedTuple):
    """What the pass carries from row to row."""

    job_KW: Array
    occupation_KW: Array
    company_KW: Array
    moments_L4: Array
    curve_P2: Array
    clock_1: Array


class Events(NamedTuple):
    """A batch as the kernel takes it; `expected_N` is filled in as impressions arrive."""

    ts_N: Array
    position_N: Array
    counts_N: Array
    out_N: Array
    keys_LN: Array
    expected_N: Array
    click_ts_C: Array
    click_position_C: Array
    click_keys_LC: Array


class Counters:
    """The state: one table per level, the priors' sums, the position curve, and the reference time of the decay."""

    def __init__(self, keys: Sequence[int], *, positions: int, half_life_days: float, prior_impressions: float) -> None:
        job_KW, occupation_KW, company_KW = (np.zeros((max(count, 1), WIDTH)) for count in keys)
        self.state = State(
            job_KW=job_KW,
            occupation_KW=occupation_KW,
            company_KW=company_KW,
            moments_L4=np.zeros((len(LEVELS), 4)),
            curve_P2=np.zeros((positions, 2)),
            clock_1=np.full(1, UNSET),
        )
        self.half_life_us = half_life_days * DAY_US
        self.prior_impressions = prior_impressions
        self.expected = np.empty(0)  # expected clicks of the queued impressions

    def read(self, batch: Batch, keys_LN: npt.NDArray[np.int32], keys_LC: npt.NDArray[np.int32], out_FN: Float32) -> None:
        """Fill `out_FN` for the rows of the batch that want features, and count its events.

        Args:
            batch: from `Timeline.start`.
            keys_LN: key of each row per level, -1 where unknown.
            keys_LC: key of each click per level.
            out_FN: columns of `names()`, NaN where there is no value.
        """
        rows, clicks = batch.rows, batch.clicks
        self.expected = np.concatenate([self.expected, np.zeros(len(rows) - batch.first)])
        events = Events(
            rows.ts, rows.position, rows.counts, rows.out, keys_LN, self.expected, clicks.clicked_at, clicks.position, keys_LC
        )
        count_pass(self.state, events, batch.first, self.half_life_us, self.prior_impressions, out_FN)

    def finish(self, queued: npt.NDArray[np.bool_]) -> None:
        """Keep the expected clicks of the impressions that stay queued (the mask of `Timeline.finish`)."""
        self.expected = self.expected[queued]


def names() -> list[str]:
    """The output columns in order."""
    return [f"{level}_{what}" for level in LEVELS for what in PER_LEVEL] + ["job_first_shown_days"]


@njit(cache=True)
def prior(moments_4: Array, default_strength: float) -> tuple[float, float]:
    """Mean and strength of the Beta prior from the running moments of one level."""
    shown = moments_4[TOTAL_SHOWN]
    if shown == 0.0:
        return 0.0, default_strength
    mean = moments_4[TOTAL_CLICKS] / shown
    if moments_4[PAIRS_CLICKED] < MIN_PAIRS:
        return mean, default_strength
    second = moments_4[PAIRS_CLICKED] / moments_4[PAIRS_SHOWN]
    spread = second - mean * mean
    if spread <= 0.0 or mean - second >= MAX_STRENGTH * spread:
        return mean, MAX_STRENGTH
    return mean, max(1.0, (mean - second) / spread)


@njit(cache=True)
def _show(table_KW: Array, key: int, moments_4: Array, weight: float, expected: float, ts: int) -> None:
    if key < 0:
        return
    entry = table_KW[key]
    if entry[SHOWN] == 0.0:
        entry[FIRST_TS] = ts
    moments_4[PAIRS_SHOWN] += 2.0 * entry[SHOWN]
    moments_4[TOTAL_SHOWN] += 1.0
    entry[SHOWN] += 1.0
    entry[SHOWN_DECAYED] += weight
    entry[EXPECTED] += expected


@njit(cache=True)
def _click(table_KW: Array, key: int, moments_4: Array, weight: float) -> None:
    if key < 0:
        return
    entry = table_KW[key]
    moments_4[PAIRS_CLICKED] += 2.0 * entry[CLICKS]
    moments_4[TOTAL_CLICKS] += 1.0
    entry[CLICKS] += 1.0
    entry[CLICKS_DECAYED] += weight


@njit(cache=True)
def _report(table_KW: Array, key: int, prior_2: Array, unit: float, out_FN: Array, o: int) -> None:
    if key < 0:
        return
    entry = table_KW[key]
    shown = entry[SHOWN]
    out_FN[0, o] = np.log1p(shown)
    out_FN[1, o] = np.log1p(entry[CLICKS])
    if shown == 0.0:
        return
    clicks_prior = prior_2[0] * prior_2[1]
    out_FN[2, o] = (entry[CLICKS] + clicks_prior) / (shown + prior_2[1])
    # `unit` is the weight of an event now: the sums would be divided by it, and the prior is multiplied instead.
    out_FN[3, o] = (entry[CLICKS_DECAYED] + clicks_prior * unit) / (entry[SHOWN_DECAYED] + prior_2[1] * unit)
    if entry[EXPECTED] + clicks_prior > 0.0:
        out_FN[4, o] = (entry[CLICKS] + clicks_prior) / (entry[EXPECTED] + clicks_prior)


@njit(cache=True)
def _apply_impression(state: State, events: Events, i: int, half_life_us: float) -> None:
    ts = events.ts_N[i]
    weight = np.exp2((ts - state.clock_1[0]) / half_life_us)
    expected = events.expected_N[i]
    _show(state.job_KW, events.keys_LN[0, i], state.moments_L4[0], weight, expected, ts)
    _show(state.occupation_KW, events.keys_LN[1, i], state.moments_L4[1], weight, expected, ts)
    _show(state.company_KW, events.keys_LN[2, i], state.moments_L4[2], weight, expected, ts)
    state.curve_P2[min(events.position_N[i], state.curve_P2.shape[0] - 1), 0] += 1.0


@njit(cache=True)
def _apply_click(state: State, events: Events, c: int, half_life_us: float) -> None:
    weight = np.exp2((events.click_ts_C[c] - state.clock_1[0]) / half_life_us)
    _click(state.job_KW, events.click_keys_LC[0, c], state.moments_L4[0], weight)
    _click(state.occupation_KW, events.click_keys_LC[1, c], state.moments_L4[1], weight)
    _click(state.company_KW, events.click_keys_LC[2, c], state.moments_L4[2], weight)
    state.curve_P2[min(events.click_position_C[c], state.curve_P2.shape[0] - 1), 1] += 1.0


@njit(cache=True)
def _move_clock(state: State, t: int, half_life_us: float) -> None:
    """Keep the weights finite; scaling by a power of two changes no digit of a sum."""
    if state.clock_1[0] == UNSET:
        state.clock_1[0] = t
    while t - state.clock_1[0] > REBASE * half_life_us:
        for table in (state.job_KW, state.occupation_KW, state.company_KW):
            table[:, SHOWN_DECAYED : CLICKS_DECAYED + 1] *= 2.0**-REBASE
        state.clock_1[0] += np.int64(REBASE * half_life_us)


@njit(cache=True)
def count_pass(state: State, events: Events, first: int, half_life_us: float, prior_impressions: float, out_FN: Array) -> None:
    """The pass: for each row from `first` on, count what lies strictly before it, then read."""
    ts_N, keys_LN = events.ts_N, events.keys_LN
    shown = 0  # next impression to count
    clicked = 0  # next click to count
    now = np.int64(UNSET)
    unit = 1.0
    prior_L2 = np.zeros((3, 2))
    for i in range(first, ts_N.shape[0]):
        t = ts_N[i]
        if t != now:
            now = t
            _move_clock(state, t, half_life_us)
            while shown < i and ts_N[shown] < t:
                if events.counts_N[shown]:
                    _apply_impression(state, events, shown, half_life_us)
                shown += 1
            while clicked < events.click_ts_C.shape[0] and events.click_ts_C[clicked] < t:
                _apply_click(state, events, clicked, half_life_us)
                clicked += 1
            unit = np.exp2((t - state.clock_1[0]) / half_life_us)
            for level in range(3):
                prior_L2[level] = prior(state.moments_L4[level], prior_impressions)
        if events.counts_N[i]:
            seen = state.curve_P2[min(events.position_N[i], state.curve_P2.shape[0] - 1)]
            events.expected_N[i] = (seen[1] + prior_impressions * prior_L2[0, 0]) / (seen[0] + prior_impressions)
        o = events.out_N[i]
        if o >= 0:
            _report(state.job_KW, keys_LN[0, i], prior_L2[0], unit, out_FN[0:5], o)
            _report(state.occupation_KW, keys_LN[1, i], prior_L2[1], unit, out_FN[5:10], o)
            _report(state.company_KW, keys_LN[2, i], prior_L2[2], unit, out_FN[10:15], o)
            if state.job_KW[keys_LN[0, i], SHOWN] > 0.0:
                out_FN[15, o] = (t - state.job_KW[keys_LN[0, i], FIRST_TS]) / DAY_US
