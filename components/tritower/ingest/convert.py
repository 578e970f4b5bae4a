"""Columns of any source type into the schema's types, with a mask of the values that do not fit.

A text source (CSV) gives binary columns, a JSON source gives text or what the JSON held, Parquet gives its own types. Each
function takes an Arrow array and returns the converted array and a boolean array `bad`, true where a value is present but
does not convert. Empty text counts as missing for every type but `string`.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tritower.schema import Column, Type

Converted = tuple[pa.Array, pa.Array]

_TRUE = pa.array(["true", "t", "yes", "y", "1"])
_FALSE = pa.array(["false", "f", "no", "n", "0"])
_INTEGER = r"^[+-]?\d{1,18}(\.0*)?$"
_TIME = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?$"
_ZONE = r"(Z|[+-]\d{2}:?\d{2})$"
_EPOCH = r"^\d{9,17}$"


def convert(values: pa.Array, column: Column) -> Converted:
    """Convert one column to its engine type: the schema's type, but a time as int64 microseconds; check its range."""
    values, bad_text = _as_text_if_binary(values)
    converted, bad = _CONVERTERS[column.type](values)
    bad = pc.or_(bad, bad_text)
    return converted, bad


def engine_type(type: Type) -> pa.DataType:
    """The Arrow type a column has inside an engine."""
    from tritower.schema import arrow_type

    return pa.int64() if type == "timestamp" else arrow_type(type)


def clean_text(values: pa.Array) -> pa.Array:
    """Unicode NFC, white space collapsed to single blanks and trimmed."""
    normal = pc.utf8_normalize(values, form="NFC")
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(normal, r"[\s\pZ]+", " "))


def _as_text_if_binary(values: pa.Array) -> Converted:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
        if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
            values = values.cast(pa.string())
        return values, _none(values)
    try:
        return values.cast(pa.string()), _none(values)
    except pa.ArrowInvalid:
        texts = [_decode(value) for value in values.to_pylist()]
        decoded = pa.array(texts, pa.string())
        return decoded, pc.and_(values.is_valid(), decoded.is_null())


def _decode(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _none(values: pa.Array) -> pa.Array:
    return pa.array(np.zeros(len(values), bool))


def _bad(before: pa.Array, after: pa.Array) -> pa.Array:
    return pc.and_(before.is_valid(), after.is_null())


def _blank_is_null(values: pa.Array) -> pa.Array:
    if not pa.types.is_string(values.type):
        return values
    values = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


def _to_string(values: pa.Array) -> Converted:
    kind = values.type
    if pa.types.is_string(kind):
        return values, _none(values)
    if pa.types.is_null(kind):
        return values.cast(pa.string()), _none(values)
    if pa.types.is_integer(kind):
        return values.cast(pa.string()), _none(values)
    if pa.types.is_floating(kind):  # pandas turns whole numbers with gaps into floats
        whole, bad = _to_int64(values)
        return whole.cast(pa.string()), bad
    return pa.nulls(len(values), pa.string()), values.is_valid()


def _to_int64(values: pa.Array) -> Converted:
    values = _blank_is_null(values)
    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        whole = values.cast(pa.int64(), safe=False)
    elif pa.types.is_floating(kind):
        finite = pc.and_(pc.is_finite(values), pc.equal(pc.floor(values), values))
        fits = pc.and_(finite, pc.less(pc.abs(values), 2.0**62))
        whole = pc.if_else(fits, values, pa.scalar(None, kind)).cast(pa.int64())
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values)  # NaN is how pandas writes a gap
    elif pa.types.is_string(kind):
        fits = pc.match_substring_regex(values, _INTEGER)
        digits = pc.replace_substring_regex(values, r"\.0*$", "")
        whole = pc.if_else(fits, digits, pa.scalar(None, pa.string())).cast(pa.int64())
    else:
        return pa.nulls(len(values), pa.int64()), values.is_valid()
    return whole, _bad(values, whole)


def _to_integer(low: int, high: int, kind: pa.DataType) -> Callable[[pa.Array], Converted]:
    def to_integer(values: pa.Array) -> Converted:
        whole, bad = _to_int64(values)
        fits = pc.and_(pc.greater_equal(whole, low), pc.less_equal(whole, high))
        kept = pc.if_else(fits, whole, pa.scalar(None, pa.int64()))
        return kept.cast(kind), pc.or_(bad, _bad(whole, kept))

    return to_integer


def _to_bool(values: pa.Array) -> Converted:
    if pa.types.is_boolean(values.type):
        return values, _none(values)
    if not pa.types.is_string(values.type):
        whole, bad = _to_int64(values)
        kept = pc.if_else(pc.is_in(whole, pa.array([0, 1])), whole, pa.scalar(None, pa.int64()))
        return kept.cast(pa.bool_()), pc.or_(bad, _bad(whole, kept))
    text = pc.utf8_lower(_blank_is_null(values))
    known = pc.or_(pc.is_in(text, _TRUE), pc.is_in(text, _FALSE))
    truth = pc.if_else(known, pc.is_in(text, _TRUE), pa.scalar(None, pa.bool_()))
    return truth, _bad(text, truth)


def _to_time(values: pa.Array) -> Converted:
    kind = values.type
    if pa.types.is_timestamp(kind):
        return values.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(pa.int64()), _none(values)
    if pa.types.is_date(kind):
        return values.cast(pa.timestamp("us")).cast(pa.int64()), _none(values)
    if not pa.types.is_string(kind):
        whole, bad = _to_int64(values)
        return _epoch(whole), bad
    text = _blank_is_null(values)
    nothing = pa.scalar(None, pa.string())
    is_epoch = pc.match_substring_regex(text, _EPOCH)
    epoch = _epoch(pc.if_else(is_epoch, text, nothing).cast(pa.int64()))
    zoned = pc.match_substring_regex(text, r"\d{2}:\d{2}.*" + _ZONE)
    plain = pc.if_else(zoned, nothing, pc.replace_substring_regex(text, r" ?UTC$", ""))
    plain = pc.if_else(pc.match_substring_regex(plain, _TIME), plain, nothing)
    local = pc.if_else(zoned, text, nothing)
    times = pc.coalesce(_parse(plain, pa.timestamp("ns")), _parse(local, pa.timestamp("ns", tz="UTC")), epoch)
    return times, _bad(text, times)


def _epoch(whole: pa.Array) -> pa.Array:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by size, as microseconds."""
    seconds = pc.if_else(pc.less(whole, 10**11), pc.multiply(whole, 1_000_000), whole)
    seconds = pc.if_else(pc.and_(pc.greater_equal(whole, 10**11), pc.less(whole, 10**14)), pc.multiply(whole, 1_000), seconds)
    return pc.if_else(pc.greater_equal(whole, 10**17), pc.divide(whole, 1_000), seconds)


def _parse(text: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return _micros(text.cast(kind))
    except pa.ArrowInvalid:
        return pa.array([_parse_one(value, kind) for value in text], pa.int64())


def _parse_one(text: pa.Scalar, kind: pa.DataType) -> int | None:
    try:
        whole: int | None = _micros(pa.array([text.as_py()], pa.string()).cast(kind))[0].as_py()
    except pa.ArrowInvalid:
        return None
    return whole


def _micros(times: pa.Array) -> pa.Array:
    return times.cast(pa.timestamp("us", tz=times.type.tz), safe=False).cast(pa.int64())


def _to_strings(values: pa.Array) -> Converted:
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return values.cast(pa.list_(pa.string())), _none(values)
    if pa.types.is_null(kind):
        return values.cast(pa.list_(pa.string())), _none(values)
    if not pa.types.is_string(kind):
        return pa.nulls(len(values), pa.list_(pa.string())), values.is_valid()
    text = _blank_is_null(values)
    lists = pa.array([_split_list(value) for value in text.to_pylist()], pa.list_(pa.string()))
    return lists, _bad(text, lists)


def _split_list(text: str | None) -> list[str] | None:
    """`["a", "b"]` as JSON, otherwise parts between `|`."""
    if text is None:
        return None
    if not text.startswith("["):
        return [part.strip() for part in text.split("|") if part.strip()]
    try:
        parts: Any = json.loads(text)
    except json.JSONDecodeError:
        return None
    return parts if isinstance(parts, list) and all(isinstance(part, str) for part in parts) else None


_CONVERTERS: dict[Type, Callable[[pa.Array], Converted]] = {
    "string": _to_string,
    "int16": _to_integer(-(2**15), 2**15 - 1, pa.int16()),
    "int32": _to_integer(-(2**31), 2**31 - 1, pa.int32()),
    "int64": _to_int64,
    "bool": _to_bool,
    "timestamp": _to_time,
    "list<string>": _to_strings,
}
