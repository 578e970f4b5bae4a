"""The nearest of many vectors, found in bytes and settled in halves: the same rows in the same order as by brute force.

Each vector is kept twice: as int8 with a scale of its own, which a scan of all reads at the speed of memory, and in half
precision, in which the product with a vector of halves has one value (`half.py`). The scan knows how far each of its products
may be off: |q.d - q'.d'| <= |q| |d - d'| + |q - q'| |d'| (Cauchy-Schwarz). Rows whose upper bound lies below the K-th largest
lower bound cannot be among the best K; the few others are multiplied again. Nothing is lost, whatever the vectors are.

Ties go to the row that stands first in `order`.

Legend: J rows, V vectors that ask, R rows that may be found, P places among those R, T texts, D embedding size, K list length.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritower.half import dot, half_to_float
from tritower.numba_cache import njit

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
_BINS = 4096
_BLOCK = 1024  # rows of 384 bytes that stay in the cache while each vector is multiplied with them
_ROUNDING = 1e-6  # of float32 sums and scales, relative to the vectors' lengths: three roundings are 2e-7


class Codes(NamedTuple):
    """Vectors in bytes: `code_JD` int8, a row is about `code * scale_J`; `off_J` bounds the length of the difference.

    `longest` bounds the length of a row as coded.
    """

    code_JD: NDArray[np.int8]
    scale_J: Floats
    off_J: Floats
    longest: np.float32

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """`code_JD`, `scale_J` and `off_J`."""
        return self.code_JD, self.scale_J, self.off_J


class Vectors(NamedTuple):
    """Vectors that ask: `exact_VD` float32 values that are halves, `code_VD` int16 with its scale, the two lengths."""

    exact_VD: Floats
    code_VD: NDArray[np.int16]
    scale_V: Floats
    length_V: Floats
    off_V: Floats


def bits(matrix_TD: NDArray[np.float16]) -> NDArray[np.uint16]:
    """Halves as kernels read them: their bits, in memory or in a mapped file."""
    found: NDArray[np.uint16] = np.asarray(matrix_TD).view(np.uint16)
    found.flags.writeable = False  # one type, thus one compiled function, for matrices in memory and in a file
    return found


def coded(bits_TD: NDArray[np.uint16], row_J: NDArray[np.integer[Any]]) -> Codes:
    """The bytes of some rows (J,) of a matrix of halves."""
    count, dim = len(row_J), bits_TD.shape[1]
    arrays = np.empty((count, dim), np.int8), np.empty(count, np.float32), np.empty(count, np.float32)
    longest = _code_rows(bits_TD, np.asarray(row_J, np.int64), *arrays) if count else 0.0
    return frozen(of_arrays(arrays, longest))


def of_arrays(arrays: Iterable[NDArray[Any]], longest: np.float32 | float) -> Codes:
    """Codes from `code_JD`, `scale_J` and `off_J`."""
    code_JD, scale_J, off_J = arrays
    return Codes(code_JD, scale_J, off_J, np.float32(longest))


def frozen(codes: Codes) -> Codes:
    """The same, not to be written to: kernels are compiled for such arrays."""
    for array in codes.arrays:
        array.flags.writeable = False
    return codes


def vectors(value_VD: Sequence[NDArray[np.floating[Any]]]) -> Vectors:
    """Vectors, rounded to halves, as a scan takes them."""
    exact_VD = np.asarray(value_VD, np.float16).astype(np.float32)
    wide_VD = exact_VD.astype(np.float64)
    # Sums of products stay below 2^31 however large the vectors are.
    most = min(32_767, (1 << 31) // (128 * wide_VD.shape[1]) - 1)
    scale_V1 = np.maximum(np.abs(wide_VD).max(axis=1, keepdims=True), 1e-30) / most
    code_VD = np.rint(wide_VD / scale_V1).astype(np.int16)
    length_V, off_V = (np.sqrt((one**2).sum(axis=1)) for one in (wide_VD, wide_VD - code_VD * scale_V1))
    return Vectors(exact_VD, code_VD, *(one.astype(np.float32) for one in (scale_V1[:, 0], length_V, off_V)))


def ordered(key_K: Ints, limit: int) -> Ints:
    """Positions in `order` of the best `limit`, best first, from the keys that `nearest` or `largest` gave."""
    best: Ints = np.sort(key_K)[:limit] & 0xFFFFFFFF
    return best


def decoded(key_K: Ints) -> tuple[Ints, Floats]:
    """Positions in `order` and values that keys stand for."""
    falling = -(key_K >> 32)
    bits_K = np.where(falling >= 0, falling, falling ^ 0x7FFFFFFF).astype(np.int32)
    return key_K & 0xFFFFFFFF, bits_K.view(np.float32)


@njit(cache=True, nogil=True)
def _code_rows(bits_TD, row_J, code_JD, scale_J, off_J):  # type: ignore[no-untyped-def]
    longest = 0.0
    for j in range(len(row_J)):
        most = np.float32(0)
        for d in range(bits_TD.shape[1]):
            most = max(most, abs(half_to_float(bits_TD[row_J[j], d])))
        scale = most / np.float32(127)
        scale_J[j] = scale
        off = length = 0.0
        for d in range(bits_TD.shape[1]):
            value = half_to_float(bits_TD[row_J[j], d])
            code = np.rint(value / scale) if scale > 0 else np.float32(0)
            code_JD[j, d] = np.int8(code)
            off += (np.float64(value) - np.float64(code) * np.float64(scale)) ** 2
            length += (np.float64(code) * np.float64(scale)) ** 2
        off_J[j] = np.sqrt(off) * (1 + _ROUNDING)
        longest = max(longest, np.sqrt(length) * (1 + _ROUNDING))
    return longest


@njit(cache=True, nogil=True)
def bounds(codes, asked, row_R, low_VR, high_VR):  # type: ignore[no-untyped-def]
    """Write between which numbers the products of rows with vectors are. Rows are read once for all vectors."""
    for start in range(0, len(row_R), _BLOCK):
        for v in range(len(asked.scale_V)):
            length = asked.length_V[v]
            margin = (asked.off_V[v] + np.float32(_ROUNDING) * length) * codes.longest
            for r in range(start, min(start + _BLOCK, len(row_R))):
                row, total = row_R[r], np.int32(0)
                for d in range(codes.code_JD.shape[1]):
                    total += np.int32(codes.code_JD[row, d]) * np.int32(asked.code_VD[v, d])
                # Cut to 32 bits, in which the sum is: only then does the compiler use the instruction made for it.
                about = np.float32(np.int32(total)) * (codes.scale_J[row] * asked.scale_V[v])
                off = length * codes.off_J[row] + margin
                low_VR[v, r], high_VR[v, r] = about - off, about + off


@njit(cache=True, nogil=True)
def nearest(bits_TD, text_J, order_J, exact_D, row_R, low_R, high_R, at_P, limit):  # type: ignore[no-untyped-def]
    """Keys of rows among which the `limit` with the largest products are, and not many more.

    Args:
        bits_TD, text_J: all halves, and where each row's are.
        order_J: what settles ties, each number once.
        exact_D: the vector.
        row_R, low_R, high_R: rows that may be found, and what `bounds` wrote of them.
        at_P: which of the R belong to this list.
        limit: K.
    """
    low_P = low_R[at_P]
    least, found = threshold(low_P, limit, low_P.min(), low_P.max()) if len(at_P) > limit else np.float32(-np.inf), 0
    key_P, value_1 = np.empty(len(at_P), np.int64), np.empty(1, np.float32)
    for p in range(len(at_P)):
        if high_R[at_P[p]] >= least:
            row = row_R[at_P[p]]
            value_1[0] = dot(bits_TD, text_J[row], exact_D)
            key_P[found] = _key(value_1, order_J[row])
            found += 1
    return key_P[:found].copy()


@njit(cache=True, nogil=True)
def largest(value_P, order_P, limit):  # type: ignore[no-untyped-def]
    """Keys of values among which the `limit` largest are, and not many more; as `nearest`, of values that are exact."""
    least, found = threshold(value_P, limit, value_P.min(), value_P.max()) if len(value_P) > limit else np.float32(-np.inf), 0
    key_P, value_1 = np.empty(len(value_P), np.int64), np.empty(1, np.float32)
    for p in range(len(value_P)):
        if value_P[p] >= least:
            value_1[0] = value_P[p]
            key_P[found] = _key(value_1, order_P[p])
            found += 1
    return key_P[:found].copy()


@njit(cache=True, nogil=True)
def threshold(value_P, limit, low, high):  # type: ignore[no-untyped-def]
    """A number that at least `limit` values reach, of more than `limit` between `low` and `high`, and not many more do."""
    if not low < high:
        return low
    count_B, per = np.zeros(_BINS, np.int64), np.float32(_BINS - 1) / (high - low)
    for p in range(len(value_P)):
        count_B[np.int32((value_P[p] - low) * per)] += 1
    above, b = 0, _BINS
    while above < limit:
        b -= 1
        above += count_B[b]
    return low + (np.float32(b) - np.float32(0.25)) / per  # an edge of a bin, rounded to the safe side


@njit(cache=True, nogil=True, forceinline=True)
def _key(value_1, order):  # type: ignore[no-untyped-def]
    """An int64 that sorts by value, largest first, then by order, which its low half is."""
    value_1[0] += np.float32(0)  # -0 is 0
    bits_ = np.int64(value_1.view(np.int32)[0])
    rising = bits_ if bits_ >= 0 else bits_ ^ np.int64(0x7FFFFFFF)
    return ((-rising) << np.int64(32)) | np.int64(order)
