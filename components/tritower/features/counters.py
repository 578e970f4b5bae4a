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

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tritower.features import curve
from tritower.features.timeline import Batch

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


@njit(cache=True)
def _show(state: State, level: int, key: int, weight: float, expected: float, ts: int) -> None:
    entry = state.table_KW[key]
    moments = state.moments_L4[level]
    if entry[SHOWN] == 0.0:
        entry[FIRST_TS] = ts
    moments[curve.PAIRS_SHOWN] += 2.0 * entry[SHOWN]
    moments[curve.TOTAL_SHOWN] += 1.0
    entry[SHOWN] += 1.0
    entry[SHOWN_DECAYED] += weight
    entry[EXPECTED] += expected


@njit(cache=True)
def _click(state: State, level: int, key: int, weight: float) -> None:
    entry = state.table_KW[key]
    moments = state.moments_L4[level]
    moments[curve.PAIRS_CLICKED] += 2.0 * entry[CLICKS]
    moments[curve.TOTAL_CLICKS] += 1.0
    entry[CLICKS] += 1.0
    entry[CLICKS_DECAYED] += weight


@njit(cache=True)
def _put(out_FN: Array, f: int, o: int, value: float) -> None:
    if f >= 0:
        out_FN[f, o] = value


@njit(cache=True)
def _log1p(count: float, table: Array) -> Any:
    return table[np.int64(count)] if count < table.shape[0] else np.float32(np.log1p(count))


@njit(cache=True)
def _report(entry_W: Array, prior_2: Array, unit: float, column_F: Array, log1p: Array, out_FN: Array, o: int) -> None:
    shown = entry_W[SHOWN]
    _put(out_FN, column_F[0], o, _log1p(shown, log1p))
    _put(out_FN, column_F[1], o, _log1p(entry_W[CLICKS], log1p))
    if shown == 0.0:
        return
    strength = prior_2[1]
    clicks_prior = prior_2[0] * strength
    _put(out_FN, column_F[2], o, (entry_W[CLICKS] + clicks_prior) / (shown + strength))
    if column_F[3] >= 0:
        # `unit` is the weight of an event now: instead of dividing both sums by it, the prior is multiplied.
        decayed = entry_W[SHOWN_DECAYED] + strength * unit
        out_FN[column_F[3], o] = (entry_W[CLICKS_DECAYED] + clicks_prior * unit) / decayed
    _put(out_FN, column_F[4], o, (entry_W[CLICKS] + clicks_prior) / (entry_W[EXPECTED] + clicks_prior))


@njit(cache=True)
def _flush(state: State, events: Events, shown: int, clicked: int, until: int, half_life_us: float) -> tuple[int, int]:
    """Count all events before `until`; return the pointers to the first event not counted."""
    deepest = state.curve_P.shape[0] - 1
    while shown < events.ts_N.shape[0] and events.ts_N[shown] < until:
        if events.counts_N[shown]:
            ts = events.ts_N[shown]
            weight = np.exp2((ts - state.clock_1[0]) / half_life_us)
            for level in range(events.keys_LN.shape[0]):
                if events.keys_LN[level, shown] >= 0:
                    _show(state, level, events.keys_LN[level, shown], weight, events.expected_N[shown], ts)
            tally = state.tally_P5[min(events.position_N[shown], deepest)]
            tally[curve.SHOWN] += 1.0
            tally[curve.RATES] += events.rate_N[shown]
            tally[curve.RANDOM_SHOWN] += events.randomised_N[shown]
        shown += 1
    while clicked < events.click_ts_C.shape[0] and events.click_ts_C[clicked] < until:
        weight = np.exp2((events.click_ts_C[clicked] - state.clock_1[0]) / half_life_us)
        for level in range(events.keys_LN.shape[0]):
            if events.click_keys_LC[level, clicked] >= 0:
                _click(state, level, events.click_keys_LC[level, clicked], weight)
        tally = state.tally_P5[min(events.click_position_C[clicked], deepest)]
        tally[curve.CLICKS] += 1.0
        tally[curve.RANDOM_CLICKS] += events.click_randomised_C[clicked]
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
    ts_N, keys_LN = events.ts_N, events.keys_LN
    shown = clicked = 0  # next impression and next click to count
    now = np.int64(UNSET)
    unit = 1.0
    deepest = state.curve_P.shape[0] - 1
    for i in range(first, ts_N.shape[0]):
        t = ts_N[i]
        if t != now:
            now = t
            _move_clock(state, t, half_life_us)
            hour = t - t % HOUR_US
            if hour != state.hour_1[0]:
                shown, clicked = _flush(state, events, shown, clicked, hour, half_life_us)
                curve.refresh(state.moments_L4, state.tally_P5, default, state.prior_L2, state.curve_P)
                state.hour_1[0] = hour
            shown, clicked = _flush(state, events, shown, clicked, t, half_life_us)
            unit = np.exp2((t - state.clock_1[0]) / half_life_us)
        job = state.table_KW[keys_LN[JOB, i]]
        if events.counts_N[i]:
            events.expected_N[i] = state.curve_P[min(events.position_N[i], deepest)]
            events.rate_N[i] = curve.rate(job[SHOWN], job[CLICKS], state.prior_L2[JOB, 0], default)
        o = events.out_N[i]
        if o < 0:
            continue
        for level in range(keys_LN.shape[0]):
            if keys_LN[level, i] >= 0:
                _report(state.table_KW[keys_LN[level, i]], state.prior_L2[level], unit, column_LF[level], log1p, out_FN, o)
        if job[SHOWN] > 0.0:
            out_FN[out_FN.shape[0] - 1, o] = (t - job[FIRST_TS]) / DAY_US
