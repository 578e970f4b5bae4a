"""How likely a row at each position is looked at, relative to the top: the examination curve.

Legend: N rows, P positions; index 0 stands for an unknown position and holds 1.
"""

import numpy as np
import numpy.typing as npt

MIN_CLICKS = 200
"""Clicks below which a curve is not estimated: the standard error of a rate is then above 7 %."""


def from_randomised(
    position_N: npt.NDArray[np.int16], clicked_N: npt.NDArray[np.bool_], floor: float
) -> npt.NDArray[np.float64] | None:
    """(P + 1,) click rate of each position over that of the top, on rows in random order; None with too few clicks.

    In random order every position shows jobs of the same relevance, so click rates differ by examination alone
    (Joachims, Swaminathan and Schnabel, WSDM 2017). Positions beyond the last with `MIN_CLICKS` / 4 clicks share one
    value; values are kept within `floor` and 1.
    """
    if int(clicked_N.sum()) < MIN_CLICKS:
        return None
    shown_P = np.bincount(position_N).astype(np.float64)
    clicks_P = np.bincount(position_N, weights=clicked_N, minlength=len(shown_P))
    if clicks_P[1] < MIN_CLICKS / 10:
        return None
    curve_P = np.ones(len(shown_P))
    enough = np.flatnonzero(clicks_P[1:] >= MIN_CLICKS / 4) + 1
    last = int(enough[-1]) if len(enough) else 1
    top = clicks_P[1] / shown_P[1]
    for position in range(1, len(shown_P)):
        pool = slice(position, position + 1) if position <= last else slice(last + 1, None)
        curve_P[position] = clicks_P[pool].sum() / max(shown_P[pool].sum(), 1) / top
    return np.clip(curve_P, floor, 1.0)


def at(curve_P: npt.NDArray[np.float64], position_N: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    """(N,) examination of each row; positions beyond the curve take its last value."""
    value_N: npt.NDArray[np.float64] = curve_P[np.minimum(position_N, len(curve_P) - 1)]
    return value_N
