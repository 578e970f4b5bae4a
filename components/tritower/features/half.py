"""Half-precision vectors in numba: the embedding matrix is used as it lies on disk, never copied to float32.

numba has no float16 arithmetic on a CPU, but LLVM converts sixteen halves in one instruction, so the matrix is passed as
its uint16 bits and converted in registers.
"""

from typing import Any

import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import float32, njit, types
from numba.extending import intrinsic

Array = npt.NDArray[Any]


@intrinsic
def _half_to_float(typing_context: Any, bits: Any) -> Any:
    """The float32 value of the IEEE 754 half whose bits are given as uint16; exact."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), codegen


half_to_float: Any = _half_to_float  # its checker's signature holds the typing context, callers never pass it


@njit(cache=True, fastmath=True)
def dot_half(left_D: Array, right_D: Array) -> Any:
    """Scalar product of two half vectors given as uint16 bits, summed in float32."""
    total = float32(0.0)
    for d in range(left_D.shape[0]):
        total += half_to_float(left_D[d]) * half_to_float(right_D[d])
    return total


@njit(cache=True, fastmath=True)
def dot_mixed(left_D: Array, right_D: Array) -> Any:
    """Scalar product of a half vector (uint16 bits) and a float32 vector."""
    total = float32(0.0)
    for d in range(left_D.shape[0]):
        total += half_to_float(left_D[d]) * right_D[d]
    return total


@njit(cache=True, fastmath=True)
def products(candidate_D: Array, vector_HD: Array, held: Any, out_H: Array) -> None:
    """Scalar products of a half vector (uint16 bits) with the first `held` float32 vectors, four at a time.

    The candidate is converted once for four products, and four sums keep the arithmetic units busy. Both `vector_HD` and
    `out_H` need three rows more than are held; what is written there means nothing.
    """
    h = 0
    while h + 1 < held:
        a = b = c = e = float32(0.0)
        for d in range(candidate_D.shape[0]):
            x = half_to_float(candidate_D[d])
            a += x * vector_HD[h, d]
            b += x * vector_HD[h + 1, d]
            c += x * vector_HD[h + 2, d]
            e += x * vector_HD[h + 3, d]
        out_H[h], out_H[h + 1], out_H[h + 2], out_H[h + 3] = a, b, c, e
        h += 4
    if h < held:
        out_H[h] = dot_mixed(candidate_D, vector_HD[h])


@njit(cache=True, fastmath=True)
def dot_float(left_D: Array, right_D: Array) -> Any:
    """Scalar product of two float32 vectors."""
    total = float32(0.0)
    for d in range(left_D.shape[0]):
        total += left_D[d] * right_D[d]
    return total


@njit(cache=True, fastmath=True)
def widen(half_D: Array, out_D: Array) -> None:
    """Write the half vector (uint16 bits) into the float32 vector `out_D`."""
    for d in range(half_D.shape[0]):
        out_D[d] = half_to_float(half_D[d])
