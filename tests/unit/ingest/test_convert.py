"""Values of any source type into the schema's types."""

import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritower.ingest.convert import clean_text, convert
from tritower.schema import Column, Type


def converted(values: pa.Array, type: Type) -> tuple[list[object], list[bool]]:
    """The values, and which of them are not read."""
    found = convert(values, Column(name="x", type=type, doc=""))
    return found.values.to_pylist(), (found.bad | found.unclear).tolist()


DAY = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
SINCE_2000 = 946_684_800_000_000  # the earliest epoch that is read
US = int(DAY.timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2026-03-01", US),
        ("2026-03-01 00:00", US),
        ("2026-03-01T00:00:00Z", US),
        ("2026-03-01T00:00:00.5Z", US + 500_000),
        ("2026-03-01T00:00:00.123456789Z", US + 123_456),
        ("2026-03-01 02:30:00+02:30", US),
        ("2026-02-28T19:00:00-0500", US),
        ("2026-03-01 00:00:00 UTC", US),
        (" 2026-03-01 ", US),
        (str(US // 1_000_000), US),
        (str(US // 1_000), US),
        (str(US), US),
        ("", None),
        ("2026-13-01", "bad"),
        ("2026-02-29T10:00:00Z", "bad"),
        ("01/03/2026", "bad"),
        ("10:00", "bad"),
        ("99999999999999999999", "bad"),
    ],
)
def test_times_in_text(text: str, micros: object) -> None:
    for kind in (pa.string(), pa.binary(), pa.large_string()):
        array = pa.array(["2026-03-01", text]).cast(kind)
        values, bad = converted(array, "timestamp")
        assert values == [US, None if micros == "bad" else micros]
        assert bad == [False, micros == "bad"]


@given(st.integers(0, 4_000_000_000_000_000))
def test_every_time_survives_text_and_epoch(micros: int) -> None:
    when = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(microseconds=micros)
    texts = [when.isoformat(), when.replace(tzinfo=None).isoformat(sep=" ")]
    assert converted(pa.array(texts), "timestamp") == ([micros, micros], [False, False])
    assert converted(pa.array([when], pa.timestamp("us", tz="Asia/Tokyo")), "timestamp")[0] == [micros]
    if micros >= SINCE_2000:
        assert converted(pa.array([micros]), "timestamp")[0] == [micros]
        assert converted(pa.array([micros // 1_000_000]), "timestamp")[0] == [micros // 1_000_000 * 1_000_000]


def test_whole_numbers() -> None:
    assert converted(pa.array(["1", " -2 ", "3.0", "3.5", "x", "", None, "1e3"]), "int64") == (
        [1, -2, 3, None, None, None, None, 1000],
        [False, False, False, True, True, False, False, False],
    )
    assert converted(pa.array([1.0, 2.5, float("nan"), None, 1e300]), "int16") == (
        [1, None, None, None, None],
        [False, True, False, False, True],
    )
    assert converted(pa.array([32767, 32768, -32769]), "int16") == ([32767, None, None], [False, True, True])
    assert converted(pa.array([True]), "int16") == ([None], [True])


def test_truth_values() -> None:
    words = ["true", "F", " Yes ", "0", "1", "n", "", "2", "ja"]
    assert converted(pa.array(words), "bool") == (
        [True, False, True, False, True, False, None, None, None],
        [False, False, False, False, False, False, False, True, True],
    )
    assert converted(pa.array([1, 0, 2, None]), "bool") == ([True, False, None, None], [False, False, True, False])
    assert converted(pa.array([1.0, 0.0]), "bool") == ([True, False], [False, False])


def test_ids_and_texts() -> None:
    assert converted(pa.array([12, None]), "string") == (["12", None], [False, False])
    assert converted(pa.array([12.0, None, 1.5]), "string") == (["12", None, None], [False, False, True])
    assert converted(pa.array([b"ok", b"\xe9", None]), "string") == (["ok", None, None], [False, True, False])
    assert converted(pa.array([[1]]), "string") == ([None], [True])
    assert converted(pa.array([None, None]), "string") == ([None, None], [False, False])


def test_lists() -> None:
    assert converted(pa.array(["a| b |", '["x", "y|z"]', "[oops", "", None, "[1]", '"q"']), "list<string>") == (
        [["a", "b"], ["x", "y|z"], None, None, None, None, ['"q"']],
        [False, False, True, False, False, True, False],
    )
    assert converted(pa.array([["a"], None]), "list<string>") == ([["a"], None], [False, False])


def test_text_is_cleaned() -> None:
    assert clean_text(pa.array(["  Cafe\u0301\t\n bar\u00a0 ", None, ""])).to_pylist() == ["Café bar", None, ""]
