"""The heads of vectors: their first principal components, in bytes. A scan of heads leaves a few rows in a hundred to look at.

Texts of one trade lie close together: a sixth of the principal components of a job board's embeddings holds most of their
length. With an orthonormal basis B of those, and the rest r(x) = x - B'Bx,

    q.d = Bq.Bd + r(q).r(d), so that q.d <= Bq.Bd + |r(q)| |r(d)|,

and the length of each row's rest is known. The bound holds for any vectors and any such basis, so that rows may come and go
without a new one; how many rows it leaves out is what the basis is chosen for.

Legend: J rows, V vectors that ask, R rows that may be found, T texts, D embedding size, H length of a head, S rows of a sample.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritower.mapped import opened, put, written
from tritower.recommend import scan
from tritower.recommend.scan import Codes, Floats, Ints, Vectors

WIDTH = 128
_SAMPLE, _ASKING, _USEFUL = 8192, 32, 0.25
_CHUNK = 8192
_FILES = ("code", "scale", "off", "rest", "basis")
_ORTHONORMAL = 1e-9  # the norm of BB' - I is smaller; what that moves in a product is far below `scan.ROUNDING`


class Heads(NamedTuple):
    """First components of rows.

    Attributes:
        codes: the heads in bytes.
        rest_J: bounds of the lengths of what the heads lack.
        basis_HD: orthonormal rows, to a part in a billion.
    """

    codes: Codes
    rest_J: Floats
    basis_HD: NDArray[np.float64]


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
    high_VS = bounded(heads, asking, np.arange(len(sample_SD)))
    value_VS = asking.exact_VD @ sample_SD.T
    bar_V = np.quantile(value_VS, 0.99, axis=1)
    return float((high_VS >= bar_V[:, None]).mean())


def of_basis(basis_HD: NDArray[np.float64], bits_TD: NDArray[np.uint16], row_J: NDArray[np.integer[Any]]) -> Heads:
    """Heads of some rows of a matrix of halves."""
    count, width = len(row_J), len(basis_HD)
    code_JH, longest = np.empty((count, width), np.int8), 0.0
    scale_J, off_J, rest_J = np.empty((3, count), np.float32)
    assert np.linalg.norm(basis_HD @ basis_HD.T - np.eye(width)) < _ORTHONORMAL
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        wide_SD = _wide(bits_TD, row_J[part])
        head_SH = wide_SD @ basis_HD.T
        scale_J[part] = np.abs(head_SH).max(axis=1) / 127
        step_S1 = np.maximum(scale_J[part], np.float32(1e-30)).astype(np.float64)[:, None]
        code_JH[part] = np.clip(np.rint(head_SH / step_S1), -127, 127)
        about_SH = code_JH[part] * scale_J[part].astype(np.float64)[:, None]
        off_J[part] = _lengths(head_SH - about_SH) * (1 + scan.ROUNDING)
        rest_J[part] = rests(wide_SD, head_SH)
        longest = max(longest, _lengths(about_SH).max() * (1 + scan.ROUNDING))
    return frozen(Heads(scan.of_arrays((code_JH, scale_J, off_J), longest), rest_J, basis_HD))


def updated(heads: Heads, number_N: Ints, bits_ND: NDArray[np.uint16], size: int) -> Heads:
    """With other vectors under some numbers, new ones among them; of the same basis."""
    new = of_basis(heads.basis_HD, bits_ND, np.arange(len(bits_ND)))
    code = (put(old, number_N, one, size) for old, one in zip(heads.codes.arrays, new.codes.arrays, strict=True))
    codes = scan.of_arrays(code, max(heads.codes.longest, new.codes.longest))
    return frozen(heads._replace(codes=codes, rest_J=put(heads.rest_J, number_N, new.rest_J, size)))


def frozen(heads: Heads) -> Heads:
    """The same, not to be written to: kernels are compiled for such arrays."""
    scan.frozen(heads.codes)
    heads.rest_J.flags.writeable = False
    return heads


def save(folder: Path, heads: Heads) -> float:
    """Write the files `heads_*`; what `read` wants to know beside them."""
    for name, array in zip(_FILES, (*heads.codes.arrays, heads.rest_J, heads.basis_HD), strict=True):
        written(folder, f"heads_{name}", array)
    return float(heads.codes.longest)


def read(folder: Path, longest: float) -> Heads:
    """Map what `save` wrote."""
    *code, rest_J, basis_HD = (opened(folder, f"heads_{name}") for name in _FILES)
    return Heads(scan.of_arrays(code, longest), rest_J, basis_HD)


def rests(wide_SD: NDArray[np.float64], head_SH: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bounds of the lengths of what heads lack."""
    whole_S, own_S = _lengths(wide_SD) ** 2, _lengths(head_SH) ** 2
    rest_S: NDArray[np.float64] = np.sqrt(np.maximum(whole_S - own_S, 0) + 2 * _ORTHONORMAL * whole_S)
    rest_S *= 1 + scan.ROUNDING
    return rest_S


def bounded(heads: Heads, vectors: Vectors, row_R: Ints) -> Floats:
    """Which numbers (V, R) the products of rows with vectors are not above."""
    wide_VD = vectors.exact_VD.astype(np.float64)
    head_VH = wide_VD @ heads.basis_HD.T
    asked = scan.asking(head_VH, rests(wide_VD, head_VH))
    high_VR = np.empty((len(wide_VD), len(row_R)), np.float32)
    scan.upper(heads.codes, heads.rest_J, asked, row_R, high_VR)
    return high_VR


def _wide(bits_TD: NDArray[np.uint16], row_S: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    wide_SD: NDArray[np.float64] = bits_TD[row_S].view(np.float16).astype(np.float64)
    return wide_SD


def _lengths(value_SH: NDArray[np.float64]) -> NDArray[np.float64]:
    length_S: NDArray[np.float64] = np.sqrt(np.einsum("sh,sh->s", value_SH, value_SH))
    return length_S
