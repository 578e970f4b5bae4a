"""Products of small matrices in float32: LLVM's vectors by hand, for shapes where a BLAS spends its time on packing.

A tile is up to six rows by sixteen columns of a product. Its sums stay in registers (twelve of AVX2, six of AVX-512) while one
factor goes by in vectors of sixteen numbers, the other number by number. The vectors may be of float16, widened as they are
read: half as much memory to read, and sums in float32 all the same.

Every sum is taken in the order of its terms, by fused multiply-adds: one value on every processor that has them.

Legend: N columns, K terms of a sum, P panels of sixteen columns.
"""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types as _types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from tritower.numba_cache import njit

types: Any = _types  # numba's are not typed
cgutils: Any = _cgutils
LANES = 16
ROWS = 6
_SINGLE, _BITS, _INT = ir.FloatType(), ir.IntType(16), ir.IntType(32)
_VECTOR = ir.VectorType(_SINGLE, LANES)


@njit(cache=True, nogil=True)
def padded(columns):  # type: ignore[no-untyped-def]
    """The next multiple of the sixteen columns of a panel."""
    return (columns + LANES - 1) // LANES * LANES


def panels(weight_KN: NDArray[np.floating[Any]], dtype: type = np.float32) -> NDArray[Any]:
    """(P, K, 16) of a matrix, the last panel filled up with zeros; `column` and `half_column` read a panel as it lies."""
    terms, columns = weight_KN.shape
    wide_KN = np.zeros((terms, padded(columns)), dtype)
    wide_KN[:, :columns] = weight_KN
    return np.ascontiguousarray(wide_KN.reshape(terms, -1, LANES).transpose(1, 0, 2))


def _tile(sort: Any) -> Any:
    """A function (rows; out, its stride; a, its strides by row and by term; b, its stride by term; terms) that writes a tile.

    out[r, 0:16] = sum over k of a[r, k] b[k, 0:16], for 1 to 6 rows; places are addresses in bytes, strides count numbers.
    """

    def typed(
        typing_context: Any, rows: Any, out: Any, out_row: Any, a: Any, a_row: Any, a_term: Any, b: Any, b_term: Any, terms: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            rows, *rest = arguments
            widened = _widened if _converts(*context.codegen().magic_tuple()) else _widened_by_bits
            after = builder.append_basic_block("after")
            switch = builder.switch(rows, after)
            for count in range(1, ROWS + 1):
                block = builder.append_basic_block(f"rows_{count}")
                switch.add_case(rows.type(count), block)
                builder.position_at_end(block)
                _emit(builder, count, sort, widened, *rest)
                builder.branch(after)
            builder.position_at_end(after)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 9), codegen

    return intrinsic(typed)


def _emit(
    builder: Any, rows: int, sort: Any, widened: Any,
    out: Any, out_row: Any, a: Any, a_row: Any, a_term: Any, b: Any, b_term: Any, terms: Any,
) -> None:  # fmt: skip
    """The tile of one number of rows."""
    whole, width = terms.type, 2 if sort is _BITS else 4
    fused = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{LANES}f32")
    everywhere, nothing = ir.Constant(ir.VectorType(_INT, LANES), [_INT(0)] * LANES), ir.Constant(_VECTOR, ir.Undefined)

    def at(place: Any, number: Any, size: int) -> Any:
        return builder.add(place, builder.mul(number, whole(size)))

    sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(rows)]
    for one in sums:
        builder.store(ir.Constant(_VECTOR, None), one)
    with cgutils.for_range_slice(builder, whole(0), terms, whole(1), inc=True) as (k, _):
        place = builder.inttoptr(at(b, builder.mul(k, b_term), width), ir.VectorType(sort, LANES).as_pointer())
        vector = builder.load(place, align=width)
        if sort is _BITS:
            vector = widened(builder, vector)
        for r in range(rows):
            number = builder.add(builder.mul(whole(r), a_row), builder.mul(k, a_term))
            value = builder.load(builder.inttoptr(at(a, number, 4), _SINGLE.as_pointer()))
            spread = builder.shuffle_vector(builder.insert_element(nothing, value, _INT(0)), nothing, everywhere)
            builder.store(builder.call(fused, [spread, vector, builder.load(sums[r])]), sums[r])
    for r in range(rows):
        place = builder.inttoptr(at(out, builder.mul(whole(r), out_row), 4), _VECTOR.as_pointer())
        builder.store(builder.load(sums[r]), place, align=4)


def _converts(triple: str, processor: str, features: str) -> bool:
    """Whether the code may be for an instruction that widens float16. LLVM calls a function of its own elsewhere, which is not
    there."""
    return not triple.startswith(("x86_64", "i686", "i386")) or "+f16c" in features.split(",")


def _widened(builder: Any, bits: Any) -> Any:
    """Sixteen float16, given as whole numbers, as float32."""
    return builder.fpext(builder.bitcast(bits, ir.VectorType(ir.HalfType(), LANES)), _VECTOR)


def _widened_by_bits(builder: Any, bits: Any) -> Any:
    """The same of finite numbers: exponent and fraction move to their places, and the exponent's bias grows by 112."""

    def all_of(value: Any) -> Any:
        return ir.Constant(ir.VectorType(value.type, LANES), [value] * LANES)

    wide = builder.zext(bits, ir.VectorType(_INT, LANES))
    size = builder.shl(builder.and_(wide, all_of(_INT(0x7FFF))), all_of(_INT(13)))
    sign = builder.shl(builder.and_(wide, all_of(_INT(0x8000))), all_of(_INT(16)))
    number = builder.fmul(builder.bitcast(size, _VECTOR), all_of(_SINGLE(2.0**112)))
    return builder.bitcast(builder.or_(builder.bitcast(number, sign.type), sign), _VECTOR)


_single_tile, _half_tile = _tile(_SINGLE), _tile(_BITS)


@njit(cache=True, nogil=True)
def column(rows, out, out_row, a, a_row, a_term, b, b_term, terms):  # type: ignore[no-untyped-def]
    """Sixteen columns of a product, all of its rows; see `_tile` for the arguments."""
    done, tiles = 0, (rows + ROWS - 1) // ROWS
    for tile in range(tiles):
        some = _share(rows - done, tiles - tile)
        _single_tile(some, out + 4 * done * out_row, out_row, a + 4 * done * a_row, a_row, a_term, b, b_term, terms)
        done += some


@njit(cache=True, nogil=True)
def half_column(rows, out, out_row, a, a_row, a_term, b, b_term, terms):  # type: ignore[no-untyped-def]
    """As `column`, with b in float16."""
    done, tiles = 0, (rows + ROWS - 1) // ROWS
    for tile in range(tiles):
        some = _share(rows - done, tiles - tile)
        _half_tile(some, out + 4 * done * out_row, out_row, a + 4 * done * a_row, a_row, a_term, b, b_term, terms)
        done += some


@njit(cache=True, nogil=True)
def _share(rows, tiles):  # type: ignore[no-untyped-def]
    """Of the next tile: 8 rows go as 4 and 4, for 6 and 2 would wait for each other's sums."""
    return (rows + tiles - 1) // tiles
