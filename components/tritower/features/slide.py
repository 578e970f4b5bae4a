"""The best ratio of a short text with any stretch of a longer one, all stretches side by side in vector registers.

The bit-vector recurrence of the longest common subsequence (Hyyrö 2004) needs for each step the mask of one character. The
masks of the longer text are written out once; stretch i then reads from i on, so that neighbouring stretches are neighbouring
lanes and a step of 32 of them is one load and four operations. Zeros before and behind the text change no state: stretches
that hang over an end are the shorter prefixes and suffixes.

Legend: A characters of the alphabet, R words of scratch.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic

Array = npt.NDArray[Any]
cgutils: Any = _cgutils  # has no types
BITS = 64
_AROUND = 4 * BITS  # zeros that a text needs before (a pattern) and behind (a pattern and a vector), rounded up


@intrinsic
def _run(typing_context: Any, room_R: Any, first: Any, steps: Any, vectors: Any, out: Any) -> Any:
    """Common subsequence of the pattern with the `steps` characters from each place on; the largest.

    The places are `first` and the `vectors` times 32 (uint64: 16) - 1 behind it, their lengths are written from `out` on.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        _, first, steps, vectors, out = arguments
        bits = signature.args[0].dtype.bitwidth
        lanes = 1024 // bits
        number, vector, word = ir.IntType(bits), ir.VectorType(ir.IntType(bits), lanes), ir.IntType(64)
        kind = f"v{lanes}i{bits}"
        popcount = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), f"llvm.ctpop.{kind}")
        largest = ir.FunctionType(number, [vector])
        largest = cgutils.get_or_insert_function(builder.module, largest, f"llvm.vector.reduce.umax.{kind}")

        def at(place: Any) -> Any:
            return builder.bitcast(builder.gep(data, [place]), vector.as_pointer())

        top = cgutils.alloca_once_value(builder, ir.Constant(vector, [0] * lanes))
        state = cgutils.alloca_once(builder, vector)
        with cgutils.for_range(builder, vectors) as block:
            shift = builder.mul(block.index, ir.Constant(word, lanes))
            begin = builder.add(first, shift)
            builder.store(ir.Constant(vector, [(1 << bits) - 1] * lanes), state)
            with cgutils.for_range(builder, steps) as step:
                old = builder.load(state)
                hit = builder.and_(old, builder.load(at(builder.add(begin, step.index)), align=bits // 8))
                builder.store(builder.or_(builder.add(old, hit), builder.sub(old, hit)), state)
            count, best = builder.call(popcount, [builder.not_(builder.load(state))]), builder.load(top)
            builder.store(count, at(builder.add(out, shift)), align=bits // 8)
            builder.store(builder.select(builder.icmp_unsigned(">", count, best), count, best), top)
        value = builder.call(largest, [builder.load(top)])
        return value if bits == 64 else builder.zext(value, word)

    return types.int64(room_R, types.int64, types.int64, types.int64, types.int64), codegen


run: Any = _run  # its checker's signature holds the typing context, callers never pass it


def room(longest: int, kind: type[np.unsignedinteger[Any]]) -> Array:
    """Scratch for texts of up to `longest` characters and patterns of up to the bits of `kind` (uint32 or uint64)."""
    return np.zeros(2 * (longest + _AROUND), kind)


@njit(cache=True, forceinline=True)
def best_ratio(mask_A: Array, m: Any, text: Array, first: Any, n: Any, room_R: Array) -> Any:
    """Best ratio of the pattern of length m whose bits are in `mask_A` with a stretch of text[first:][:n].

    Args:
        mask_A: where each character stands in the pattern, as bits.
        m: 1 to n, not above the bits of `room_R`.
        text: character codes.
        first: of the longer text.
        n: its length.
        room_R: from `room`, the first BITS entries zero: masks in its first half, lengths in its second.
    """
    lanes, counts = 128 // room_R.itemsize, room_R.shape[0] // 2
    for k in range(n):
        room_R[BITS + k] = mask_A[text[first + k]]
    for k in range(BITS + n, BITS + n + m + lanes):
        room_R[k] = 0
    # All stretches that touch the text: m - 1 that hang over its front, the whole ones, m - 1 that hang over its end.
    top = run(room_R, BITS - m + 1, m, (n + m - 2) // lanes + 1, counts)
    front, end = counts + m - 1, counts + n - 1
    # One that hangs over has no more in common with the pattern than its length, nor than the whole one it is part of.
    best, shortest = top / m, top * m // (2 * m - top) + 1
    most, length = 2.0 * room_R[front], shortest
    while length < m and most > best * (m + length):
        best = max(best, 2.0 * room_R[front - m + length] / (m + length))
        length += 1
    most, length = 2.0 * room_R[end], shortest
    while length < m and most > best * (m + length):
        best = max(best, 2.0 * room_R[end + m - length] / (m + length))
        length += 1
    return best
