"""No column of any type, with any value in it, stops a conversion; and every row has one outcome."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower.ingest.convert import convert
from tritower.schema import Column, Type

TYPES: tuple[Type, ...] = ("string", "int16", "int32", "int64", "bool", "timestamp", "list<string>")
EXTREME = [0, 1, -1, 2**31, -(2**63), 2**63 - 1]
ARRAYS = [
    pa.nulls(3),
    pa.array([True, None]),
    *(pa.array([0, 1, 100, None], kind) for kind in (pa.int8(), pa.uint8(), pa.int32(), pa.uint64())),
    pa.array([2**64 - 1, 2**63, 0], pa.uint64()),
    pa.array([*EXTREME, None]),
    *(pa.array(np.array([0, 1.5, -1, np.nan, np.inf, -np.inf, 65504], kind)) for kind in (np.float16, np.float32, np.float64)),
    pa.array([1.8e308, 5e-324, -0.0, 2.0**63, None]),
    pa.array([decimal.Decimal("1.5"), decimal.Decimal("-9" + "9" * 36), None]),
    pa.array([decimal.Decimal("9" * 70)], pa.decimal256(76, 0)),
    *(pa.array(EXTREME).cast(pa.timestamp(unit, tz=zone)) for unit in ("s", "ms", "us", "ns") for zone in (None, "Asia/Tokyo")),
    pa.array([0, 2**31 - 1, -(2**31), None], pa.int32()).cast(pa.date32()),
    pa.array([0, 86_400_000 * (2**36), None]).cast(pa.date64()),
    pa.array([datetime.time(1)]),
    pa.array(EXTREME).cast(pa.duration("s")),
    pa.array([b"\xff", b"", b"\x01", b"0" * 16, b"\x80" * 16, None]),
    pa.array([b"\x80" * 16, b"0" * 16, None], pa.binary(16)),
    pa.array([b"abc"], pa.binary_view()),
    pa.array(["x", None], pa.string_view()),
    pa.array([{"a": 1}, None]),
    pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
    pa.array([["a", None], [], None], pa.list_(pa.string())),
    pa.array([["a"], ["b"], None]).slice(1),
    pa.array([["a", "b"], None], pa.list_(pa.string(), 2)),
    pa.array([[["a"]], [None]]),
    pa.array([["a"]], pa.list_view(pa.string())),
    pa.array([[b"\xff"], [b"a"]]),
    pa.array(["1", "1", None]).dictionary_encode(),
    pa.RunEndEncodedArray.from_arrays([2, 3], ["2026-01-01", None]),
    pa.array([], pa.string()),
    pa.chunked_array([["1"], [], ["x"]]),
]


def _check(values: pa.Array | pa.ChunkedArray, type: Type, name: str) -> None:
    found = convert(values, Column(name=name, type=type, doc=""))
    assert len(found.values) == len(values)
    outcomes = found.bad.astype(int) + found.none + found.unclear + found.values.is_valid().to_numpy(zero_copy_only=False)
    assert (outcomes <= 1).all()


@pytest.mark.parametrize("type", TYPES)
def test_odd_arrays(type: Type) -> None:
    for values in ARRAYS:
        for name in ("x", "job_id", "query"):
            _check(values, type, name)


_ODD = st.text(alphabet="0123456789-+:/.,TZeE \\N[]{}'\"|aU", max_size=30)
_NEAR = st.from_regex(
    r"(20|19)\d{2}[-/]?\d{1,2}[-/]?\d{1,2}[T ]?\d{0,2}:?\d{0,2}:?\d{0,2}[.,]?\d{0,10} ?(Z|UTC|[+-]\d{1,4})?", fullmatch=True
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=20), _ODD, _NEAR), max_size=6), st.sampled_from(TYPES))
def test_odd_texts(texts: list[str | None], type: Type) -> None:
    texts = [text and text.encode(errors="ignore").decode() for text in texts]
    _check(pa.array(texts, pa.string()), type, "x")
    alone = [convert(pa.array([text], pa.string()), Column(name="x", type=type, doc="")) for text in texts]
    together = convert(pa.array(texts, pa.string()), Column(name="x", type=type, doc=""))
    assert together.values.to_pylist() == [found.values[0].as_py() for found in alone]
    for name in ("bad", "none", "unclear"):
        assert getattr(together, name).tolist() == [bool(getattr(found, name)[0]) for found in alone]
