"""The heads of vectors: their first principal components, in bytes. A scan of heads leaves a few rows in a hundred to look at.

Texts of one trade lie close together: a sixth of the principal components of a job board's embeddings holds most of their
length. With an orthonormal basis B of those, and the rest r(x) = x - B'Bx,

    q.d = Bq.Bd + r(q).r(d), so that q.d <= Bq.Bd + |r(q)| |r(d)|,

and the length of each row's rest is known. The bound holds for any vectors and any such basis, so that rows may come and go
without a new one; how many rows it leaves out is what the basis is chosen for.

Rows stand sixteen abreast (int8.py), so that a row is not read alone: where few are wanted, all bytes of those are quicker.

Legend: J rows, L the same filled up to G groups of sixteen, P pairs of H numbers, V vectors that ask, T texts,
D embedding size, H length of a head, S rows of a sample.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritower.mapped import opened, written
from tritower.numba_cache import njit
from tritower.recommend import scan
from tritower.recommend.int8 import BOUNDED, LANES, abreast
from tritower.recommend.scan import Bounds, Floats, Ints, Vectors

WIDTH = 128
_SAMPLE, _ASKING, _USEFUL = 8192, 32, 0.25
_CHUNK = 8192  # whole groups
_one, _two, _three = BOUNDED
_FILES = ("abreast", "scale", "off", "rest", "basis")
_ORTHONORMAL = 1e-9  # the norm of BB' - I is smaller; what that moves in a product is far below `scan.ROUNDING`


class Heads(NamedTuple):
    """First components of rows.

    Attributes:
        code_GP: the heads in bytes, as `int8.abreast` gives them.
        scale_L, off_L: as in `scan.Codes`; zeros behind the last row, and in `rest_L`.
        rest_L: bounds of the lengths of what the heads lack.
        basis_HD: orthonormal rows, to a part in a billion.
        longest: bounds the length of a head as coded.
    """

    code_GP: NDArray[np.int8]
    scale_L: Floats
    off_L: Floats
    rest_L: Floats
    basis_HD: NDArray[np.float64]
    longest: np.float32


def made(bits_TD: NDArray[np.uint16], row_J: Ints, width: int = WIDTH) -> Heads | None:
    """Heads of some rows of a matrix of halves, of their own basis; None where they would leave too many rows.

    Args:
        width: H.
    """
    if 2 * width > bits_TD.shape[1] or not len(row_J):
        return None
    some_S = row_J[:: -(-len(row_J) // _SAMPLE)]
    sample_SD = _wide(bits_TD, some_S)
    basis_HD = principal(sample_SD, width)
    sample = of_basis(basis_HD, bits_TD, some_S)
    return of_basis(basis_HD, bits_TD, row_J) if left(sample, sample_SD) <= _USEFUL else None


def principal(sample_SD: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """The basis (H, D) in which the sample's heads are the longest."""
    _, vector_DD = np.linalg.eigh(sample_SD.T @ sample_SD)
    return np.ascontiguousarray(vector_DD[:, ::-1][:, :width].T)


def left(heads: Heads, sample_SD: NDArray[np.float64]) -> float:
    """The share of rows that a search leaves, on average over some rows that search for a hundredth of them."""
    asking = scan.vectors(list(sample_SD[:: -(-len(sample_SD) // _ASKING)]))
    high_VL = bounded(heads, asking, scan.wanted(np.ones(len(sample_SD), np.bool_))).high_VL
    value_VS = asking.exact_VD @ sample_SD.T
    bar_V = np.quantile(value_VS, 0.99, axis=1)
    return float((high_VL[:, : len(sample_SD)] >= bar_V[:, None]).mean())


def of_basis(basis_HD: NDArray[np.float64], bits_TD: NDArray[np.uint16], row_J: NDArray[np.integer[Any]]) -> Heads:
    """Heads of some rows of a matrix of halves."""
    count, width = len(row_J), len(basis_HD)
    size, longest = -(-count // LANES) * LANES, 0.0
    code_GP = np.empty((size // LANES, -(-width // 2), 2 * LANES), np.int8)
    scale_L, off_L, rest_L = np.zeros((3, size), np.float32)
    assert np.linalg.norm(basis_HD @ basis_HD.T - np.eye(width)) < _ORTHONORMAL
    for start in range(0, count, _CHUNK):
        part = slice(start, min(start + _CHUNK, count))
        wide_SD = _wide(bits_TD, row_J[part])
        head_SH = wide_SD @ basis_HD.T
        scale_L[part] = np.abs(head_SH).max(axis=1) / 127
        step_S1 = np.maximum(scale_L[part], np.float32(1e-30)).astype(np.float64)[:, None]
        code_SH = np.clip(np.rint(head_SH / step_S1), -127, 127).astype(np.int8)
        code_GP[start // LANES : -(-part.stop // LANES)] = abreast(code_SH)
        about_SH = code_SH * scale_L[part].astype(np.float64)[:, None]
        off_L[part] = _lengths(head_SH - about_SH) * (1 + scan.ROUNDING)
        rest_L[part] = rests(wide_SD, head_SH)
        longest = max(longest, _lengths(about_SH).max() * (1 + scan.ROUNDING))
    return frozen(Heads(code_GP, scale_L, off_L, rest_L, basis_HD, np.float32(longest)))


def updated(heads: Heads, number_N: Ints, bits_ND: NDArray[np.uint16], size: int) -> Heads:
    """With other vectors under some numbers, new ones among them; of the same basis."""
    new, groups = of_basis(heads.basis_HD, bits_ND, np.arange(len(bits_ND))), -(-size // LANES)
    code_GP = np.zeros((groups, *heads.code_GP.shape[1:]), np.int8)
    code_GP[: len(heads.code_GP)] = heads.code_GP
    (to_G, to_L), (from_G, from_L) = (np.divmod(one, LANES) for one in (number_N, np.arange(len(number_N))))
    own_GPL2, new_GPL2 = (code.reshape(*code.shape[:2], LANES, 2) for code in (code_GP, new.code_GP))
    own_GPL2[to_G, :, to_L] = new_GPL2[from_G, :, from_L]
    float_3L = np.zeros((3, groups * LANES), np.float32)
    for out_L, old_L, new_L in zip(float_3L, heads[1:4], new[1:4], strict=True):
        out_L[: len(old_L)] = old_L
        out_L[number_N] = new_L[: len(number_N)]
    scale_L, off_L, rest_L = float_3L
    return frozen(Heads(code_GP, scale_L, off_L, rest_L, heads.basis_HD, max(heads.longest, new.longest)))


def frozen(heads: Heads) -> Heads:
    """The same, not to be written to: kernels are compiled for such arrays."""
    for array in heads[:-1]:
        array.flags.writeable = False
    return heads


def save(folder: Path, heads: Heads) -> float:
    """Write the files `heads_*`; what `read` wants to know beside them."""
    for name, array in zip(_FILES, heads[:-1], strict=True):
        written(folder, f"heads_{name}", array)
    return float(heads.longest)


def read(folder: Path, longest: float) -> Heads:
    """Map what `save` wrote."""
    code_GP, scale_L, off_L, rest_L, basis_HD = (opened(folder, f"heads_{name}") for name in _FILES)
    return Heads(code_GP, scale_L, off_L, rest_L, basis_HD, np.float32(longest))


def rests(wide_SD: NDArray[np.float64], head_SH: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bounds of the lengths of what heads lack."""
    whole_S, own_S = _lengths(wide_SD) ** 2, _lengths(head_SH) ** 2
    rest_S: NDArray[np.float64] = np.sqrt(np.maximum(whole_S - own_S, 0) + 2 * _ORTHONORMAL * whole_S)
    rest_S *= 1 + scan.ROUNDING
    return rest_S


def bounded(heads: Heads, vectors: Vectors, wanted_L: NDArray[np.bool_]) -> Bounds:
    """Which numbers the products of wanted rows with vectors are not above; as `scan.bounded`, by heads."""
    wide_VD = vectors.exact_VD.astype(np.float64)
    head_VH = wide_VD @ heads.basis_HD.T
    even_VH = np.pad(head_VH, ((0, 0), (0, head_VH.shape[1] % 2)))
    asked, found = scan.asking(even_VH, rests(wide_VD, head_VH)), scan.room(len(wide_VD), len(wanted_L))
    _upper(heads, asked, wanted_L, found.high_VL, found.peak_VG)
    return found


@njit(cache=True, nogil=True)
def _upper(heads, asked, wanted_L, high_VL, peak_VG):  # type: ignore[no-untyped-def]
    many, groups, pairs = len(asked.scale_V), peak_VG.shape[1], heads.code_GP.shape[1]
    word_W = wanted_L.view(np.uint64)
    factor_V4 = np.empty((many, 4), np.float32)
    for v in range(many):
        factor_V4[v, 0], factor_V4[v, 1], factor_V4[v, 2] = asked.scale_V[v], asked.length_V[v], asked.rest_V[v]
        factor_V4[v, 3] = (asked.off_V[v] + np.float32(scan.ROUNDING) * asked.length_V[v]) * heads.longest
    lowest, step = np.float32(scan.LOWEST), 4 * LANES
    scale, off, rest = heads.scale_L.ctypes.data, heads.off_L.ctypes.data, heads.rest_L.ctypes.data
    for first in range(0, many, 3):
        code, at, by = heads.code_GP.ctypes.data, asked.code_WH[first:].ctypes.data, factor_V4[first:].ctypes.data
        out, stride, is_wanted = high_VL[first:].ctypes.data, 4 * high_VL.shape[1], wanted_L.ctypes.data
        together = min(3, many - first)
        for g in range(groups):
            if not word_W[2 * g] | word_W[2 * g + 1]:
                for v in range(first, first + together):
                    peak_VG[v, g] = lowest
                continue
            rows = code + g * pairs * 2 * LANES
            one, two, three = scale + g * step, off + g * step, rest + g * step
            here, there = is_wanted + g * LANES, out + g * step
            if together == 3:
                a, b, c = _three(rows, at, pairs, by, one, two, three, here, lowest, there, stride)
                peak_VG[first, g], peak_VG[first + 1, g], peak_VG[first + 2, g] = a, b, c
            elif together == 2:
                a, b = _two(rows, at, pairs, by, one, two, three, here, lowest, there, stride)
                peak_VG[first, g], peak_VG[first + 1, g] = a, b
            else:
                (a,) = _one(rows, at, pairs, by, one, two, three, here, lowest, there, stride)
                peak_VG[first, g] = a


def _wide(bits_TD: NDArray[np.uint16], row_S: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    wide_SD: NDArray[np.float64] = bits_TD[row_S].view(np.float16).astype(np.float64)
    return wide_SD


def _lengths(value_SH: NDArray[np.float64]) -> NDArray[np.float64]:
    length_S: NDArray[np.float64] = np.sqrt(np.einsum("sh,sh->s", value_SH, value_SH))
    return length_S
