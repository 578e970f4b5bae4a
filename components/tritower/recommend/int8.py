"""Scalar products of bytes: LLVM's vectors by hand, since a plain loop in numba gets a quarter of the width.

One row of int8 is multiplied with one or three vectors of int16 at once, thirty-two numbers at a time. LLVM makes of it what
the processor has: `vpmaddwd` with AVX2, `vpdpwssd` with AVX-512, multiply and add in pairs elsewhere; on whichever, whole
numbers have one sum. The caller sees to it that it fits into 32 bits.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types as _types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic

types: Any = _types  # numba's are not typed
cgutils: Any = _cgutils
_WIDTH = 32
_BYTE, _SHORT, _INT = ir.IntType(8), ir.IntType(16), ir.IntType(32)


def _products(count: int) -> Any:
    """A function (address of int8, address of `count` rows of int16, numbers in a row) -> `count` sums in int32."""

    def typed(typing_context: Any, code: Any, asked: Any, dim: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return context.make_tuple(builder, signature.return_type, _sums(builder, count, *arguments))

        return types.UniTuple(types.int32, count)(types.intp, types.intp, types.intp), codegen

    return intrinsic(typed)


def _sums(builder: Any, count: int, code: Any, asked: Any, dim: Any) -> list[Any]:
    many, pairs = ir.VectorType(_INT, _WIDTH), ir.VectorType(_INT, _WIDTH // 2)
    wide = [cgutils.alloca_once_value(builder, ir.Constant(pairs, None)) for _ in range(count)]
    rest = [cgutils.alloca_once_value(builder, ir.Constant(_INT, 0)) for _ in range(count)]
    even, odd = (ir.Constant(pairs, [_INT(2 * n + off) for n in range(_WIDTH // 2)]) for off in (0, 1))
    full = builder.and_(dim, dim.type(-_WIDTH))
    with cgutils.for_range_slice(builder, dim.type(0), full, dim.type(_WIDTH), inc=True) as (d, _):
        row = _loaded(builder, code, d, _BYTE, many)
        for v in range(count):
            product = builder.mul(row, _loaded(builder, asked, _at(builder, v, dim, d), _SHORT, many))
            added = builder.add(builder.shuffle_vector(product, product, even), builder.shuffle_vector(product, product, odd))
            builder.store(builder.add(builder.load(wide[v]), added), wide[v])
    with cgutils.for_range_slice(builder, full, dim, dim.type(1), inc=True) as (d, _):
        one = _loaded(builder, code, d, _BYTE, _INT)
        for v in range(count):
            product = builder.mul(one, _loaded(builder, asked, _at(builder, v, dim, d), _SHORT, _INT))
            builder.store(builder.add(builder.load(rest[v]), product), rest[v])
    name = f"llvm.vector.reduce.add.v{_WIDTH // 2}i32"
    added_up = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_INT, [pairs]), name)
    return [builder.add(builder.call(added_up, [builder.load(w)]), builder.load(r)) for w, r in zip(wide, rest, strict=True)]


def _at(builder: Any, row: int, dim: Any, d: Any) -> Any:
    return builder.add(builder.mul(dim, dim.type(row)), d)


def _loaded(builder: Any, address: Any, number: Any, sort: Any, wanted: Any) -> Any:
    """Numbers of a sort from the one with this number on, as int32: as many as `wanted` is wide."""
    size, lanes = sort.width // 8, getattr(wanted, "count", None)
    held = ir.VectorType(sort, lanes) if lanes else sort
    place = builder.add(address, builder.mul(number, number.type(size)))
    value = builder.load(builder.inttoptr(place, held.as_pointer()), align=size)
    return builder.sext(value, wanted)


one_product: Any = _products(1)
three_products: Any = _products(3)
