"""The nearest of many vectors, found in bytes and settled in halves: the same rows in the same order as by brute force.

Each vector is kept twice: as int8 with a scale of its own, and in half precision, in which the product with a vector of halves
has one value (`half.py`). What is computed in bytes comes with a bound of how far it may be off: |q.d - q'.d'| <= |q| |d - d'|
+ |q - q'| |d'| (Cauchy-Schwarz). A list of K rows is made in four steps:

1. every row gets an upper bound, from its first principal components (heads.py) or, without those, from all its bytes;
2. the rows with the largest get lower bounds; K products are not below the K-th largest of those, the bar;
3. rows whose upper bound lies below the bar cannot be in the list; the others get both bounds, and again those below the K-th
   largest lower bound fall out;
4. what is left, 2 or 3 K rows, is multiplied in halves.

Nothing is lost, whatever the vectors are. Ties go to the row that stands first in `order`.

Legend: J rows, L the same filled up to G groups of sixteen, V vectors that ask, P places of one list (rows, or numbers of
some), T texts, D embedding size, H numbers of a row that bounds are made of (D, or the length of its head), K list length.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritower.half import dot, half_to_float
from tritower.numba_cache import njit
from tritower.recommend.int8 import LANES, one_product, prefetched, three_products

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
ROUNDING = 1e-6  # of float32 sums and scales, relative to the vectors' lengths: three roundings are 2e-7
_TOGETHER = 3  # vectors that a row is multiplied with at once
_LEADING = 2  # times K rows set the bar
_FEW = 3  # times as many as wanted are not too many
_BINS = 1024
_AHEAD, _LINE = 8, 64  # rows that are asked for before they are read; bytes that come at once
LOWEST = float(np.finfo(np.float32).min)
"""What stands for no value; no product is as low."""


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


class Asked(NamedTuple):
    """Vectors as bytes are multiplied with them.

    Attributes:
        code_WH: int16, rows of zeros behind the V.
        scale_V: a vector is about `code * scale`.
        length_V, off_V: bounds of its length, and of that of the difference.
        rest_V: a bound of the length of what is not among its H numbers.
    """

    code_WH: NDArray[np.int16]
    scale_V: Floats
    length_V: Floats
    off_V: Floats
    rest_V: Floats


class Vectors(NamedTuple):
    """Vectors that ask: `exact_VD` float32 values that are halves, and the same in whole numbers."""

    exact_VD: Floats
    asked: Asked


class Bounds(NamedTuple):
    """Upper bounds of rows in groups of sixteen.

    Attributes:
        high_VL: `LOWEST` for rows that are not wanted, and anything at all in a group that has none.
        peak_VG: the largest of each group.
    """

    high_VL: Floats
    peak_VG: Floats


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
    return Vectors(exact_VD, asking(exact_VD.astype(np.float64), np.zeros(len(exact_VD))))


def asking(wide_VH: NDArray[np.float64], rest_V: NDArray[np.float64]) -> Asked:
    """Vectors in whole numbers.

    Args:
        rest_V: `Asked.rest_V`.
    """
    # Sums of products stay below 2^31 however large the vectors are.
    count, most = len(wide_VH), min(32_767, (1 << 31) // (128 * wide_VH.shape[1]) - 1)
    scale_V = (np.maximum(np.abs(wide_VH).max(axis=1), 1e-30) / most).astype(np.float32)
    code_WH = np.zeros((-(-count // _TOGETHER) * _TOGETHER, wide_VH.shape[1]), np.int16)
    code_WH[:count] = np.clip(np.rint(wide_VH / scale_V[:, None]), -most, most)
    off_VH = wide_VH - code_WH[:count] * scale_V[:, None].astype(np.float64)
    length_V, off_V = (np.sqrt(np.einsum("vh,vh->v", one, one)) * (1 + ROUNDING) for one in (wide_VH, off_VH))
    return Asked(code_WH, scale_V, *(one.astype(np.float32) for one in (length_V, off_V, rest_V)))


def bounded(codes: Codes, vectors: Vectors, wanted_L: NDArray[np.bool_]) -> Bounds:
    """Which numbers the products of wanted rows with vectors are not above.

    Args:
        wanted_L: as `wanted` gives it.
    """
    found = room(len(vectors.exact_VD), len(wanted_L))
    _upper(codes, vectors.asked, wanted_L, found.high_VL, found.peak_VG)
    return found


def wanted(is_wanted_J: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows may be found, and as many that may not as it takes to fill groups (L,)."""
    rest = -len(is_wanted_J) % LANES
    return np.concatenate([is_wanted_J, np.zeros(rest, np.bool_)]) if rest else is_wanted_J


def room(vectors: int, rows: int) -> Bounds:
    """Bounds to be written."""
    return Bounds(np.empty((vectors, rows), np.float32), np.empty((vectors, -(-rows // LANES)), np.float32))


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
        off_J[j] = np.sqrt(off) * (1 + ROUNDING)
        longest = max(longest, np.sqrt(length) * (1 + ROUNDING))
    return longest


@njit(cache=True, nogil=True)
def _upper(codes, asked, wanted_L, high_VL, peak_VG):  # type: ignore[no-untyped-def]
    """Bounds by all bytes. Rows are read once for three vectors."""
    dim, base = codes.code_JD.shape[1], codes.code_JD.ctypes.data
    many = len(asked.scale_V)
    word_W = wanted_L.view(np.uint64)
    for first in range(0, many, 3):
        v, w = min(first + 1, many - 1), min(first + 2, many - 1)
        at = asked.code_WH.ctypes.data + first * dim * 2
        one, two, three = asked.scale_V[first], asked.scale_V[v], asked.scale_V[w]
        a_length, b_length, c_length = asked.length_V[first], asked.length_V[v], asked.length_V[w]
        a_more, b_more, c_more = margin(codes, asked, first), margin(codes, asked, v), margin(codes, asked, w)
        for g in range(peak_VG.shape[1]):
            a_peak = b_peak = c_peak = np.float32(LOWEST)
            if word_W[2 * g] | word_W[2 * g + 1]:
                for row in range(LANES * g, LANES * g + LANES):
                    a_high = b_high = c_high = np.float32(LOWEST)
                    if wanted_L[row]:
                        a, b, c = three_products(base + row * dim, at, dim)
                        scale, off = codes.scale_J[row], codes.off_J[row]
                        a_high = np.float32(a) * (scale * one) + (a_length * off + a_more)
                        b_high = np.float32(b) * (scale * two) + (b_length * off + b_more)
                        c_high = np.float32(c) * (scale * three) + (c_length * off + c_more)
                    # The first is written last: where there are fewer than three, the others' places are the last one's.
                    high_VL[w, row], high_VL[v, row], high_VL[first, row] = c_high, b_high, a_high
                    a_peak, b_peak, c_peak = max(a_peak, a_high), max(b_peak, b_high), max(c_peak, c_high)
            peak_VG[w, g], peak_VG[v, g], peak_VG[first, g] = c_peak, b_peak, a_peak


@njit(cache=True, nogil=True, forceinline=True)
def margin(codes, asked, v):  # type: ignore[no-untyped-def]
    """What a product in bytes may be off beside what depends on the row."""
    return (asked.off_V[v] + np.float32(ROUNDING) * asked.length_V[v]) * codes.longest


@njit(cache=True, nogil=True, forceinline=True)
def _about(codes, asked, v, margin, row):  # type: ignore[no-untyped-def]
    """The product of a row with a vector, and how far it may be off."""
    dim = codes.code_JD.shape[1]
    (total,) = one_product(codes.code_JD.ctypes.data + row * dim, asked.code_WH.ctypes.data + v * dim * 2, dim)
    about = np.float32(total) * (codes.scale_J[row] * asked.scale_V[v])
    return about, asked.length_V[v] * codes.off_J[row] + margin


@njit(cache=True, nogil=True)
def nearest(bits_TD, text_J, order_J, codes, exact_D, asked, v, row_P, high_P, peak_G, limit):  # type: ignore[no-untyped-def]
    """Keys of rows among which the `limit` with the largest products are, and not many more.

    Args:
        bits_TD, text_J: all halves, and where each row's are.
        order_J: what settles ties, each number once.
        codes: all bytes.
        exact_D, asked, v: the vector, and which it is of those asked.
        row_P: rows that may be in the list; empty = the places in `high_P` are the rows.
        high_P, peak_G: a row of `Bounds`.
        limit: K.
    """
    loose, bar, own = margin(codes, asked, v), np.float32(LOWEST), len(row_P) == 0
    lead_L = leading(high_P, peak_G, _LEADING * limit)
    if len(lead_L) > limit:
        low_L = np.empty(len(lead_L), np.float32)
        for n in range(len(lead_L)):
            _coming(codes, row_P, own, lead_L, n)
            about, off = _about(codes, asked, v, loose, lead_L[n] if own else row_P[lead_L[n]])
            low_L[n] = about - off
        bar = np.partition(low_L, len(low_L) - limit)[len(low_L) - limit]
    place_N = reaching(high_P, peak_G, bar)
    low_N, high_N, found = np.empty(len(place_N), np.float32), np.empty(len(place_N), np.float32), 0
    for n in range(len(place_N)):
        _coming(codes, row_P, own, place_N, n)
        row = place_N[n] if own else row_P[place_N[n]]
        about, off = _about(codes, asked, v, loose, row)
        if about + off >= bar:
            low_N[found], high_N[found], place_N[found] = about - off, about + off, row
            found += 1
    if found > limit:
        bar = np.partition(low_N[:found], found - limit)[found - limit]
    key_K, value_1, kept = np.empty(found, np.int64), np.empty(1, np.float32), 0
    for n in range(found):
        if high_N[n] >= bar:
            row = place_N[n]
            value_1[0] = dot(bits_TD, text_J[row], exact_D)
            key_K[kept] = _key(value_1, order_J[row])
            kept += 1
    return key_K[:kept].copy()


@njit(cache=True, nogil=True, forceinline=True)
def _coming(codes, row_P, own, place_N, n):  # type: ignore[no-untyped-def]
    """Ask for the bytes of a row that will be read soon."""
    if n + _AHEAD < len(place_N):
        row = place_N[n + _AHEAD] if own else row_P[place_N[n + _AHEAD]]
        dim = codes.code_JD.shape[1]
        for at in range(0, dim, _LINE):
            prefetched(codes.code_JD.ctypes.data + row * dim + at)


@njit(cache=True, nogil=True)
def largest(value_P, peak_G, order_P, limit):  # type: ignore[no-untyped-def]
    """Keys of values among which the `limit` largest are, and not many more; as `nearest`, of values that are exact."""
    place_N = leading(value_P, peak_G, limit)
    key_K, value_1 = np.empty(len(place_N), np.int64), np.empty(1, np.float32)
    for n in range(len(place_N)):
        value_1[0] = value_P[place_N[n]]
        key_K[n] = _key(value_1, order_P[place_N[n]])
    return key_K


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def peaks(value_P):  # type: ignore[no-untyped-def]
    """The largest value of each group of sixteen; there is no NaN."""
    lowest = np.float32(LOWEST)
    peak_G, whole = np.full(-(-len(value_P) // LANES), lowest, np.float32), len(value_P) // LANES
    for g in range(whole):
        most = lowest
        for lane in range(LANES):
            value = value_P[g * LANES + lane]
            most = value if value > most else most
        peak_G[g] = most
    for p in range(whole * LANES, len(value_P)):
        peak_G[-1] = max(peak_G[-1], value_P[p])
    return peak_G


@njit(cache=True, nogil=True)
def leading(value_P, peak_G, count):  # type: ignore[no-untyped-def]
    """Where the largest `count` values are and those that tie with them, and not many more; ascending. `LOWEST` is none."""
    # So many groups have a peak as large: so many values are, and few more where groups are mixed.
    place_N = reaching(value_P, peak_G, _edge(peak_G, count))
    if len(place_N) > _FEW * count:
        value_N = np.empty(len(place_N), np.float32)
        for n in range(len(place_N)):
            value_N[n] = value_P[place_N[n]]
        least, found = _edge(value_N, count), 0
        for n in range(len(place_N)):
            place_N[found] = place_N[n]
            found += value_N[n] >= least
        place_N = place_N[:found]
    return place_N


@njit(cache=True, nogil=True)
def _edge(value_N, count):  # type: ignore[no-untyped-def]
    """A number that at least `count` of the values reach, and not many more; the least that a float32 can hold if need be."""
    low, high, some = np.float32(np.inf), np.float32(LOWEST), 0
    for value in value_N:
        if value > np.float32(LOWEST):
            low, high, some = min(low, value), max(high, value), some + 1
    if some <= count:
        return np.float32(LOWEST)
    count_B, per = np.zeros(_BINS, np.int64), np.float32(_BINS - 1) / max(high - low, np.float32(1e-30))
    for value in value_N:
        if value > np.float32(LOWEST):
            count_B[np.int32((value - low) * per)] += 1
    b, above = _BINS, 0
    while b > 0 and above < count:
        b -= 1
        above += count_B[b]
    while b > 0:
        edge, above = low + (np.float32(b) - np.float32(0.25)) / per, 0  # of a bin, rounded to the safe side
        for value in value_N:
            above += value >= edge
        if above >= count:
            return edge
        b -= 1
    return low


@njit(cache=True, nogil=True)
def reaching(value_P, peak_G, least):  # type: ignore[no-untyped-def]
    """Where the values are that are not below `least`, ascending; only groups that have one are read. `LOWEST` is none."""
    least = max(least, np.nextafter(np.float32(LOWEST), np.float32(0)))
    groups = 0
    for peak in peak_G:
        groups += peak >= least
    place_N, found = np.empty(groups * LANES + 1, np.int64), 0
    for g in range(len(peak_G)):
        if peak_G[g] >= least:
            for p in range(g * LANES, min(g * LANES + LANES, len(value_P))):  # without a branch, often foreseen wrongly
                place_N[found] = p
                found += value_P[p] >= least
    return place_N[:found]


@njit(cache=True, nogil=True, forceinline=True)
def _key(value_1, order):  # type: ignore[no-untyped-def]
    """An int64 that sorts by value, largest first, then by order, which its low half is."""
    value_1[0] += np.float32(0)  # -0 is 0
    bits_ = np.int64(value_1.view(np.int32)[0])
    rising = bits_ if bits_ >= 0 else bits_ ^ np.int64(0x7FFFFFFF)
    return ((-rising) << np.int64(32)) | np.int64(order)
