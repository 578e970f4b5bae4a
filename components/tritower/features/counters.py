"""Impressions, clicks and click-through rates as they stood before each row, by job, occupation, company, query and
(query, occupation).

One time-ordered pass with a few numbers of state per key. Nothing is recomputed and only clicks are sorted, so the cost per row
is constant and memory is the state plus one batch.

* Smoothed rate (c + s m) / (n + s): the posterior mean under a Beta prior of mean m and strength s.
* Decayed rate: the same with each event weighted 2^(-age / half-life). The sums are kept in units of a reference time (forward
  decay, Cormode et al. 2009): an event costs one exponential whatever the number of keys, and a key at rest costs nothing.
* Clicks over expected clicks (COEC, Zhang and Jones 2007): (c + s m) / (e + s m), where an impression adds to e what an average
  job would have earned at its position. See `curve.py` for the prior and the examination curve.

Priors and curve are those of the last full hour: they depend on events before that hour only, and a key's features then depend
on no other key's events within the hour, so that keys can be spread over machines with equal results.

Legend: K keys (the levels one after another), L levels, P positions, N rows, C clicks, F output columns.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tritower.features import curve
from tritower.features.timeline import Batch
from tritower.numba_cache import njit

LEVELS = ("job", "occupation", "company", "query", "query_occupation")
PER_LEVEL = ("impressions", "clicks", "ctr", "ctr_decayed", "coec")
JOB, QUERY = 0, 3
SHOWN, CLICKS, SHOWN_DECAYED, CLICKS_DECAYED, EXPECTED, FIRST_TS, WIDTH = 0, 1, 2, 3, 4, 5, 6
UNSET = np.iinfo(np.int64).min
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
REBASE = 512.0  # half-lives after which the reference time moves; 2^512 squared still fits a float64

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]


class State(NamedTuple):
    """What the pass carries from row to row.

    `prior_L2` and `curve_P` are those of the hour that began at `hour_1`; `clock_1` is the reference time of the decay.
    """

    table_KW: Array
    moments_L4: Array
    tally_P5: Array
    prior_L2: Array
    curve_P: Array
    hour_1: Array
    clock_1: Array


class Events(NamedTuple):
    """A batch as the kernel takes it.

    `expected_N` and `rate_N` are filled in as impressions arrive: the clicks expected at the position, and the job's smoothed
    rate in units of `curve.UNIT`. `rate_C` is the same for the impressions of clicks; nothing reads it.
    """

    ts_N: Array
    position_N: Array
    randomised_N: Array
    counts_N: Array
    out_N: Array
    keys_LN: Array
    expected_N: Array
    rate_N: Array
    click_ts_C: Array
    click_position_C: Array
    click_randomised_C: Array
    click_keys_LC: Array


class Counters:
    """The state of all levels, and the arrived impressions' share of it that is not counted yet."""

    def __init__(self, keys: int, *, positions: int, half_life_days: float, prior_impressions: float) -> None:
        self.state = State(
            table_KW=np.zeros((max(keys, 1), WIDTH)),
            moments_L4=np.zeros((len(LEVELS), 4)),
            tally_P5=np.zeros((positions, 5)),
            prior_L2=np.tile([1.0 / prior_impressions, prior_impressions], (len(LEVELS), 1)),
            curve_P=np.full(positions, 1.0 / prior_impressions),
            hour_1=np.full(1, UNSET),
            clock_1=np.full(1, UNSET),
        )
        self.half_life_us = half_life_days * DAY_US
        self.prior_impressions = prior_impressions
        self.expected_Q = np.empty(0)
        self.rate_Q = np.empty(0)

    def reserve(self, keys: int) -> None:
        """Make room for at least `keys` keys; growth doubles, so that its cost is spread."""
        have = len(self.state.table_KW)
        if keys > have:
            more = np.zeros((max(keys - have, have), WIDTH))
            self.state = self.state._replace(table_KW=np.concatenate([self.state.table_KW, more]))

    def read(self, batch: Batch, keys_LN: npt.NDArray[np.int64], keys_LC: npt.NDArray[np.int64], out_FN: Float32) -> None:
        """Fill `out_FN` for the rows of the batch that want features, and count its events.

        Args:
            batch: from `Timeline.start`.
            keys_LN: key of each row per level, -1 where unknown.
            keys_LC: key of each click per level.
            out_FN: columns of `names()`, NaN before.
        """
        rows, clicks = batch.rows, batch.clicks
        fresh = np.zeros(len(rows) - batch.first)
        self.expected_Q = np.concatenate([self.expected_Q, fresh])
        self.rate_Q = np.concatenate([self.rate_Q, fresh])
        events = Events(
            rows.ts, rows.position, rows.randomised, rows.counts, rows.out, keys_LN, self.expected_Q, self.rate_Q,
            clicks.clicked_at, clicks.position, clicks.randomised, keys_LC,
        )  # fmt: skip
        count_pass(self.state, events, batch.first, self.half_life_us, self.prior_impressions, _COLUMN_LF, _LOG1P, out_FN)

    def excerpt(self, table_KW: Array) -> "Counters":
        """The counters of some keys, with a copy of the sums of all.

        Args:
            table_KW: rows of the table, copied; the caller numbers them.
        """
        small = copy.copy(self)
        small.state = State(table_KW, *(values.copy() for values in self.state[1:]))
        return small

    def finish(self, queued: npt.NDArray[np.bool_]) -> None:
        """Keep what the impressions that stay queued will add (the mask of `Timeline.finish`)."""
        self.expected_Q = self.expected_Q[queued]
        self.rate_Q = self.rate_Q[queued]


_LEFT_OUT = {"query_clicks", "query_ctr_decayed", "query_coec", "query_occupation_ctr_decayed"}


def names() -> list[str]:
    """The output columns in order."""
    columns = [f"{level}_{what}" for level in LEVELS for what in PER_LEVEL]
    return [name for name in columns if name not in _LEFT_OUT] + ["job_first_shown_days"]


def _columns(levels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Output row of each level's five values; -1 = left out, since it would say nothing within a request or too little."""
    places = {name: i for i, name in enumerate(names())}
    return np.array([[places.get(f"{level}_{what}", -1) for what in PER_LEVEL] for level in levels])


_COLUMN_LF = _columns(LEVELS)
_LOG1P = np.log1p(np.arange(1 << 14)).astype(np.float32)  # most counts are small; the table stays in the second-level cache


# Below, rows of a table are never taken as views: numba would count references to each, which costs more than the sums.


@njit(cache=True, forceinline=True)
def _show(table_KW: Array, moments_L4: Array, level: int, key: Any, weight: float, expected: float, ts: int) -> None:
    shown = table_KW[key, SHOWN]
    if shown == 0.0:
        table_KW[key, FIRST_TS] = ts
    moments_L4[level, curve.PAIRS_SHOWN] += 2.0 * shown
    moments_L4[level, curve.TOTAL_SHOWN] += 1.0
    table_KW[key, SHOWN] = shown + 1.0
    table_KW[key, SHOWN_DECAYED] += weight
    table_KW[key, EXPECTED] += expected


@njit(cache=True, forceinline=True)
def _click(table_KW: Array, moments_L4: Array, level: int, key: Any, weight: float) -> None:
    moments_L4[level, curve.PAIRS_CLICKED] += 2.0 * table_KW[key, CLICKS]
    moments_L4[level, curve.TOTAL_CLICKS] += 1.0
    table_KW[key, CLICKS] += 1.0
    table_KW[key, CLICKS_DECAYED] += weight


@njit(cache=True, forceinline=True)
def _log1p(count: float, table: Array) -> Any:
    return table[np.int64(count)] if count < table.shape[0] else np.float32(np.log1p(count))


@njit(cache=True, forceinline=True)
def _report(
    table_KW: Array, key: Any, level: int, mean: float, strength: float, unit: float, column_LF: Array, log1p: Array,
    out_FN: Array, o: Any,
) -> None:  # fmt: skip
    shown, clicks = table_KW[key, SHOWN], table_KW[key, CLICKS]
    out_FN[column_LF[level, 0], o] = _log1p(shown, log1p)
    if column_LF[level, 1] >= 0:
        out_FN[column_LF[level, 1], o] = _log1p(clicks, log1p)
    if shown == 0.0:
        return
    clicks_prior = mean * strength
    out_FN[column_LF[level, 2], o] = (clicks + clicks_prior) / (shown + strength)
    if column_LF[level, 3] >= 0:
        # `unit` is the weight of an event now: instead of dividing both sums by it, the prior is multiplied.
        decayed = table_KW[key, SHOWN_DECAYED] + strength * unit
        out_FN[column_LF[level, 3], o] = (table_KW[key, CLICKS_DECAYED] + clicks_prior * unit) / decayed
    if column_LF[level, 4] >= 0:
        out_FN[column_LF[level, 4], o] = (clicks + clicks_prior) / (table_KW[key, EXPECTED] + clicks_prior)


@njit(cache=True)
def _flush(state: State, events: Events, shown: int, clicked: int, until: int, half_life_us: float) -> tuple[int, int]:
    """Count all events before `until`; return the pointers to the first event not counted."""
    table_KW, moments_L4, tally_P5 = state.table_KW, state.moments_L4, state.tally_P5
    ts_N, keys_LN, position_N, expected_N = events.ts_N, events.keys_LN, events.position_N, events.expected_N
    counts_N, rate_N, randomised_N = events.counts_N, events.rate_N, events.randomised_N
    deepest, clock = tally_P5.shape[0] - 1, state.clock_1[0]
    weighed, weight = np.int64(UNSET), 1.0
    while shown < ts_N.shape[0] and ts_N[shown] < until:
        if counts_N[shown]:
            ts = ts_N[shown]
            if ts != weighed:
                weighed, weight = ts, np.exp2((ts - clock) / half_life_us)
            for level in range(keys_LN.shape[0]):
                if keys_LN[level, shown] >= 0:
                    _show(table_KW, moments_L4, level, keys_LN[level, shown], weight, expected_N[shown], ts)
            p = min(position_N[shown], deepest)
            tally_P5[p, curve.SHOWN] += 1.0
            tally_P5[p, curve.RATES] += rate_N[shown]
            tally_P5[p, curve.RANDOM_SHOWN] += randomised_N[shown]
        shown += 1
    click_ts_C, click_keys_LC = events.click_ts_C, events.click_keys_LC
    while clicked < click_ts_C.shape[0] and click_ts_C[clicked] < until:
        weight = np.exp2((click_ts_C[clicked] - clock) / half_life_us)
        for level in range(keys_LN.shape[0]):
            if click_keys_LC[level, clicked] >= 0:
                _click(table_KW, moments_L4, level, click_keys_LC[level, clicked], weight)
        p = min(events.click_position_C[clicked], deepest)
        tally_P5[p, curve.CLICKS] += 1.0
        tally_P5[p, curve.RANDOM_CLICKS] += events.click_randomised_C[clicked]
        clicked += 1
    return shown, clicked


@njit(cache=True)
def _move_clock(state: State, t: int, half_life_us: float) -> None:
    """Keep the weights finite; scaling by a power of two changes no digit of a sum."""
    if state.clock_1[0] == UNSET:
        state.clock_1[0] = t
    while t - state.clock_1[0] > REBASE * half_life_us:
        state.table_KW[:, SHOWN_DECAYED : CLICKS_DECAYED + 1] *= 2.0**-REBASE
        state.clock_1[0] += np.int64(REBASE * half_life_us)


@njit(cache=True)
def count_pass(
    state: State, events: Events, first: int, half_life_us: float, default: float, column_LF: Array, log1p: Array, out_FN: Array
) -> None:
    """The pass: for each row from `first` on, count what lies strictly before it, then read."""
    ts_N, keys_LN, counts_N, out_N = events.ts_N, events.keys_LN, events.counts_N, events.out_N
    position_N, expected_N, rate_N = events.position_N, events.expected_N, events.rate_N
    table_KW, prior_L2, curve_P = state.table_KW, state.prior_L2, state.curve_P
    shown = clicked = 0  # next impression and next click to count
    now = np.int64(UNSET)
    unit = 1.0
    for i in range(first, ts_N.shape[0]):
        t = ts_N[i]
        if t != now:
            now = t
            _move_clock(state, t, half_life_us)
            hour = t - t % HOUR_US
            if hour != state.hour_1[0]:
                shown, clicked = _flush(state, events, shown, clicked, hour, half_life_us)
                curve.refresh(state.moments_L4, state.tally_P5, default, prior_L2, curve_P)
                state.hour_1[0] = hour
            shown, clicked = _flush(state, events, shown, clicked, t, half_life_us)
            unit = np.exp2((t - state.clock_1[0]) / half_life_us)
        job = keys_LN[JOB, i]
        if counts_N[i]:
            expected_N[i] = curve_P[min(position_N[i], curve_P.shape[0] - 1)]
            rate_N[i] = curve.rate(table_KW[job, SHOWN], table_KW[job, CLICKS], prior_L2[JOB, 0], default)
        o = out_N[i]
        if o < 0:
            continue
        for level in range(keys_LN.shape[0]):
            key = keys_LN[level, i]
            if key >= 0:
                mean, strength = prior_L2[level, 0], prior_L2[level, 1]
                _report(table_KW, key, level, mean, strength, unit, column_LF, log1p, out_FN, o)
        if table_KW[job, SHOWN] > 0.0:
            out_FN[out_FN.shape[0] - 1, o] = (t - table_KW[job, FIRST_TS]) / DAY_US
