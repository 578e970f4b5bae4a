"""Columns of any source type into the schema's types, with masks of the values that do not fit.

A text source (CSV) gives binary columns, a JSON source gives text or what the JSON held, Parquet gives its own types. Each
function takes an Arrow array and returns what `values.py` describes. Empty text counts as missing for every type but `string`.
What each type accepts is the table in README.md; a test reads it.
"""

import ast
import csv
import json
import re
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tritower.ingest import times
from tritower.ingest.values import (
    NONE_WORDS,
    NULL_WORDS,
    Converted,
    all_bad,
    blank_is_null,
    converted,
    mask,
    says_none,
    valid,
    without,
)
from tritower.schema import Column, Type

_TRUE = pa.array(["true", "t", "yes", "y", "1", "1.0", "\x01"])  # the last one is how MySQL writes a BIT
_FALSE = pa.array(["false", "f", "no", "n", "0", "0.0", "\x00"])
_INTEGER = r"^[+-]?\d{1,18}(\.0*)?$"
_REAL = r"^-?\d+(\.\d*)?([eE][+-]?\d+)?$"
_WHOLE_FLOAT = r"^(0|[1-9]\d{0,17})\.0$"
_EXACT = {16: 2.0**11, 32: 2.0**24, 64: 2.0**53}  # up to where a float of so many bits holds every whole number
_LONGEST_LIST = 100_000  # characters of a list written as text


def convert(values: pa.Array, column: Column) -> Converted:
    """Convert one column to its engine type: the schema's type, but a time as int64 microseconds; its range is not checked."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    values = _plain(values)
    if _is_binary(values.type):
        values, bad = _decoded(values, ids=column.is_id)
        if bad is not None:
            found = _CONVERTERS[column.type](values, column)
            return found._replace(bad=found.bad | bad)
    return _CONVERTERS[column.type](values, column)


def engine_type(type: Type) -> pa.DataType:
    """The Arrow type a column has inside an engine."""
    from tritower.schema import arrow_type

    return pa.int64() if type == "timestamp" else arrow_type(type)


def clean_text(values: pa.Array) -> pa.Array:
    """Unicode NFC, white space collapsed to single blanks and trimmed."""
    # Most texts are ASCII with single blanks, and need no more than trimming.
    rest = pc.fill_null(pc.or_(pc.match_substring(values, "  "), pc.invert(pc.ascii_is_printable(values))), False)
    if pc.any(rest).as_py():
        normal = pc.utf8_normalize(values.filter(rest), form="NFC")
        values = pc.replace_with_mask(values, rest, pc.replace_substring_regex(normal, r"[\s\pZ]+", " "))
    return pc.utf8_trim_whitespace(values)


def _plain(values: pa.Array) -> pa.Array:
    """Without encodings, extension types and 64-bit or view layouts, so that a type has one form."""
    if isinstance(values.type, pa.BaseExtensionType):
        values = values.storage
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_run_end_encoded(values.type):
        values = pc.run_end_decode(values)
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.string())
    return values


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _decoded(values: pa.Array, *, ids: bool) -> tuple[pa.Array, Any]:
    """Bytes as text, and the rows that are neither UTF-8 nor, among ids, a UUID; None where every row is text.

    A UUID is told by its length, its version and its variant: its ninth byte begins no character, so no text is taken for one.
    """
    if pa.types.is_fixed_size_binary(values.type):
        values = values.cast(pa.binary())
    try:
        return values.cast(pa.string()), None
    except pa.ArrowInvalid:
        decoded = pa.array([_decode(value, ids) for value in values.to_pylist()], pa.string())
        return decoded, valid(values) & ~valid(decoded)


def _decode(value: bytes | None, ids: bool) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        is_uuid = ids and len(value) == 16 and 0x10 <= value[6] < 0x90 and 0x80 <= value[8] < 0xC0
        return str(uuid.UUID(bytes=value)) if is_uuid else None


def _to_string(values: pa.Array, column: Column) -> Converted:
    kind = values.type
    if pa.types.is_string(kind):
        if column.is_id and mask(pc.ends_with(values, ".0")).any():  # pandas turns whole numbers with gaps into floats
            whole = pc.match_substring_regex(values, _WHOLE_FLOAT)
            values = pc.if_else(whole, pc.replace_substring(values, ".0", ""), values)
        none = mask(pc.is_in(values, NULL_WORDS if column.is_id or column.name == "query" else NONE_WORDS))
        return converted(without(values, none), none=none)
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        return converted(values.cast(pa.string()))
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        whole = _to_int64(values)
        return whole._replace(values=whole.values.cast(pa.string()))
    return all_bad(values, pa.string())


def _to_int64(values: pa.Array) -> Converted:
    kind = values.type
    if pa.types.is_string(kind):
        return _whole_text(blank_is_null(values))
    if pa.types.is_uint64(kind):
        return _cast_whole(values, values.fill_null(0).to_numpy() <= 2**63 - 1)
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        return converted(values.cast(pa.int64()))
    if pa.types.is_floating(kind):
        number = values.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False)
        gap = np.isnan(number)  # how pandas writes a gap
        found = _cast_whole(values.cast(pa.float64()), np.abs(np.floor(number)) <= _EXACT[kind.bit_width], number)
        return found._replace(bad=found.bad & ~gap)
    if pa.types.is_decimal(kind):
        return _cast_whole(values, mask(pc.equal(pc.floor(values), values)) & mask(pc.less(pc.abs(values), 10**18)))
    return all_bad(values, pa.int64())


def _cast_whole(values: pa.Array, fits: Any, number: Any = None) -> Converted:
    if number is not None:
        with np.errstate(invalid="ignore"):
            fits = fits & (np.floor(number) == number)
    present = valid(values)
    return converted(without(values, ~fits).cast(pa.int64()), bad=present & ~fits)


def _whole_text(text: pa.Array) -> Converted:
    fits = pc.match_substring_regex(text, _INTEGER)
    digits = pc.replace_substring_regex(text, r"^\+|\.0*$", "")  # Arrow reads no plus sign
    whole = pc.if_else(fits, digits, pa.scalar(None, pa.string())).cast(pa.int64())
    left = valid(text) & ~valid(whole)
    if not left.any():
        return converted(whole)
    none = left & says_none(text)
    real = pc.if_else(pc.match_substring_regex(digits, _REAL), digits, pa.scalar(None, pa.string())).cast(pa.float64())
    written = _to_int64(without(real, ~left))  # such as 1e3
    whole = pc.coalesce(whole, written.values)
    return converted(whole, bad=left & ~none & ~valid(whole), none=none)


def _to_real(values: pa.Array, column: Column) -> Converted:
    """Numbers with a point; what is not finite is none, or unreadable where it is infinite."""
    kind = values.type
    if pa.types.is_null(kind):
        return converted(values.cast(pa.float64()))
    none = np.zeros(len(values), bool)
    present = valid(values)
    if pa.types.is_string(kind):
        text = blank_is_null(values)
        present, none = valid(text), says_none(text)
        plain = pc.replace_substring_regex(text, r"^\+", "")
        values = pc.if_else(pc.match_substring_regex(plain, _REAL), plain, pa.scalar(None, pa.string()))
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return all_bad(values, pa.float64())
    number = values.cast(pa.float64(), safe=False)
    gap = mask(pc.is_nan(number))  # how pandas writes a gap
    number = without(number, ~mask(pc.is_finite(number)))
    return converted(number, bad=present & ~none & ~gap & ~valid(number), none=none)


def _to_integer(low: int, high: int, kind: pa.DataType) -> Callable[[pa.Array, Column], Converted]:
    def to_integer(values: pa.Array, column: Column) -> Converted:
        found = _to_int64(values)
        beyond = mask(pc.or_(pc.less(found.values, low), pc.greater(found.values, high)))
        return found._replace(values=without(found.values, beyond).cast(kind), bad=found.bad | beyond)

    return to_integer


def _to_bool(values: pa.Array, column: Column) -> Converted:
    if pa.types.is_boolean(values.type):
        return converted(values)
    if not pa.types.is_string(values.type):
        found = _to_int64(values)
        beyond = valid(found.values) & ~mask(pc.is_in(found.values, pa.array([0, 1])))
        return found._replace(values=without(found.values, beyond).cast(pa.bool_()), bad=found.bad | beyond)
    text = pc.utf8_lower(blank_is_null(values))
    true, false = mask(pc.is_in(text, _TRUE)), mask(pc.is_in(text, _FALSE))
    left = valid(text) & ~(true | false)
    none = left & says_none(text) if left.any() else left
    return converted(pa.array(true, mask=~(true | false)), bad=left & ~none, none=none)


def _to_strings(values: pa.Array, column: Column) -> Converted:
    kind, strings = values.type, pa.list_(pa.string())
    if pa.types.is_null(kind):
        return converted(values.cast(strings))
    if pa.types.is_string(kind):
        text = blank_is_null(values)
        none = says_none(text)
        lists = pa.array([_split_list(value) for value in without(text, none).to_pylist()], strings)
        return converted(lists, bad=valid(text) & ~none & ~valid(lists), none=none)
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type) and not (values.values.null_count or values.offset):
        return converted(values)
    if not pa.types.is_nested(kind) or pa.types.is_struct(kind):
        return all_bad(values, strings)
    lists = pa.array([_texts(value) for value in values.to_pylist()], strings)
    return converted(lists, bad=valid(values) & ~valid(lists))


def _texts(value: Any) -> list[str] | None:
    """The texts of a list, without its gaps; None when it holds anything else."""
    if not isinstance(value, list):
        return None
    parts = [_decode(part, ids=False) if isinstance(part, bytes) else part for part in value if part is not None]
    texts = [part for part in parts if isinstance(part, str)]
    return texts if len(texts) == len(parts) else None


def _split_list(text: str | None) -> list[str] | None:
    """`["a", "b"]` as JSON, Python or numpy writes it, `{a,b}` as Postgres does, otherwise parts between `|`."""
    if text is None or len(text) > _LONGEST_LIST:
        return None
    if text.startswith("{") and text.endswith("}"):
        parts = next(csv.reader([text[1:-1]], doublequote=False, escapechar="\\", skipinitialspace=True), [])
        return [part for part in parts if part and part != "NULL"]
    if not text.startswith("["):
        return [part.strip() for part in text.split("|") if part.strip()]
    for read in (json.loads, _python_list):
        try:
            return _texts(read(text))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _python_list(text: str) -> Any:
    # numpy has no commas between its texts, and Python would join them.
    return ast.literal_eval(re.sub(r"""(['"])\s+(['"])""", r"\1, \2", text))


_CONVERTERS: dict[Type, Callable[[pa.Array, Column], Converted]] = {
    "string": _to_string,
    "int16": _to_integer(-(2**15), 2**15 - 1, pa.int16()),
    "int32": _to_integer(-(2**31), 2**31 - 1, pa.int32()),
    "int64": lambda values, column: _to_int64(values),
    "float64": _to_real,
    "bool": _to_bool,
    "timestamp": lambda values, column: times.to_micros(values),
    "list<string>": _to_strings,
}
