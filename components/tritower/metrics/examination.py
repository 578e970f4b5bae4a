"""Examination: how likely a row at each position is looked at, relative to the top, measured on rows in random order.

In random order every position shows jobs of the same relevance, so click rates differ by examination alone (Joachims,
Swaminathan and Schnabel, WSDM 2017). `curve` takes the rate of each position as it is, for weighing clicks; `slope` fits a
power law, which few clicks bear, for a training that goes on from there.

What else is learned of positions is something else: the ranker's weights come out of its training, the trees' offsets are
log-odds beside a model's margin (`tritower.baseline.position`), and the features' expected clicks are kept up to date event by
event (`tritower.features.curve`).

Legend: N rows, P positions; index 0 stands for an unknown position.
"""

import numpy as np
import numpy.typing as npt

MIN_CLICKS = 200
"""Clicks on rows in random order below which nothing is measured: the standard error of a rate is then above 7 %, that of the
slope above .1."""
_SLOPES = np.linspace(0.0, 3.0, 301)

Positions = npt.NDArray[np.integer]
Labels = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float64]


def curve(position_N: Positions, clicked_N: Labels, floor: float) -> Array | None:
    """(P + 1,) click rate of each position over that of the top, 1 for an unknown one; None with too few clicks.

    Positions beyond the last with `MIN_CLICKS` / 4 clicks share one value; values are kept within `floor` and 1.
    """
    if not enough(clicked_N):
        return None
    shown_P, clicks_P = _counts(position_N, clicked_N)
    if clicks_P[1] < MIN_CLICKS / 10:
        return None
    curve_P = np.ones(len(shown_P))
    measured = np.flatnonzero(clicks_P[1:] >= MIN_CLICKS / 4) + 1
    last = int(measured[-1]) if len(measured) else 1
    top = clicks_P[1] / shown_P[1]
    for position in range(1, len(shown_P)):
        pool = slice(position, position + 1) if position <= last else slice(last + 1, None)
        curve_P[position] = clicks_P[pool].sum() / max(shown_P[pool].sum(), 1) / top
    return np.clip(curve_P, floor, 1.0)


def slope(position_N: Positions, clicked_N: Labels) -> float | None:
    """The s for which clicks fall off as position ** -s: maximum Poisson likelihood.

    Returns:
        A slope from 0 to 3; None where there are too few clicks, or one position only.
    """
    known_N = position_N > 0
    if not enough(clicked_N[known_N]):
        return None
    shown_P, clicks_P = _counts(position_N[known_N], clicked_N[known_N])
    position_P = np.flatnonzero(shown_P)
    if len(position_P) < 2:
        return None
    log_P = np.log(position_P)
    shown_P, clicks_P = shown_P[position_P], clicks_P[position_P]
    # The rate's scale is maximised out: clicks / sum of shown * p ** -s.
    mass_S = (shown_P * np.exp(-_SLOPES[:, None] * log_P)).sum(axis=1)
    likelihood_S = -_SLOPES * (clicks_P * log_P).sum() - clicks_P.sum() * np.log(mass_S)
    return float(_SLOPES[likelihood_S.argmax()])


def enough(clicked_N: Labels) -> bool:
    """Whether rows in random order hold clicks enough to measure examination."""
    return int(clicked_N.sum()) >= MIN_CLICKS


def at(curve_P: Array, position_N: Positions) -> Array:
    """(N,) examination of each row; positions beyond the curve take its last value."""
    value_N: Array = curve_P[np.minimum(position_N, len(curve_P) - 1)]
    return value_N


def _counts(position_N: Positions, clicked_N: Labels) -> tuple[Array, Array]:
    """(P + 1,) rows shown, and clicked, at each position."""
    shown_P = np.bincount(position_N)
    clicks_P = np.bincount(position_N, weights=clicked_N, minlength=len(shown_P))
    return shown_P.astype(np.float64), clicks_P.astype(np.float64)
