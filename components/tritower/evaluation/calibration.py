"""Do scores mean what they say: log loss and calibration error.

A score is the probability of a click at the top position; a row further down is clicked less, by the examination curve.
So the label is compared with score times examination.

Legend: N rows, B bins.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_EPSILON = 1e-7


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Bins of equal row count by score: mean score, click rate at the top position that the clicks imply, rows."""

    score_B: npt.NDArray[np.float64]
    rate_B: npt.NDArray[np.float64]
    rows_B: npt.NDArray[np.int64]
    error: float


def losses(
    score_N: npt.NDArray[np.float32], examined_N: npt.NDArray[np.float64], clicked_N: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """(N,) log loss of each row, in nats."""
    p = np.clip(score_N * examined_N, _EPSILON, 1 - _EPSILON)
    loss_N: npt.NDArray[np.float64] = -np.log(np.where(clicked_N, p, 1 - p))
    return loss_N


def curve(
    score_N: npt.NDArray[np.float32], examined_N: npt.NDArray[np.float64], clicked_N: npt.NDArray[np.bool_], bins: int
) -> Curve:
    """Calibration curve and error: mean over rows of |mean expected - mean observed| of the row's bin."""
    edges = np.quantile(score_N, np.linspace(0, 1, bins + 1)[1:-1]) if len(score_N) else np.empty(0)
    bin_N = np.searchsorted(edges, score_N, side="right")

    def total(weights: npt.NDArray[np.floating] | npt.NDArray[np.bool_] | None) -> npt.NDArray[np.float64]:
        return np.bincount(bin_N, weights=weights, minlength=bins).astype(np.float64)

    rows_B, clicks_B = total(None), total(clicked_N)
    expected_B, examined_B, score_B = total(score_N * examined_N), total(examined_N), total(score_N)
    filled = rows_B > 0
    return Curve(
        score_B=score_B[filled] / rows_B[filled],
        rate_B=clicks_B[filled] / examined_B[filled],
        rows_B=rows_B[filled].astype(np.int64),
        error=float(np.abs(expected_B - clicks_B).sum() / max(len(score_N), 1)),
    )
