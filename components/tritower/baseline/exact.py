"""Arithmetic that gives equal bits on every machine.

A matrix library adds up in an order that depends on the processor and on the number of threads, and numpy's exponential has a
version for each generation of processors: results differ in the last bit, and trees that are split on them differ as trees.
Rounding the results would only make that rarer: values near a boundary still fall on either side. So the operands are rounded
here, to so few bits that no sum of products has to be: an exact sum has one value, whatever the order. What cannot be exact
uses only operations that IEEE 754 rounds correctly, one element at a time: + - * / and the square root.

Legend: N rows, D columns of the data, K terms of a sum, M columns, W width of a small matrix.
"""

from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[Any]
_BITS = 53  # of a float64's significand: whole numbers up to 2^53 are exact
_CHUNK = 8_192
_TURNS = 20
_SWEEPS = 20
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.42860682030941723212e-6  # the first has 20 bits: its multiples up to 2^33 are exact


def fixed(values: Matrix, bits: int) -> Floats:
    """`values` to the nearest multiple of 2^-bits."""
    rounded: Floats = np.rint(np.asarray(values, np.float64) * 2.0**bits)
    rounded *= 2.0**-bits
    return rounded


def product(left_NK: Matrix, right_KM: Matrix) -> Floats:
    """The matrix product of the operands, each rounded to some 22 bits below its largest value (for K of some hundreds)."""
    terms = left_NK.shape[-1]
    each = (_BITS - _exponent(terms)) // 2
    return fixed(left_NK, each - _exponent(left_NK)) @ fixed(right_KM, each - _exponent(right_KM))


def mean(values_ND: Matrix) -> Floats:
    """The mean of each column."""
    bits = _BITS - _exponent(len(values_ND)) - _exponent(values_ND)
    total_D = np.zeros(values_ND.shape[1])
    for start in range(0, len(values_ND), _CHUNK):
        total_D += fixed(values_ND[start : start + _CHUNK], bits).sum(axis=0)
    return total_D / len(values_ND)


def moments(values_ND: Matrix, centre_D: Floats) -> Floats:
    """Sums of products of each two columns, (D, D), after `centre_D` is taken off."""
    bits = (_BITS - _exponent(len(values_ND))) // 2 - max(_exponent(values_ND), _exponent(centre_D)) - 1
    total_DD = np.zeros((len(centre_D), len(centre_D)))
    for start in range(0, len(values_ND), _CHUNK):
        part = fixed(values_ND[start : start + _CHUNK] - centre_D, bits)
        total_DD += part.T @ part
    return total_DD


def principal(moment_DD: Floats, count: int) -> Floats:
    """The `count` leading eigenvectors of a symmetric matrix without negative eigenvalues, (D, count).

    Subspace iteration from a fixed start in a space of more than twice the width, then the eigenvectors within it. Where
    the matrix has fewer directions than are asked for, the rest are zero: there is nothing to see along them, and a library
    would return what its rounding left over.
    """
    size = len(moment_DD)
    width = min(size, 2 * count + 8)
    start = np.random.default_rng(0).integers(-(2**20), 2**20, (size, width))
    basis_DW = _orthonormal(start.astype(np.float64))
    for _ in range(_TURNS):
        basis_DW = _orthonormal(product(moment_DD, basis_DW))
    small_WW = product(basis_DW.T, product(moment_DD, basis_DW))
    value_W, vector_WW = eigen((small_WW + small_WW.T) / 2)
    leading = np.argsort(-value_W, kind="stable")[:count]
    return product(basis_DW, vector_WW[:, leading])


def eigen(matrix_WW: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues (W,), in no order, and eigenvectors (W, W) of a symmetric matrix: Jacobi's method, W / 2 rotations at a time.

    The rotations of one turn share no row or column, so each is plain arithmetic on elements (Golub and Van Loan, Matrix
    Computations, 8.5).
    """
    size = len(matrix_WW) + len(matrix_WW) % 2  # a row and column of zeros make an odd matrix even
    a = np.zeros((size, size))
    a[: len(matrix_WW), : len(matrix_WW)] = matrix_WW
    vectors = np.eye(size)
    seats = np.arange(size)
    limit = np.abs(a).max(initial=0.0) * 2.0**-50
    for _ in range(_SWEEPS):
        if np.abs(a - np.diag(np.diag(a))).max(initial=0.0) <= limit:
            break
        for _ in range(size - 1):  # a round robin: every two meet once
            p, q = seats[: size // 2], seats[size // 2 :][::-1]
            cosine, sine = _rotation(a[p, p], a[q, q], a[p, q])
            for matrix in (a.T, a, vectors):  # rows of a (columns of a.T), columns of a
                left, right = matrix[:, p], matrix[:, q]
                matrix[:, p], matrix[:, q] = cosine * left - sine * right, sine * left + cosine * right
            seats = np.concatenate([seats[:1], seats[-1:], seats[1:-1]])
    return np.diag(a)[: len(matrix_WW)].copy(), vectors[: len(matrix_WW), : len(matrix_WW)]


def sigmoid(values: Matrix) -> Floats:
    """1 / (1 + e^-x), within some 1e-16 of the true value."""
    x = np.clip(np.asarray(values, np.float64), -700, 700)
    power = np.rint(x * -1.4426950408889634)  # of two in e^-x; what is left is at most ln(2) / 2
    rest = -x - power * _LN2_HIGH - power * _LN2_LOW
    total = np.ones_like(rest)
    for divisor in range(14, 0, -1):  # the series of e^x by Horner's rule
        total = 1 + rest / divisor * total
    result: Floats = 1 / (1 + np.ldexp(total, power.astype(np.int64)))
    return result


def log_odds(share: float) -> float:
    """log(share / (1 - share)); the library of decimal numbers rounds it correctly."""
    exact = Decimal(share)
    return float((exact / (1 - exact)).ln())


def _exponent(values: Matrix | int) -> int:
    """The smallest e with |values| <= 2^e; 0 for zeros."""
    largest = float(np.abs(values).max(initial=0.0)) if isinstance(values, np.ndarray) else float(values)
    fraction, exponent = np.frexp(largest)
    return int(exponent) - int(fraction == 0.5)


def _orthonormal(matrix_DW: Floats) -> Floats:
    """Columns of length 1 at right angles (Gram and Schmidt, twice); one that the others before it span is zero."""
    out_DW = np.zeros_like(matrix_DW)
    for w in range(matrix_DW.shape[1]):
        column_D1 = matrix_DW[:, w : w + 1]
        before = _length(column_D1)
        for _ in range(2):
            seen = out_DW[:, :w]
            column_D1 = column_D1 - product(seen, product(seen.T, column_D1)) if w else column_D1
        length = _length(column_D1)
        if length > before * 2.0**-16:  # below it is what the rounding of `product` leaves
            out_DW[:, w : w + 1] = column_D1 / length
    return out_DW


def _length(column_D1: Floats) -> float:
    return float(np.sqrt(product(column_D1.T, column_D1)[0, 0]))


def _rotation(first: Floats, second: Floats, both: Floats) -> tuple[Floats, Floats]:
    """Cosine and sine that make the off-diagonal element `both` zero; no rotation where it is."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = (second - first) / (2 * both)
        tangent = np.where(ratio < 0, -1.0, 1.0) / (np.abs(ratio) + np.sqrt(1 + ratio * ratio))
    tangent = np.where(both == 0, 0.0, tangent)
    cosine = 1 / np.sqrt(1 + tangent * tangent)
    return cosine, tangent * cosine
