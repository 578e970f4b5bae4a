"""Each raw row checked on its own: converted, cleaned, and given a reason when it is refused.

`check_rows` is the kernel behind `map_batches`: pieces of a source in, typed rows out. What needs other rows (duplicates,
unknown jobs) is SQL in `tables.py`.

A bad value refuses its row only where the column must have one. Elsewhere it is taken for missing, and `mended` says so.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tritower.ingest import convert, sources
from tritower.ingest import raw as raw_sizes
from tritower.ingest.values import Converted, Mask, mask, valid, without
from tritower.schema import RAW_TABLES, Column, Table

# What a log of views alone may lack.
VIEWS_MAY_LACK = ("request_id", "query", "clicked")
# Ids and free text are kept as they are; these are what a person reads, so they are cleaned before anything compares them.
_CLEANED = ("title", "company", "city", "region", "country", "occupation", "query", "interests", "past_titles")
# What a row without a value has: a search may be for anything, an advert may hide its employer, and some logs write `clicked`
# only where it is true.
_DEFAULTS: dict[str, str | bool] = {"query": "", "company": "", "clicked": False}
# Exports write times before the first for none, and after the last for ever; zones reach 14 hours, so a day lies around 1970.
_FIRST_TIME, _LAST_TIME = 86_400_000_000, 4_102_444_800_000_000  # 1970-01-02 to 2100, microseconds
_SHOWN_CHARACTERS = 200

# `seq` is a row's place in its source: file number times 2**FILE_BITS plus row number in the file. `mended` holds
# `column.what` for every value that was not taken as it stands, between commas.
FILE_BITS = 40
_TRACE = (
    ("seq", pa.int64()),
    ("mended", pa.string()),
    ("reason", pa.string()),
    ("detail", pa.string()),
    ("record", pa.string()),
)


def checked_schema(table: Table) -> pa.Schema:
    """The table's columns in engine types, then `seq`, what was mended, and why the row was refused (null when it was not)."""
    return pa.schema([(column.name, convert.engine_type(column.type)) for column in table.columns] + list(_TRACE))


@dataclass
class _Notes:
    """What a batch's columns were found to hold: faults refuse a row, mends do not."""

    length: int
    faults: list[tuple[str, Mask, str]] = field(default_factory=list)
    mends: list[tuple[str, Mask, str]] = field(default_factory=list)

    def fault(self, reason: str, rows: Mask, column: str) -> None:
        if rows.any():
            self.faults.append((reason, rows, column))

    def mend(self, what: str, rows: Mask, column: str) -> None:
        if rows.any():
            self.mends.append((what, rows, column))

    def every(self) -> Mask:
        return np.ones(self.length, bool)


def check_rows(
    pieces: Iterator[pa.RecordBatch],
    *,
    table: str,
    rename: dict[str, str],
    views: bool = False,
    skew_us: int = 0,
    longest: int = 1_000,
) -> Iterator[pa.RecordBatch]:
    """Read pieces (sources.SPLIT_SCHEMA) and yield their rows as `checked_schema(table)`.

    Args:
        pieces: batches of the plan.
        table: jobs, impressions or users.
        rename: source column -> schema column.
        views: every row is a view, and so a request of its own.
        skew_us: a click up to so many microseconds before its impression was made at the time of the impression.
        longest: characters of a text that a person reads; what is beyond is cut.
    """
    spec = RAW_TABLES[table]
    for batch in pieces:
        for piece in batch.to_pylist():
            for raw in sources.read(piece):
                if raw.table.num_rows:
                    seq = piece["number"] << FILE_BITS
                    yield _checked(raw, spec, seq, rename, views=views, skew_us=skew_us, longest=longest)
                if raw.refused:
                    yield _refused(raw.refused, spec, piece["number"] << FILE_BITS)


def _checked(
    raw: sources.RawBatch, spec: Table, seq: int, rename: dict[str, str], *, views: bool, skew_us: int, longest: int
) -> pa.RecordBatch:
    named = raw.table.rename_columns([rename.get(name, name) for name in raw.table.column_names])
    notes = _Notes(raw.table.num_rows)
    typed: dict[str, pa.Array] = {}
    for column in spec.columns:
        needed = not column.nullable and not (views and column.name in VIEWS_MAY_LACK)
        if column.name in named.column_names:
            typed[column.name] = _cut(_column(named[column.name], column, notes, needed=needed), column, notes, longest)
        else:
            typed[column.name] = pa.nulls(notes.length, convert.engine_type(column.type))
            if needed and column.name not in _DEFAULTS:
                notes.fault("missing_value", notes.every(), column.name)
    if views:
        notes.fault("not_a_view", mask(pc.invert(typed["clicked"])), "clicked")
        typed |= _view(typed, pc.add(raw.rows, seq))
    else:
        _fill(typed, spec, notes)
    _contradictions(spec.name, typed, notes, skew_us)
    mended, reason, detail, record = _explain(notes, raw.table, named)
    columns = [*typed.values(), pc.add(raw.rows, seq), mended, reason, detail, record]
    return pa.RecordBatch.from_arrays(columns, schema=checked_schema(spec))


def _column(raw: pa.ChunkedArray, column: Column, notes: _Notes, *, needed: bool) -> pa.Array:
    """One column converted and cleaned; what it lacks and what does not fit goes to the notes."""
    found = convert.convert(raw, column)
    values = _clean(found.values, column)
    outside = _out_of_range(values, column)
    if needed:
        notes.fault("wrong_type", found.bad, column.name)
        notes.fault("ambiguous_time", found.unclear, column.name)
        notes.fault("out_of_range", outside, column.name)
        if column.name not in _DEFAULTS:
            notes.fault("missing_value", ~valid(values) & ~found.bad & ~found.unclear, column.name)
        return values
    _mend_optional(found, outside, column, notes)
    return without(values, outside)


def _cut(values: pa.Array, column: Column, notes: _Notes, longest: int) -> pa.Array:
    """What a person reads without what is beyond `longest` characters: a page of text in a title is an accident."""
    if column.name not in _CLEANED or not len(values):
        return values
    texts = values.values if column.type == "list<string>" else values
    # A character has a byte or more, so most columns are done with a look at the longest text.
    if (pc.max(pc.binary_length(texts)).as_py() or 0) <= longest:
        return values
    long = mask(pc.greater(pc.utf8_length(texts), longest))
    cut = pc.if_else(pa.array(long), pc.utf8_trim_whitespace(pc.utf8_slice_codeunits(texts, 0, longest)), texts)
    if column.type == "list<string>":
        owner = np.repeat(np.arange(len(values)), pc.fill_null(pc.list_value_length(values), 0).to_numpy())
        cut = pa.ListArray.from_arrays(values.offsets, cut, mask=values.is_null())
        long = np.isin(np.arange(len(values)), owner[long])
    notes.mend("cut", long, column.name)
    return cut


def _mend_optional(found: Converted, outside: Mask, column: Column, notes: _Notes) -> None:
    notes.mend("wrong_type" if column.type != "string" else "not_text", found.bad, column.name)
    notes.mend("ambiguous_time", found.unclear, column.name)
    is_time = column.type == "timestamp"
    notes.mend("none", found.none | outside if is_time else found.none, column.name)
    if not is_time:
        notes.mend("out_of_range", outside, column.name)


def _fill(typed: dict[str, pa.Array], spec: Table, notes: _Notes) -> None:
    """Put the defaults where a row has no value."""
    for name, default in _DEFAULTS.items():
        if name not in spec.names():
            continue
        refused = [rows for reason, rows, column in notes.faults if column == name]
        missing = ~valid(typed[name])
        for rows in refused:
            missing &= ~rows
        if default is False:  # a click's time says as much as the mark
            typed[name] = pc.coalesce(typed[name], typed["clicked_at"].is_valid())
        else:
            missing |= mask(pc.equal(typed[name], ""))
            typed[name] = pc.fill_null(typed[name], default)
        notes.mend("missing", missing, name)


def _view(typed: dict[str, pa.Array], seq: pa.Array) -> dict[str, pa.Array]:
    """What a view says as a row of a request: chosen at once, at no known position, out of a request of its own."""
    return {
        "request_id": pc.binary_join_element_wise("view", seq.cast(pa.string()), "-"),
        "query": pc.fill_null(typed["query"], ""),
        "clicked": pa.array(np.ones(len(seq), bool)),
        "clicked_at": typed["ts"],
        "position": pa.nulls(len(seq), pa.int16()),
    }


def _clean(values: pa.Array, column: Column) -> pa.Array:
    if column.name not in _CLEANED and column.type == "string" and not column.nullable:
        return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
    if column.name not in _CLEANED:
        return values
    if column.type == "list<string>":
        return pa.ListArray.from_arrays(values.offsets, convert.clean_text(values.values), mask=values.is_null())
    values = convert.clean_text(values)
    if column.name in _DEFAULTS:
        return values
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


def _out_of_range(values: pa.Array, column: Column) -> Mask:
    low, high = (_FIRST_TIME, _LAST_TIME) if column.type == "timestamp" else (column.low, column.high)
    outside = np.zeros(len(values), bool)
    if low is not None:
        outside |= mask(pc.less(values, low))
    if high is not None:
        outside |= mask(pc.greater(values, high))
    return outside


def _contradictions(table: str, typed: dict[str, pa.Array], notes: _Notes, skew_us: int) -> None:
    """Values that are fine alone and impossible together."""
    if table == "impressions":
        early = mask(pc.less(typed["clicked_at"], typed["ts"]))
        if early.any():
            slightly = early & mask(pc.less_equal(pc.subtract(typed["ts"], typed["clicked_at"]), skew_us))
            typed["clicked_at"] = pc.if_else(pa.array(slightly), typed["ts"], typed["clicked_at"])
            notes.mend("early", slightly, "clicked_at")
            notes.fault("click_before_impression", early & ~slightly, "clicked_at")
        unclicked = mask(pc.and_(typed["clicked_at"].is_valid(), pc.invert(typed["clicked"])))
        notes.fault("click_time_without_click", unclicked, "clicked_at")
    if table == "jobs":
        notes.fault("expires_before_posted", mask(pc.less(typed["expires_at"], typed["posted_at"])), "expires_at")
        _pair(typed, notes)


def _pair(typed: dict[str, pa.Array], notes: _Notes) -> None:
    """A point has two coordinates, and is not that of latitude and longitude 0, by which exports say that there is none."""
    there = {name: valid(typed[name]) for name in ("latitude", "longitude")}
    both = there["latitude"] & there["longitude"]
    nowhere = both & mask(pc.equal(typed["latitude"], 0)) & mask(pc.equal(typed["longitude"], 0))
    for name, is_there in there.items():
        notes.mend("alone", is_there & ~both, name)
        notes.mend("none", nowhere, name)
        typed[name] = without(typed[name], (is_there & ~both) | nowhere)


def _explain(notes: _Notes, raw: pa.Table, named: pa.Table) -> tuple[pa.Array, pa.Array, pa.Array, pa.Array]:
    """What was mended, and reason, detail and record of each refused row; the first fault in column order counts."""
    text = pa.string()
    if not notes.faults and not notes.mends:
        mended, reason, detail, record = (pa.nulls(notes.length, text) for _ in range(4))
        return mended, reason, detail, record
    reason, detail, record = (np.full(notes.length, None, object) for _ in range(3))

    def value(row: Any, column: str) -> Any:
        return _python(named[column][int(row)]) if column in named.column_names else None

    for name, rows, column in notes.faults:
        for row in np.flatnonzero(rows):
            if reason[row] is None:
                found = value(row, column)
                reason[row] = "not_utf8" if name == "wrong_type" and _is_not_utf8(found) else name
                detail[row] = f"{column} = {_shown(found)}"[:_SHOWN_CHARACTERS]
                record[row] = record_json(
                    {name: _python(values[int(row)]) for name, values in zip(raw.column_names, raw.columns, strict=True)}
                )
    good = np.array([found is None for found in reason], bool)
    mends = []
    for what, rows, column in notes.mends:
        rows = rows & good
        if rows.any():
            first = int(np.flatnonzero(rows)[0])  # one example a batch
            shown = f"{column} = {_shown(value(first, column))}"[:_SHOWN_CHARACTERS]
            detail[first] = shown if detail[first] is None else f"{detail[first]}\n{shown}"
            mends.append(pc.if_else(pa.array(rows), f"{column}.{what}", pa.scalar(None, text)))
    return _joined(mends, notes.length), pa.array(reason, text), pa.array(detail, text), pa.array(record, text)


def _joined(mends: list[pa.Array], length: int) -> pa.Array:
    """Texts of a row between commas, null where there is none."""
    if not mends:
        return pa.nulls(length, pa.string())
    joined = mends[0]
    for more in mends[1:]:
        joined = pc.coalesce(pc.binary_join_element_wise(joined, more, ","), joined, more)
    return joined


def _python(value: pa.Scalar) -> Any:
    """As a Python value; a time beyond Python's calendar, or with nanoseconds, as text."""
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        if pa.types.is_timestamp(value.type):
            return str(value.cast(pa.timestamp(value.type.unit)).cast(pa.string()).as_py())
        return f"{value.type} beyond the calendar"


def record_json(record: dict[str, Any]) -> str:
    """A row as JSON text; bytes that are not UTF-8 are written as backslash escapes."""
    return json.dumps({name: _plain(value) for name, value in record.items()}, ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    value = value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    return value[: raw_sizes.SHOWN_CHARACTERS] if isinstance(value, str) else value


def _shown(value: Any) -> str:
    value = _plain(value)
    return "nothing" if value is None or value == "" else f"'{value}'" if isinstance(value, str) else str(value)


def _is_not_utf8(value: Any) -> bool:
    if not isinstance(value, bytes):
        return False
    try:
        value.decode()
    except UnicodeDecodeError:
        return True
    return False


def _refused(rows: list[sources.Refused], spec: Table, seq: int) -> pa.RecordBatch:
    schema = checked_schema(spec)
    columns: dict[str, Any] = {
        "seq": [seq + row.row for row in rows],
        "reason": [row.reason for row in rows],
        "detail": [row.detail for row in rows],
        "record": [row.record for row in rows],
    }
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(len(rows), f.type) for f in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
