"""What a conversion gives back, and the words by which exports say that there is no value."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

# How machines write a null, whatever the column: Hive and MySQL (\N), SQL clients, Python, pandas.
NULL_WORDS = pa.array(["\\N", "NULL", "null", "None", "nan", "NaN", "<NA>"])
# What people and spreadsheets write as well; a query or an id may be one of these.
NONE_WORDS = pa.array([*NULL_WORDS.to_pylist(), "N/A", "n/a", "#N/A", "-", "--", "none", "nil", "undefined", "(null)", "NaT"])
# In any case, where only a number, a time or a list can stand.
_NONE_FOLDED = pa.array(sorted({word.lower() for word in NONE_WORDS.to_pylist()} | {"na"}))


class Converted(NamedTuple):
    """A column in its engine type, and masks over its rows. A row of any mask has no value.

    `bad`: there is something that cannot be read. `none`: it says that there is no value, or that a time lasts for ever.
    `unclear`: a time that could be read in more than one way.
    """

    values: pa.Array
    bad: Mask
    none: Mask
    unclear: Mask


def converted(values: pa.Array, *, bad: Mask | None = None, none: Mask | None = None, unclear: Mask | None = None) -> Converted:
    """The same with empty masks for what is left out."""
    nothing = np.zeros(len(values), bool)
    return Converted(
        values,
        nothing if bad is None else bad,
        nothing if none is None else none,
        nothing if unclear is None else unclear,
    )


def all_bad(values: pa.Array, kind: pa.DataType) -> Converted:
    """A column of a type that never converts."""
    return converted(pa.nulls(len(values), kind), bad=valid(values))


def valid(values: pa.Array) -> Mask:
    """Rows that are not null."""
    return mask(values.is_valid())


def mask(values: pa.Array) -> Mask:
    """An Arrow boolean array as a numpy mask; null is false."""
    if values.null_count:
        values = values.fill_null(False)
    return np.asarray(values.to_numpy(zero_copy_only=False), bool)


def without(values: pa.Array, rows: Mask) -> pa.Array:
    """The column with nulls in some rows."""
    return pc.if_else(pa.array(~rows), values, pa.scalar(None, values.type)) if rows.any() else values


def blank_is_null(text: pa.Array) -> pa.Array:
    """Texts trimmed, empty ones as null."""
    text = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def says_none(text: pa.Array) -> Mask:
    """Texts that are one of the none words in any case."""
    return mask(pc.is_in(pc.utf8_lower(text), _NONE_FOLDED))
