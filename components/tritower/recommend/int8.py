"""Scalar products of bytes: LLVM's vectors by hand, since a plain loop in numba gets a quarter of the width.

`one_product` and `three_products` multiply a row of int8 with one or three vectors of int16, thirty-two numbers at a time. Rows
that stand sixteen abreast (`abreast`) are multiplied together by `BOUNDED`, which makes bounds of the sums as well: no sum
crosses a register, and what is done with a sum is done sixteen times at once.

LLVM makes of it what the processor has: `vpmaddwd` with AVX2, `vpdpwssd` with AVX-512, multiply and add in pairs elsewhere; on
whichever, whole numbers have one sum. The caller sees to it that it fits into 32 bits.

Legend: J rows, G groups of sixteen rows, H numbers of a row, P pairs of them.
"""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types as _types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

types: Any = _types  # numba's are not typed
cgutils: Any = _cgutils
LANES = 16
"""Rows that stand abreast."""
_WIDTH = 2 * LANES
_BYTE, _SHORT, _INT, _FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()
_BYTES, _SHORTS, _INTS = (ir.VectorType(sort, _WIDTH) for sort in (_BYTE, _SHORT, _INT))
_SUMS, _FLOATS = ir.VectorType(_INT, LANES), ir.VectorType(_FLOAT, LANES)


def abreast(code_JH: NDArray[np.int8]) -> NDArray[np.int8]:
    """Rows, sixteen abreast (G, P, 32): pair p of the first row, of the second, and so on; zeros where rows or numbers end."""
    count, width = code_JH.shape
    padded = np.zeros((-(-count // LANES) * LANES, -(-width // 2) * 2), np.int8)
    padded[:count, :width] = code_JH
    turned = padded.reshape(-1, LANES, padded.shape[1] // 2, 2).swapaxes(1, 2)
    return np.ascontiguousarray(turned).reshape(len(turned), -1, _WIDTH)


def _products(count: int) -> Any:
    """A function (address of int8, address of `count` rows of int16, numbers in a row) -> `count` sums in int32."""

    def typed(typing_context: Any, code: Any, asked: Any, dim: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return context.make_tuple(builder, signature.return_type, _sums(builder, count, *arguments))

        return types.UniTuple(types.int32, count)(types.intp, types.intp, types.intp), codegen

    return intrinsic(typed)


def _sums(builder: Any, count: int, code: Any, asked: Any, dim: Any) -> list[Any]:
    wide = [cgutils.alloca_once_value(builder, ir.Constant(_SUMS, None)) for _ in range(count)]
    rest = [cgutils.alloca_once_value(builder, ir.Constant(_INT, 0)) for _ in range(count)]
    full = builder.and_(dim, dim.type(-_WIDTH))
    with cgutils.for_range_slice(builder, dim.type(0), full, dim.type(_WIDTH), inc=True) as (d, _):
        row = builder.sext(_loaded(builder, _BYTES, code, d), _INTS)
        for v in range(count):
            one = builder.sext(_loaded(builder, _SHORTS, asked, _at(builder, v, dim, d)), _INTS)
            builder.store(builder.add(builder.load(wide[v]), _paired(builder, row, one)), wide[v])
    with cgutils.for_range_slice(builder, full, dim, dim.type(1), inc=True) as (d, _):
        last = builder.sext(_loaded(builder, _BYTE, code, d), _INT)
        for v in range(count):
            one = builder.sext(_loaded(builder, _SHORT, asked, _at(builder, v, dim, d)), _INT)
            builder.store(builder.add(builder.load(rest[v]), builder.mul(last, one)), rest[v])
    name = f"llvm.vector.reduce.add.v{LANES}i32"
    added_up = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_INT, [_SUMS]), name)
    return [builder.add(builder.call(added_up, [builder.load(w)]), builder.load(r)) for w, r in zip(wide, rest, strict=True)]


def _bounded(count: int) -> Any:
    """A function that writes the bounds of sixteen rows for `count` vectors, and returns the largest for each.

    Its arguments are addresses, and two numbers: int8 of a group; `count` rows of int16; P; four float32 for each vector, with
    which a sum, a row's scale times that, its second and its third float and 1 are multiplied and added up; three times
    sixteen floats of the rows; sixteen bools, whether a row is wanted; what is written of one that is not; where the bounds
    go; the bytes from one vector's to the next one's.
    """

    def typed(
        typing_context: Any, code: Any, asked: Any, pairs: Any, factors: Any, first: Any, second: Any, third: Any, wanted: Any,
        lowest: Any, out: Any, stride: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return context.make_tuple(builder, signature.return_type, _highest(builder, count, *arguments))

        given = (*[types.intp] * 8, types.float32, types.intp, types.intp)
        return types.UniTuple(types.float32, count)(*given), codegen

    return intrinsic(typed)


def _highest(
    builder: Any, count: int, code: Any, asked: Any, pairs: Any, factors: Any, first: Any, second: Any, third: Any, wanted: Any,
    lowest: Any, out: Any, stride: Any,
) -> list[Any]:  # fmt: skip
    total = [cgutils.alloca_once_value(builder, ir.Constant(_SUMS, None)) for _ in range(count)]
    twice = builder.mul(pairs, pairs.type(2))
    with cgutils.for_range_slice(builder, pairs.type(0), pairs, pairs.type(1), inc=True) as (p, _):
        rows = builder.sext(_loaded(builder, _BYTES, code, builder.mul(p, p.type(_WIDTH))), _INTS)
        for v in range(count):
            at = _at(builder, v, twice, builder.mul(p, p.type(2)))
            pair = _loaded(builder, ir.VectorType(_SHORT, 2), asked, at, size=2)
            both = builder.shuffle_vector(pair, pair, ir.Constant(ir.VectorType(_INT, _WIDTH), [0, 1] * LANES))
            builder.store(builder.add(builder.load(total[v]), _paired(builder, rows, builder.sext(both, _INTS))), total[v])
    zero = pairs.type(0)
    scale, off, rest = (_loaded(builder, _FLOATS, one, zero) for one in (first, second, third))
    is_wanted = builder.icmp_signed(
        "!=", _loaded(builder, ir.VectorType(_BYTE, LANES), wanted, zero), ir.Constant(ir.VectorType(_BYTE, LANES), None)
    )
    largest = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_FLOAT, [_FLOATS]), f"llvm.vector.reduce.fmax.v{LANES}f32"
    )
    found = []
    for v in range(count):
        by, long, short, more = (_all(builder, _loaded(builder, _FLOAT, factors, pairs.type(4 * v + n))) for n in range(4))
        about = builder.fmul(builder.sitofp(builder.load(total[v]), _FLOATS), builder.fmul(scale, by))
        margin = builder.fadd(builder.fadd(builder.fmul(long, off), builder.fmul(short, rest)), more)
        high = builder.select(is_wanted, builder.fadd(about, margin), _all(builder, lowest))
        place = builder.add(out, builder.mul(stride, stride.type(v)))
        builder.store(high, builder.inttoptr(place, _FLOATS.as_pointer()), align=4)
        found.append(builder.call(largest, [high], fastmath=("nnan",)))
    return found


def _paired(builder: Any, one: Any, other: Any) -> Any:
    """Products of whole numbers, each two neighbours added."""
    product = builder.mul(one, other)
    even, odd = (ir.Constant(_SUMS, [_INT(2 * n + off) for n in range(LANES)]) for off in (0, 1))
    return builder.add(builder.shuffle_vector(product, product, even), builder.shuffle_vector(product, product, odd))


def _all(builder: Any, value: Any) -> Any:
    """The same float sixteen times."""
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, _INT(0))
    return builder.shuffle_vector(one, one, ir.Constant(_SUMS, None))


def _at(builder: Any, row: int, dim: Any, d: Any) -> Any:
    return builder.add(builder.mul(dim, dim.type(row)), d)


def _loaded(builder: Any, wanted: Any, address: Any, number: Any, size: int = 0) -> Any:
    """What stands at an address, so many numbers on."""
    size = size or {"i8": 1, "i16": 2, "i32": 4, "float": 4}[str(getattr(wanted, "element", wanted))]
    place = builder.add(address, builder.mul(number, number.type(size)))
    return builder.load(builder.inttoptr(place, wanted.as_pointer()), align=size)


@intrinsic
def _prefetched(typing_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address, which will be read soon."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _BYTE.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _INT, _INT, _INT])
        asks = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(asks, [place, _INT(0), _INT(3), _INT(1)])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


prefetched: Any = _prefetched
one_product: Any = _products(1)
three_products: Any = _products(3)
BOUNDED: Any = _bounded(1), _bounded(2), _bounded(3)
