"""The Beta priors and the examination curve, from running sums of the events so far.

* Prior of a level, by moments: over keys with n impressions and c clicks, sum c(c-1) / sum n(n-1) estimates the second moment q
  of the keys' rates m, from pairs of different impressions of one key; hence the strength s = (m - q) / (q - m^2). Both sums
  are kept up to date in O(1) per event. A prior fitted on the whole training period would show each training row its own
  future.
* Examination curve: how many clicks an average job earns at a position. Where the log holds a randomised slice with enough
  clicks, the curve is the slice's click-through rate by position, the unbiased estimate. Elsewhere it is clicks at the
  position over the sum of the shown jobs' own smoothed rates, which takes out that better jobs are shown higher as far as the
  job itself explains it. The curve is scaled so that expected and real clicks agree in sum.

All sums are of whole numbers (rates in units of 2^-30), exact in float64 and the same in any order.

Legend: L levels, P positions (0 = unknown, the last = all deeper ones).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tritower.numba_cache import njit

PAIRS_SHOWN, PAIRS_CLICKED, TOTAL_SHOWN, TOTAL_CLICKS = 0, 1, 2, 3
SHOWN, CLICKS, RATES, RANDOM_SHOWN, RANDOM_CLICKS = 0, 1, 2, 3, 4
MIN_PAIRS = 20.0  # pairs of clicks on one key before the prior's strength is fitted
MAX_STRENGTH = 1e4
MIN_RANDOM_CLICKS = 1_000.0  # about 50 clicks at each of 20 positions: a standard error of 14 %
PSEUDO_CLICKS = 10.0  # weight of the flat curve in the estimate from the whole log
UNIT = 2.0**30

Array = npt.NDArray[Any]


@njit(cache=True)
def prior(moments_4: Array, default: float) -> tuple[float, float]:
    """Mean and strength of a level's Beta prior; Beta(1, default - 1) until there is something to fit."""
    shown = moments_4[TOTAL_SHOWN]
    if shown == 0.0 or moments_4[TOTAL_CLICKS] == 0.0:
        return 1.0 / default, default
    mean = moments_4[TOTAL_CLICKS] / shown
    if moments_4[PAIRS_CLICKED] < MIN_PAIRS:
        return mean, default
    second = moments_4[PAIRS_CLICKED] / moments_4[PAIRS_SHOWN]
    spread = second - mean * mean
    if spread <= 0.0 or mean - second >= MAX_STRENGTH * spread:
        return mean, MAX_STRENGTH
    return mean, max(1.0, (mean - second) / spread)


@njit(cache=True)
def rate(shown: float, clicks: float, mean: float, default: float) -> float:
    """A job's smoothed click-through rate as a whole number of 2^-30."""
    return np.floor(UNIT * (clicks + default * mean) / (shown + default))  # type: ignore[no-any-return]


@njit(cache=True)
def refresh(moments_L4: Array, tally_P5: Array, default: float, prior_L2: Array, curve_P: Array) -> None:
    """Write the priors and the curve that the sums so far imply."""
    for level in range(moments_L4.shape[0]):
        prior_L2[level, 0], prior_L2[level, 1] = prior(moments_L4[level], default)
    mean = prior_L2[0, 0]
    random_shown = random_clicks = total = weighted = 0.0
    for p in range(tally_P5.shape[0]):
        random_shown += tally_P5[p, RANDOM_SHOWN]
        random_clicks += tally_P5[p, RANDOM_CLICKS]
    for p in range(tally_P5.shape[0]):
        if random_clicks >= MIN_RANDOM_CLICKS:
            prior_clicks = default * random_clicks / random_shown
            curve_P[p] = (tally_P5[p, RANDOM_CLICKS] + prior_clicks) / (tally_P5[p, RANDOM_SHOWN] + default)
        else:
            curve_P[p] = (tally_P5[p, CLICKS] + PSEUDO_CLICKS) / (tally_P5[p, RATES] / UNIT + PSEUDO_CLICKS)
        weighted += tally_P5[p, SHOWN] * curve_P[p]
        total += tally_P5[p, SHOWN]
    scale = mean * total / weighted if weighted > 0.0 else mean
    for p in range(tally_P5.shape[0]):
        curve_P[p] = min(1.0, scale * curve_P[p]) if weighted > 0.0 else mean
