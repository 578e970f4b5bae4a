"""Half-precision vectors in numba: the embedding matrix is used as it lies on disk, never copied to float32.

numba has no float16 arithmetic on a CPU, but LLVM converts sixteen halves in one instruction, so the matrix is passed as
its uint16 bits and converted in registers.

The product of two halves is a multiple of 2^-48, so a float64 holds a sum of such products of unit vectors exactly: the order
of the sum, which the compiler picks to suit the processor, does not matter, and cosines are equal to the bit on every machine.
"""

from typing import Any

import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import float32, float64, types
from numba.extending import intrinsic

from tritower.numba_cache import njit

Array = npt.NDArray[Any]


@intrinsic
def _half_to_float(typing_context: Any, bits: Any) -> Any:
    """The float32 value of the IEEE 754 half whose bits are given as uint16; exact."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), codegen


half_to_float: Any = _half_to_float  # its checker's signature holds the typing context, callers never pass it


# Matrices are passed with a row number: a row taken as a view would be reference-counted, which costs as much as a product.


@njit(cache=True, fastmath=True)
def dot_half(matrix_TD: Array, left: Any, right: Any) -> Any:
    """Scalar product of two rows of a matrix of halves (uint16 bits); the exact sum as float32."""
    total = float64(0.0)
    for d in range(matrix_TD.shape[1]):
        total += float64(half_to_float(matrix_TD[left, d])) * float64(half_to_float(matrix_TD[right, d]))
    return float32(total)


@njit(cache=True, fastmath=True, forceinline=True)
def products(matrix_TD: Array, one: Any, two: Any, vector_HD: Array, held: Any, out_2H: Array) -> None:
    """Scalar products of two rows of halves (uint16 bits) with the first `held` vectors of halves, widened to float32.

    Four vectors at a time: each row is converted once for four products, each vector read once for two, and eight sums keep the
    arithmetic units busy. `vector_HD` and `out_2H` need three entries more than are held; what is written there means nothing.
    The value of a product does not depend on the other row.
    """
    for h in range(0, held, 4):
        a = b = c = e = p = q = r = s = float64(0.0)
        for d in range(matrix_TD.shape[1]):
            x, y = float64(half_to_float(matrix_TD[one, d])), float64(half_to_float(matrix_TD[two, d]))
            k, m, n, o = vector_HD[h, d], vector_HD[h + 1, d], vector_HD[h + 2, d], vector_HD[h + 3, d]
            a += x * k
            p += y * k
            b += x * m
            q += y * m
            c += x * n
            r += y * n
            e += x * o
            s += y * o
        out_2H[0, h], out_2H[0, h + 1], out_2H[0, h + 2], out_2H[0, h + 3] = a, b, c, e
        out_2H[1, h], out_2H[1, h + 1], out_2H[1, h + 2], out_2H[1, h + 3] = p, q, r, s


@njit(cache=True, fastmath=True, forceinline=True)
def widen(matrix_TD: Array, row: Any, out_HD: Array, h: Any) -> None:
    """Write a row of halves (uint16 bits) into row `h` of a float32 matrix."""
    for d in range(matrix_TD.shape[1]):
        out_HD[h, d] = half_to_float(matrix_TD[row, d])


@njit(cache=True, fastmath=True, forceinline=True)
def dot(matrix_TD: Array, row: Any, vector_D: Array) -> Any:
    """Scalar product of a row of halves (uint16 bits) and a vector of halves that was widened; the exact sum as float32."""
    total = float64(0.0)
    for d in range(matrix_TD.shape[1]):
        total += float64(half_to_float(matrix_TD[row, d])) * float64(vector_D[d])
    return float32(total)
