"""Times of any source type as microseconds since 1970 in UTC.

Read are Arrow's times and dates, epochs in seconds, milliseconds, microseconds or nanoseconds (whole, float, decimal or text),
and text: ISO 8601 and what databases make of it, with or without a zone. What is well formed takes one cast; only the rows
that it leaves go through the rest.

An epoch's unit is told by its size. From 2000 to 2100 the four units have ranges that do not meet, so a number outside all of
them is unclear and not read; neither is a date that starts with its day or month.
"""

import datetime
import email.utils
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tritower.ingest.values import Converted, Mask, all_bad, blank_is_null, converted, mask, says_none, valid

Int64 = NDArray[np.int64]

_EPOCH_FROM, _EPOCH_TO = 946_684_800, 4_102_444_800  # 2000 to 2100, seconds
_FOR_EVER = 253_402_214_400  # 9999-12-31, seconds
_DAY_S = 86_400
_NO_NUMBERS = (0, -1, -(2**63), 2**63 - 1)
_UTC = pa.timestamp("us", tz="UTC")
_CLOCK = pa.timestamp("us")

_ZONE = r"(Z|[+-]\d{2}(:?\d{2})?)$"
_ZONED = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?" + _ZONE
_PLAIN = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?)?$"
_NUMBER = r"^-?\d+(\.\d*)?([eE][+-]?\d+)?$"
_WHOLE = r"^-?\d{1,19}$"
_NAMED_ZONE = r"^(?P<clock>\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?) ?\[?(?P<zone>[A-Za-z]+(?:/[A-Za-z0-9_+-]+)+)\]?$"
_MAIL = r"\d [A-Z][a-z]{2} \d{4} "
_UNCLEAR = r"^\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b|^\d{4}-\d{2}-\d{2}T.* ?[A-Z]{2,5}$"
_NO_TIME = r"(?i)^([+-]?inf(inity)?|0000-00-00.*)$"

# Ways to write a time that ISO 8601 or Arrow does not know, in the order in which they are mended.
_MENDS = (
    (r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", r"\1-\2-\3"),
    (r"^(\d{4})(\d{2})(\d{2})[T ](\d{2}):?(\d{2}):?(\d{2})", r"\1-\2-\3T\4:\5:\6"),
    (r"^(\d{4}-)(\d-)", r"\10\2"),
    (r"^(\d{4}-\d{2}-)(\d)(\D|$)", r"\10\2\3"),
    (r"^(\d{4}-\d{2}-\d{2})[Tt ] *(\d)", r"\1T\2"),
    (r"^(.{10}T)(\d):", r"\10\2:"),
    (r"(:\d{2}),(\d)", r"\1.\2"),
    (r"(\.\d{6})\d+", r"\1"),
    (r"(Z|[+-]\d{2}:?\d{2})\[[^\]]+\]$", r"\1"),
    (r"(?i) ?\[?(Z|UTC|GMT|Etc/UTC|Etc/GMT)\]?$", r"Z"),
    (r"(?i) ?(?:UTC|GMT)([+-]\d)", r"\1"),
    (r" ([+-]\d{1,2}(:?\d{2})?)$", r"\1"),
    (r"(:\d{2}(?:\.\d+)?[+-])(\d(:\d{2})?)$", r"\10\2"),
    (r"([+-]\d{2}:\d{2}):00$", r"\1"),
    (r"^(\d{4}-\d{2}-\d{2})(Z|[+-]\d{2}:?\d{2})$", r"\1T00:00\2"),
)


def to_micros(values: pa.Array) -> Converted:
    """Any column of times as int64."""
    kind = values.type
    if pa.types.is_string(kind):
        return _from_text(blank_is_null(values))
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _from_times(values)
    if pa.types.is_null(kind):
        return converted(values.cast(pa.int64()))
    if pa.types.is_float16(kind) or pa.types.is_float32(kind):  # steps of 128 s and more: which one is meant is lost
        nothing = mask(pc.is_nan(values.cast(pa.float32()))) | (values.cast(pa.float32()).fill_null(0).to_numpy() == 0)
        present = valid(values)
        return converted(pa.nulls(len(values), pa.int64()), none=present & nothing, unclear=present & ~nothing)
    numbers = _plain_numbers(values)
    return all_bad(values, pa.int64()) if numbers is None else _from_numbers(numbers, valid(values))


def _from_times(values: pa.Array) -> Converted:
    """Arrow's own times; what does not fit into microseconds lies further off than any calendar reaches."""
    kind = values.type
    if pa.types.is_date32(kind):
        unit, number = 86_400_000_000, values.cast(pa.int32()).cast(pa.int64())
    elif pa.types.is_date64(kind):
        unit, number = 1_000, values.cast(pa.int64())
    else:
        unit, number = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0}[kind.unit], values.cast(pa.int64())
    if unit == 0:
        number = values.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(pa.int64())
    if unit <= 1:
        return converted(number)
    whole = number.fill_null(0).to_numpy()
    far = np.abs(whole) > (2**63 - 1) // unit
    return _times(np.where(far, 0, whole) * unit, valid(values) & ~far, none=far)


def _plain_numbers(values: pa.Array) -> NDArray[Any] | None:
    """A numeric column as int64 or float64, nulls as 0; None when it holds no numbers."""
    kind = values.type
    if pa.types.is_uint64(kind):
        number = values.fill_null(0).to_numpy()
        return np.where(number > 2**63 - 1, -1, number.astype(np.int64))
    if pa.types.is_integer(kind):
        return np.asarray(values.cast(pa.int64()).fill_null(0).to_numpy())
    if pa.types.is_decimal(kind):
        try:
            return np.asarray(values.cast(pa.int64()).fill_null(0).to_numpy())
        except pa.ArrowInvalid:
            return np.asarray(values.cast(pa.float64()).fill_null(0).to_numpy())
    if pa.types.is_floating(kind):
        return np.asarray(values.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False))
    return None


def _from_numbers(number: NDArray[Any], present: Mask) -> Converted:
    micros, known = np.zeros(len(number), np.int64), np.zeros(len(number), bool)
    with np.errstate(invalid="ignore"):
        for per_second in (1, 10**3, 10**6, 10**9):
            fits = present & (number >= _EPOCH_FROM * per_second) & (number < _EPOCH_TO * per_second)
            if fits.any():
                micros[fits] = _scaled(number[fits], per_second)
                known |= fits
        left = present & ~known
        if not left.any():
            return _times(micros, known)
        gap = np.isnan(number) if number.dtype.kind == "f" else np.zeros(len(number), bool)  # how pandas writes a gap
        none = left & (np.isin(number, _NO_NUMBERS) | np.isinf(number))
        for per_second in (1, 10**3, 10**6):
            none |= left & (number >= _FOR_EVER * per_second) & (number <= (_FOR_EVER + 2 * _DAY_S) * per_second)
    for digits, low, high in ((8, 20_000_101, 20_991_231), (14, 20_000_101_000_000, 20_991_231_235_959)):
        dated = left & ~none & ~gap & (number >= low) & (number <= high)
        if dated.any():
            read, good = _from_digits(number[dated].astype(np.int64) * 10 ** (14 - digits))
            micros[dated], known[dated] = read, good
    return _times(micros, known, none=none, unclear=left & ~known & ~none & ~gap)


def _scaled(number: NDArray[Any], per_second: int) -> Int64:
    if number.dtype.kind == "f":
        return np.rint(number * (1e6 / per_second)).astype(np.int64)
    return np.asarray(number * (10**6 // per_second) if per_second <= 10**6 else number // 1_000, np.int64)


def _from_digits(number: Int64) -> tuple[Int64, Mask]:
    """20260131235959 as microseconds, and which of them the calendar has."""
    parts = [number // 10**place % 100 for place in (8, 6, 4, 2, 0)]
    month, day, hour, minute, second = parts
    first = ((number // 10**10 - 1970) * 12 + month - 1).astype("datetime64[M]")
    date = first.astype("datetime64[D]") + (day - 1)
    good = (month >= 1) & (month <= 12) & (day >= 1) & (date.astype("datetime64[M]") == first)
    good &= (hour < 24) & (minute < 60) & (second < 60)
    seconds = date.astype("datetime64[s]").astype(np.int64) + hour * 3_600 + minute * 60 + second
    return seconds * 1_000_000, good


def _times(micros: Int64, known: Mask, *, none: Mask | None = None, unclear: Mask | None = None) -> Converted:
    return converted(pa.array(micros, pa.int64(), mask=~known), none=none, unclear=unclear)


def _from_text(text: pa.Array) -> Converted:
    """Trimmed texts, null where blank."""
    if text.null_count == len(text):
        return converted(pa.nulls(len(text), pa.int64()))
    first = text[pc.index(text.is_valid(), True).as_py()].as_py()
    try:
        return converted(text.cast(_UTC if re.search(_ZONE, first[10:]) else _CLOCK).cast(pa.int64()))
    except pa.ArrowInvalid:
        times = _iso(text)
    rows = np.flatnonzero(valid(text) & ~valid(times))
    rest = _other(text.take(pa.array(rows)))
    micros, known = times.fill_null(0).to_numpy().copy(), valid(times)
    micros[rows], known[rows] = rest.values.fill_null(0).to_numpy(), valid(rest.values)
    masks = {name: np.zeros(len(text), bool) for name in ("bad", "none", "unclear")}
    for name, found in masks.items():
        found[rows] = getattr(rest, name)
    return converted(pa.array(micros, pa.int64(), mask=~known), **masks)


def _iso(text: pa.Array) -> pa.Array:
    nothing = pa.scalar(None, pa.string())
    zoned = pc.if_else(pc.match_substring_regex(text, _ZONED), text, nothing)
    plain = pc.if_else(pc.match_substring_regex(text, _PLAIN), text, nothing)
    return pc.coalesce(_cast(zoned, _UTC).cast(pa.int64()), _cast(plain, _CLOCK).cast(pa.int64()))


def _cast(text: pa.Array, kind: pa.DataType) -> pa.Array:
    """A cast that gives null where a text is not of that type, by halves, as Arrow names no row."""
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        if len(text) == 1:
            return pa.nulls(1, kind)
        half = len(text) // 2
        return pa.concat_arrays([_cast(text.slice(0, half), kind), _cast(text.slice(half), kind)])


def _other(text: pa.Array) -> Converted:
    """Texts that are not plain ISO 8601, none of them null."""
    number = _numbers_in_text(text)
    none = number.none | says_none(text) | mask(pc.match_substring_regex(text, _NO_TIME))
    mended = pc.if_else(pa.array(none), pa.scalar(None, pa.string()), text)
    for pattern, replacement in _MENDS:
        mended = pc.replace_substring_regex(mended, pattern, replacement)
    times = pc.coalesce(number.values, _iso(mended))
    zoned, twice = _named_zones(mended, valid(times))
    times = pc.coalesce(times, zoned, _mail_dates(text, valid(times)))
    left = ~valid(times) & ~none
    unclear = left & (number.unclear | twice | mask(pc.match_substring_regex(mended, _UNCLEAR)))
    return converted(times, bad=left & ~unclear, none=none, unclear=unclear)


def _numbers_in_text(text: pa.Array) -> Converted:
    nothing = pa.scalar(None, pa.string())
    text = pc.replace_substring_regex(text, r"^\+", "")  # Arrow reads no plus sign
    numeric = pc.match_substring_regex(text, _NUMBER)
    if not mask(numeric).any():
        return converted(pa.nulls(len(text), pa.int64()))
    whole = _cast(pc.if_else(pc.match_substring_regex(text, _WHOLE), text, nothing), pa.int64())
    real = pc.if_else(pc.and_(numeric, whole.is_null()), text, nothing).cast(pa.float64())
    wholes = _from_numbers(whole.fill_null(0).to_numpy(), valid(whole))
    reals = _from_numbers(real.fill_null(0).to_numpy(zero_copy_only=False), valid(real))
    return converted(
        pc.coalesce(wholes.values, reals.values), none=wholes.none | reals.none, unclear=wholes.unclear | reals.unclear
    )


def _named_zones(text: pa.Array, done: Mask) -> tuple[pa.Array, Mask]:
    """Clock times with the name of a zone, and the rows whose hour comes twice (or never) when clocks are changed."""
    times, twice = pa.nulls(len(text), pa.int64()), np.zeros(len(text), bool)
    found = pc.extract_regex(pc.if_else(pa.array(done), pa.scalar(None, pa.string()), text), _NAMED_ZONE)
    if found.null_count == len(found):
        return times, twice
    zone, clock = pc.struct_field(found, "zone"), pc.struct_field(found, "clock")
    for name in zone.unique().drop_null().to_pylist():
        local = _cast(pc.if_else(pc.equal(zone, name), clock, pa.scalar(None, pa.string())), _CLOCK)
        try:
            early, late = (pc.assume_timezone(local, name, ambiguous=k, nonexistent=k) for k in ("earliest", "latest"))
        except (pa.ArrowInvalid, pa.ArrowKeyError):
            continue  # no such zone
        changed = mask(pc.not_equal(early, late))
        twice |= changed
        times = pc.coalesce(times, pc.if_else(pa.array(changed), pa.scalar(None, pa.int64()), early.cast(pa.int64())))
    return times, twice


def _mail_dates(text: pa.Array, done: Mask) -> pa.Array:
    """`Mon, 05 Jan 2026 00:00:54 +0000` (RFC 5322), which Snowflake and HTTP write."""
    rows = np.flatnonzero(~done & mask(pc.match_substring_regex(text, _MAIL)))
    micros, known = np.zeros(len(text), np.int64), np.zeros(len(text), bool)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    for row in rows:
        try:
            time = email.utils.parsedate_to_datetime(text[int(row)].as_py())
        except ValueError:
            continue
        time = time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
        micros[row], known[row] = (time - epoch) // datetime.timedelta(microseconds=1), True
    return pa.array(micros, pa.int64(), mask=~known)
