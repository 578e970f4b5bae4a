"""Interaction features -> numbers a network can use; fitted on train only and part of the model.

Legend: N rows, F features, K knots. NaN = missing, before and after: the network turns it into a mask.
"""

import functools
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tritower.ranker import piecewise

Floats = NDArray[np.float32]
_KNOTS = 65
_EDGE = 1e-3  # the outermost quantiles map to about -3.1 and 3.1 standard deviations


@dataclass(frozen=True)
class Normaliser:
    """One piecewise linear, never decreasing map per feature: `knot_FK[f]` -> `value_FK[f]`, flat outside the outer knots.

    Both kinds of normaliser are such maps, so that whoever applies a model needs one function only.
    """

    knot_FK: NDArray[np.float64]
    value_FK: Floats

    @functools.cached_property
    def maps(self) -> piecewise.Maps:
        """The maps as `piecewise` searches them."""
        return piecewise.tables(self.knot_FK, self.value_FK)

    def apply(self, feature_NF: Floats) -> Floats:
        """Normalised features (N, F) float32, as numpy.interp gives them column by column; NaN stays NaN."""
        out_NF = np.empty(feature_NF.shape, dtype=np.float32)
        piecewise.apply(np.asarray(feature_NF, dtype=np.float32), self.maps, out_NF)
        return out_NF


def fit(feature_NF: Floats, *, kind: str) -> Normaliser:
    """A normaliser for a sample of training rows.

    Args:
        feature_NF: raw features; NaN = missing.
        kind: `quantile` maps quantiles to normal scores, a tied value to the middle of its ranks; `standard` takes the
            signed logarithm and standardises, clipped at 5 standard deviations.
    """
    make = _quantile if kind == "quantile" else _standard
    maps = [make(_present(feature_NF[:, f])) for f in range(feature_NF.shape[1])]
    knots = [knot for knot, _ in maps]
    values = [value for _, value in maps]
    return Normaliser(np.array(knots).reshape(-1, _KNOTS), np.array(values, dtype=np.float32).reshape(-1, _KNOTS))


def _present(value_N: Floats) -> NDArray[np.float64]:
    return np.sort(value_N[np.isfinite(value_N)].astype(np.float64))


def _quantile(value_N: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not len(value_N) or value_N[0] == value_N[-1]:
        return _constant(value_N)
    share_K = np.linspace(0, 1, _KNOTS)
    knot_K = np.unique(np.quantile(value_N, share_K, method="nearest"))
    # Mid-rank share of each knot, so that a value tied by half of the rows lands at the middle of that half.
    low_K = np.searchsorted(value_N, knot_K, side="left")
    high_K = np.searchsorted(value_N, knot_K, side="right")
    middle_K = np.clip((low_K + high_K) / (2 * len(value_N)), _EDGE, 1 - _EDGE)
    score_K = np.array([NormalDist().inv_cdf(float(share)) for share in middle_K])
    return _pad(knot_K, score_K)


def _standard(value_N: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not len(value_N) or value_N[0] == value_N[-1]:
        return _constant(value_N)
    log_N = np.sign(value_N) * np.log1p(np.abs(value_N))
    mean, deviation = log_N.mean(), log_N.std()
    low, high = np.clip((log_N[[0, -1]] - mean) / deviation, -5, 5)
    value_K = np.linspace(low, high, _KNOTS)
    log_K = value_K * deviation + mean
    return np.sign(log_K) * np.expm1(np.abs(log_K)), value_K


def _constant(value_N: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    start = value_N[0] if len(value_N) else 0.0
    return _pad(np.array([start]), np.zeros(1))


def _pad(knot_K: NDArray[np.float64], value_K: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # Repeated last knots are harmless to the search as long as their values repeat too.
    short = _KNOTS - len(knot_K)
    return np.pad(knot_K, (0, short), mode="edge"), np.pad(value_K, (0, short), mode="edge")
