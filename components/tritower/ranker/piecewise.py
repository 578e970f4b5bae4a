"""Piecewise linear maps, many at a time, in machine code.

Legend: N rows, F features, K knots, S entries of a search table.

The result is numpy.interp's to the bit where numpy's own C code rounds between a product and a sum (every wheel for x86-64);
where it fuses the two, a double may differ in its last bit before it is rounded to float32.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritower.numba_cache import njit

_KNOTS = 65
_SEARCH = 72  # with room for what the search asks for behind the last knot: NaN, which is not below any value
_BLOCK = 128  # rows whose features stay in the nearest cache while one feature after the other is mapped
# Unsigned: numba asks of every signed index whether it counts from the end.
_ONE, _TWO, _FOUR = np.uint64(1), np.uint64(2), np.uint64(4)


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
    search_FS = np.full((features, _SEARCH), np.nan, dtype=np.float32)
    slope_FK = np.zeros((features, knots))
    for f, last in enumerate(last_F):
        near_K = knot_FK[f, : last + 1].astype(np.float32)
        below_K = near_K < knot_FK[f, : last + 1]
        with np.errstate(over="ignore"):  # above the largest float32 only infinity is left
            search_FS[f, : last + 1] = np.where(below_K, np.nextafter(near_K, np.float32(np.inf)), near_K)
        rise_K = np.diff(value_FK[f, : last + 1].astype(np.float64))
        slope_FK[f, :last] = rise_K / np.diff(knot_FK[f, : last + 1])
    return Maps(search_FS, np.ascontiguousarray(knot_FK), value_FK.astype(np.float64), slope_FK, last_F)


@njit(cache=True, nogil=True)
def apply(feature_NF, maps, out_NF):  # type: ignore[no-untyped-def]
    """Map every feature of every row, float32 to float32; NaN stays NaN."""
    feature_n, knot_n = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.uint32)
    for start in range(0, len(feature_NF), _BLOCK):
        n = min(_BLOCK, len(feature_NF) - start)
        for f in range(feature_NF.shape[1]):
            for i in range(n):
                feature_n[i] = feature_NF[start + i, f]
            column(feature_n[:n], maps, f, out_NF[start : start + n, f], knot_n[:n])


@njit(cache=True, nogil=True)
def column(feature_n, maps, f, out_n, knot_n):  # type: ignore[no-untyped-def]
    """Map one feature of a few rows, side by side in memory. `knot_n` is room for as many uint32.

    The last knot that is not above a value is found in two parts. Every eighth knot is compared with all values: no value's
    comparison waits for another, so the processor makes many at a time. The seven between take three steps.
    """
    search_S, last, first, other = maps.search_FS[f], maps.last_F[f], feature_n[0], 0
    for i in range(len(feature_n)):
        other += feature_n[i] != first
    n = len(feature_n) if other else 1  # many features have one value in all candidates of a search
    k1, k2, k3, k4 = search_S[8], search_S[16], search_S[24], search_S[32]
    k5, k6, k7, k8 = search_S[40], search_S[48], search_S[56], search_S[64]
    for i in range(n):
        v = feature_n[i]
        lower = np.uint32(k1 <= v) + np.uint32(k2 <= v) + np.uint32(k3 <= v) + np.uint32(k4 <= v)
        upper = np.uint32(k5 <= v) + np.uint32(k6 <= v) + np.uint32(k7 <= v) + np.uint32(k8 <= v)
        knot_n[i] = np.uint32(8) * np.uint32(lower + upper)
    knot_K, value_K, slope_K = maps.knot_FK[f], maps.value_FK[f], maps.slope_FK[f]
    low, high = knot_K[0], knot_K[last]
    for i in range(n):
        k, feature = np.uint64(knot_n[i]), feature_n[i]
        # Comparisons become numbers: the processor would guess a branch wrongly half of the time.
        k += np.uint64(search_S[k + _FOUR] <= feature) << _TWO
        k += np.uint64(search_S[k + _TWO] <= feature) << _ONE
        k += np.uint64(search_S[k + _ONE] <= feature)
        value = np.float64(feature)
        value = low if value < low else value
        value = high if value > high else value
        out_n[i] = slope_K[k] * (value - knot_K[k]) + value_K[k]
    for i in range(n, len(feature_n)):
        out_n[i] = out_n[0]
