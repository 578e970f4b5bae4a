"""Dense numbers for pairs of numbers, given out as pairs turn up: an open-addressing hash table in two arrays.

Legend: N rows, B buckets (a power of two).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tritower.numba_cache import njit

Array = npt.NDArray[Any]
EMPTY = -1


class PairIndex:
    """Numbers pairs (left, right) of non-negative int32 from 0 in the order in which they are first seen."""

    def __init__(self, buckets: int = 1 << 12) -> None:
        self.key_B = np.full(buckets, EMPTY, np.int64)
        self.number_B = np.empty(buckets, np.int64)
        self.used = 0

    def numbers(self, left_N: npt.NDArray[Any], right_N: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The number of each pair, new or known; -1 where either side is negative."""
        while 2 * (self.used + len(left_N)) > len(self.key_B):
            self._grow()
        out_N = np.empty(len(left_N), np.int64)
        self.used = _numbers(left_N, right_N, self.key_B, self.number_B, self.used, out_N)
        return out_N

    def pairs(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The left and right side of every pair in the order of the numbers."""
        taken = self.key_B != EMPTY
        keys = np.empty(self.used, np.int64)
        keys[self.number_B[taken]] = self.key_B[taken]
        return keys >> 32, keys & 0xFFFFFFFF

    def _grow(self) -> None:
        left, right = self.pairs()
        size = 2 * len(self.key_B)
        self.key_B, self.number_B = np.full(size, EMPTY, np.int64), np.empty(size, np.int64)
        _numbers(left, right, self.key_B, self.number_B, 0, np.empty(len(left), np.int64))


@njit(cache=True)
def slot(key: Any, size: int) -> Any:
    """Where a key's search starts; the multiplier is 2^64 over the golden ratio (Knuth's multiplicative hashing)."""
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(size - 1))


@njit(cache=True)
def _numbers(left_N: Array, right_N: Array, key_B: Array, number_B: Array, used: int, out_N: Array) -> int:
    size = key_B.shape[0]
    for i in range(left_N.shape[0]):
        if left_N[i] < 0 or right_N[i] < 0:
            out_N[i] = -1
            continue
        key = (np.int64(left_N[i]) << 32) | np.int64(right_N[i])
        at = slot(key, size)
        while key_B[at] != EMPTY and key_B[at] != key:
            at = (at + 1) & (size - 1)
        if key_B[at] == EMPTY:
            key_B[at] = key
            number_B[at] = used
            used += 1
        out_N[i] = number_B[at]
    return used


@njit(cache=True)
def found(left: Any, right: Any, key_B: Array, number_B: Array) -> Any:
    """The number of a pair of numbers that are not negative, -1 where it has none."""
    key = (np.int64(left) << 32) | np.int64(right)
    at = slot(key, key_B.shape[0])
    while key_B[at] != EMPTY and key_B[at] != key:
        at = (at + 1) & (key_B.shape[0] - 1)
    return number_B[at] if key_B[at] == key else np.int64(-1)


@njit(cache=True)
def distinct(left_N: Array, right_N: Array) -> tuple[Array, Array, Array]:
    """The distinct pairs in the order in which they come, and the number of each pair; -1 where either side is negative."""
    rows, size = len(left_N), 4
    while size < 2 * rows:
        size *= 2
    pair_B, key_P, pair_N, used = np.full(size, -1, np.int32), np.empty(rows, np.int64), np.empty(rows, np.int64), 0
    for i in range(rows):
        if left_N[i] < 0 or right_N[i] < 0:
            pair_N[i] = -1
            continue
        key = (np.int64(left_N[i]) << 32) | np.int64(right_N[i])
        at = slot(key, size)
        while pair_B[at] >= 0 and key_P[pair_B[at]] != key:
            at = (at + 1) & (size - 1)
        if pair_B[at] < 0:
            pair_B[at], key_P[used] = used, key
            used += 1
        pair_N[i] = pair_B[at]
    return key_P[:used] >> 32, key_P[:used] & 0xFFFFFFFF, pair_N
