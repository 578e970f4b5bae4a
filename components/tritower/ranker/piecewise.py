"""Piecewise linear maps, many at a time, in machine code.

Legend: N rows, F features, K knots, S entries of a search table.

The result is numpy.interp's to the bit where numpy's own C code rounds between a product and a sum (every wheel for x86-64);
where it fuses the two, a double may differ in its last bit before it is rounded to float32.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

_KNOTS = 65  # the most that a search of six halvings and one more step tells apart
_SEARCH = 72  # with room for what the search asks for beyond the last knot
_BLOCK = 128  # rows whose features stay in the nearest cache while one feature after the other is mapped
# Unsigned: numba asks of every signed index whether it counts from the end.
_ONE, _TWO, _THREE, _FOUR, _FIVE = (np.uint64(n) for n in (1, 2, 3, 4, 5))
_EIGHT, _SIXTEEN, _THIRTY_TWO = (np.uint64(n) for n in (8, 16, 32))


class Maps(NamedTuple):
    """One map per feature, ready to be searched: `tables` makes them."""

    search_FS: NDArray[np.float32]  # the knots, rounded up to float32: the same order for a float32 that is looked up
    knot_FK: NDArray[np.float64]
    value_FK: NDArray[np.float64]
    slope_FK: NDArray[np.float64]  # from each knot to the next; 0 from the last
    last_F: NDArray[np.int64]  # the last knot that is not a repetition


def tables(knot_FK: NDArray[np.float64], value_FK: NDArray[np.float32]) -> Maps:
    """Search tables for maps `knot_FK[f]` -> `value_FK[f]`; knots ascend, and repetitions come last."""
    features, knots = knot_FK.shape
    assert knots <= _KNOTS, knots
    last_F = np.array([len(np.unique(knot_K)) - 1 for knot_K in knot_FK], dtype=np.int64)
    search_FS = np.full((features, _SEARCH), np.inf, dtype=np.float32)
    slope_FK = np.zeros((features, knots))
    for f, last in enumerate(last_F):
        near_K = knot_FK[f, : last + 1].astype(np.float32)
        below_K = near_K < knot_FK[f, : last + 1]
        with np.errstate(over="ignore"):  # above the largest float32 only infinity is left
            search_FS[f, : last + 1] = np.where(below_K, np.nextafter(near_K, np.float32(np.inf)), near_K)
        rise_K = np.diff(value_FK[f, : last + 1].astype(np.float64))
        slope_FK[f, :last] = rise_K / np.diff(knot_FK[f, : last + 1])
    return Maps(search_FS, np.ascontiguousarray(knot_FK), value_FK.astype(np.float64), slope_FK, last_F)


@numba.njit(cache=True, nogil=True)
def apply(feature_NF, maps, out_NF):  # type: ignore[no-untyped-def]
    """Map every feature of every row, float32 to float32; NaN stays NaN."""
    for start in range(0, len(feature_NF), _BLOCK):
        stop = min(start + _BLOCK, len(feature_NF))
        for f in range(feature_NF.shape[1]):
            column(feature_NF[start:stop, f], maps, f, out_NF[start:stop, f])


@numba.njit(cache=True, nogil=True)
def column(feature_N, maps, f, out_N):  # type: ignore[no-untyped-def]
    """Map one feature; a value equal to the one before it is not looked up again, as most are in one search's candidates."""
    search_S, knot_K, value_K, slope_K = maps.search_FS[f], maps.knot_FK[f], maps.value_FK[f], maps.slope_FK[f]
    last = maps.last_F[f]
    low, high, before, out = knot_K[0], knot_K[last], np.float32(np.nan), np.float32(0)
    for i in range(len(feature_N)):
        feature = feature_N[i]
        if feature != before:
            k = _few(search_S, feature) if last < 8 else _many(search_S, feature)
            value = np.float64(feature)
            value = low if value < low else value
            value = high if value > high else value
            out = np.float32(slope_K[k] * (value - knot_K[k]) + value_K[k])
            before = feature
        out_N[i] = out


@numba.njit(cache=True, nogil=True)
def _few(search_S, feature):  # type: ignore[no-untyped-def]
    """The last of up to 8 knots that is not above `feature`; 0 where all are.

    Comparisons become numbers: the processor would guess a branch wrongly half of the time.
    """
    k = np.uint64(search_S[_FOUR] <= feature) << _TWO
    k += np.uint64(search_S[k + _TWO] <= feature) << _ONE
    return k + np.uint64(search_S[k + _ONE] <= feature)


@numba.njit(cache=True, nogil=True)
def _many(search_S, feature):  # type: ignore[no-untyped-def]
    """The same for up to 65 knots."""
    k = np.uint64(search_S[_THIRTY_TWO] <= feature) << _FIVE
    k += np.uint64(search_S[k + _SIXTEEN] <= feature) << _FOUR
    k += np.uint64(search_S[k + _EIGHT] <= feature) << _THREE
    k += np.uint64(search_S[k + _FOUR] <= feature) << _TWO
    k += np.uint64(search_S[k + _TWO] <= feature) << _ONE
    k += np.uint64(search_S[k + _ONE] <= feature)
    return k + np.uint64(search_S[k + _ONE] <= feature)
