"""Each raw row checked on its own: converted, cleaned, and given a reason when it is refused.

`check_rows` is the kernel behind `map_batches`: pieces of a source in, typed rows out. What needs other rows (duplicates,
unknown jobs) is SQL in `tables.py`.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tritower.ingest import convert, sources
from tritower.schema import RAW_TABLES, Column, Table

# What a log of views alone may lack.
VIEWS_MAY_LACK = ("request_id", "query", "clicked")
# Ids and free text are kept as they are; these are what a person reads, so they are cleaned before anything compares them.
_CLEANED = ("title", "company", "city", "region", "country", "occupation", "query", "interests", "past_titles")
# Empty text is a value only here; an advert without an employer's name has a missing company taken for empty.
_MAY_BE_EMPTY = ("query", "company")
_FIRST_TIME, _LAST_TIME = 0, 4_102_444_800_000_000  # 1970 to 2100, microseconds
_SHOWN_CHARACTERS = 200

# `seq` is a row's place in its source: file number times 2**FILE_BITS plus row number in the file.
FILE_BITS = 40
_TRACE = (("seq", pa.int64()), ("reason", pa.string()), ("detail", pa.string()), ("record", pa.string()))


def checked_schema(table: Table) -> pa.Schema:
    """The table's columns in engine types, then `seq` and why the row was refused (null when it was not)."""
    return pa.schema([(column.name, convert.engine_type(column.type)) for column in table.columns] + list(_TRACE))


def check_rows(
    pieces: Iterator[pa.RecordBatch], *, table: str, rename: dict[str, str], views: bool = False
) -> Iterator[pa.RecordBatch]:
    """Read pieces (sources.SPLIT_SCHEMA) and yield their rows as `checked_schema(table)`.

    Args:
        pieces: batches of the plan.
        table: jobs, impressions or users.
        rename: source column -> schema column.
        views: every row is a view, and so a request of its own.
    """
    spec = RAW_TABLES[table]
    for batch in pieces:
        for piece in batch.to_pylist():
            for raw in sources.read(piece):
                if raw.table.num_rows:
                    yield _checked(raw, spec, piece["number"] << FILE_BITS, rename, views=views)
                if raw.refused:
                    yield _refused(raw.refused, spec, piece["number"] << FILE_BITS)


def _checked(raw: sources.RawBatch, spec: Table, seq: int, rename: dict[str, str], *, views: bool) -> pa.RecordBatch:
    length = raw.table.num_rows
    optional = VIEWS_MAY_LACK if views else ()
    named = raw.table.rename_columns([rename.get(name, name) for name in raw.table.column_names])
    typed: dict[str, pa.Array] = {}
    faults: list[tuple[str, pa.Array, str]] = []
    for column in spec.columns:
        if column.name not in named.column_names:
            typed[column.name] = pa.nulls(length, convert.engine_type(column.type))
            if not column.nullable and column.name not in optional:
                faults.append(("missing_value", pa.array(np.ones(length, bool)), column.name))
            continue
        values, bad = convert.convert(named[column.name], column)
        values = _clean(values, column)
        typed[column.name] = values
        faults.append(("wrong_type", bad, column.name))
        if not column.nullable and column.name not in optional:
            faults.append(("missing_value", pc.and_(values.is_null(), pc.invert(bad)), column.name))
        faults.append(("out_of_range", _out_of_range(values, column), column.name))
    if views:
        faults.append(("not_a_view", pc.fill_null(pc.invert(typed["clicked"]), False), "clicked"))
        typed |= _view(typed, pc.add(raw.rows, seq))
    faults += _contradictions(spec.name, typed)
    reason, detail, record = _explain(faults, raw.table, named)
    columns = [*typed.values(), pc.add(raw.rows, seq), reason, detail, record]
    return pa.RecordBatch.from_arrays(columns, schema=checked_schema(spec))


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
    if column.name == "company":
        return pc.fill_null(values, "")
    if column.name in _MAY_BE_EMPTY:
        return values
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


def _out_of_range(values: pa.Array, column: Column) -> pa.Array:
    low, high = (_FIRST_TIME, _LAST_TIME) if column.type == "timestamp" else (column.low, column.high)
    outside = pa.array(np.zeros(len(values), bool))
    if low is not None:
        outside = pc.or_(outside, pc.fill_null(pc.less(values, low), False))
    if high is not None:
        outside = pc.or_(outside, pc.fill_null(pc.greater(values, high), False))
    return outside


def _contradictions(table: str, typed: dict[str, pa.Array]) -> list[tuple[str, pa.Array, str]]:
    """Values that are fine alone and impossible together."""
    if table == "impressions":
        early = pc.fill_null(pc.less(typed["clicked_at"], typed["ts"]), False)
        unclicked = pc.fill_null(pc.and_(typed["clicked_at"].is_valid(), pc.invert(typed["clicked"])), False)
        return [("click_before_impression", early, "clicked_at"), ("click_time_without_click", unclicked, "clicked_at")]
    if table == "jobs":
        return [("expires_before_posted", pc.fill_null(pc.less(typed["expires_at"], typed["posted_at"]), False), "expires_at")]
    return []


def _explain(faults: list[tuple[str, pa.Array, str]], raw: pa.Table, named: pa.Table) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Reason, detail and record of each row; the first fault in column order counts."""
    reason = np.full(raw.num_rows, None, object)
    detail = np.full(raw.num_rows, None, object)
    record = np.full(raw.num_rows, None, object)
    for name, mask, column in faults:
        for row in np.flatnonzero(mask.to_numpy(zero_copy_only=False)):
            if reason[row] is None:
                value = named[column][int(row)].as_py() if column in named.column_names else None
                reason[row] = "not_utf8" if name == "wrong_type" and _is_not_utf8(value) else name
                detail[row] = f"{column} = {_shown(value)}"[:_SHOWN_CHARACTERS]
                record[row] = record_json(raw.slice(int(row), 1).to_pylist()[0])
    text = pa.string()
    return pa.array(reason, text), pa.array(detail, text), pa.array(record, text)


def record_json(record: dict[str, Any]) -> str:
    """A row as JSON text; bytes that are not UTF-8 are written as backslash escapes."""
    return json.dumps({name: _plain(value) for name, value in record.items()}, ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


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
