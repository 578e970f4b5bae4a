"""What `POST /events` takes: impressions and clicks as rows, checked one by one before any of them is written down."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from tritower.errors import DataError
from tritower.features.online import EVENTS
from tritower.serving.moment import microseconds

KINDS = ("impression", "click")
_COLUMNS = {column.name: column for column in EVENTS.columns}
_LONGEST = 4_096
_LATEST_US = 253_402_300_799_000_000  # the end of the year 9999


def checked(event: Mapping[str, Any], number: int = 0) -> dict[str, Any]:
    """An event with times in microseconds since 1970, or the reason why it is none.

    `clicked` may be missing: an impression is then not clicked, and a click is. A click repeats the user and the query of its
    impression. A visitor who is not known by name has an id of the visit's.

    Args:
        event: a row of `EVENTS`: values of JSON; times also as ISO 8601 with a zone.
        number: 0-based place in what was sent, for the message.

    Raises:
        DataError: an unknown or missing column, or a value of another type or out of range.
    """
    if not isinstance(event, Mapping):
        raise _bad(number, "", f"it is {type(event).__name__}, not an object with a value per column")
    if strange := sorted(map(str, event.keys() - _COLUMNS.keys())):
        raise _bad(number, strange[0], "there is no such column")
    row = {name: _value(name, value, number) for name, value in event.items() if value is not None}
    kind = row.setdefault("event", "impression")
    if kind not in KINDS:
        raise _bad(number, "event", f"it is {kind!r}, not impression or click")
    row.setdefault("clicked", kind == "click")
    for name in ("request_id", "ts", "user_id", "query", "job_id"):
        if row.get(name) is None or (row[name] == "" and name != "query"):
            raise _bad(number, name, "it is missing")
    if kind == "click":
        if not row["clicked"]:
            raise _bad(number, "clicked", "it is false in a click")
        row.setdefault("clicked_at", row["ts"])
    if row.get("clicked_at", row["ts"]) < row["ts"]:
        raise _bad(number, "clicked_at", "it is before ts, the time of the impression")
    return row


def _value(name: str, value: Any, number: int) -> Any:
    column = _COLUMNS[name]
    if column.type == "timestamp":
        return _time(name, value, number)
    if column.type == "string":
        if not isinstance(value, str):
            raise _bad(number, name, f"it is {type(value).__name__}, not text")
        if len(value) > _LONGEST or (not value.isascii() and _has_surrogate(value)):
            raise _bad(number, name, f"it is longer than {_LONGEST:,} characters, or no Unicode")
    elif column.type == "bool":
        if not isinstance(value, bool):
            raise _bad(number, name, f"it is {type(value).__name__}, not true or false")
    elif isinstance(value, bool) or not isinstance(value, int) or not (column.low or 0) <= value <= (column.high or 0):
        raise _bad(number, name, f"it is {value!r:.40}, not a whole number from {column.low:g} to {column.high:g}")
    return value


def _time(name: str, value: Any, number: int) -> int:
    if isinstance(value, str):
        try:
            moment = dt.datetime.fromisoformat(value)
        except ValueError:
            raise _bad(number, name, f"{value!r:.40} is no time in ISO 8601") from None
        if moment.tzinfo is None:
            raise _bad(number, name, f"{value!r:.40} has no zone (add Z or +00:00)")
        value = microseconds(moment)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LATEST_US:
        raise _bad(number, name, f"it is {value!r:.40}, not microseconds since 1970")
    return value


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= one <= "\udfff" for one in text)


def _bad(number: int, name: str, problem: str) -> DataError:
    where = f"event {number}, {name}" if name else f"event {number}"
    return DataError(problem, where=where, remedy="Columns: " + ", ".join(_COLUMNS) + ".")
