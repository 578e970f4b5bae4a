"""The engine protocol on DuckDB; `tests/distributed/test_spark.py` holds Spark to the same rows."""

import datetime
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower.engines import batches as module
from tritower.engines.batches import write_parquet
from tritower.engines.protocol import Engine, open_engine
from tritower.errors import ConfigError, StorageError


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with open_engine(scratch=tmp_path / "scratch", threads=1) as opened:
        yield opened
    assert list((tmp_path / "scratch").iterdir()) == []


def test_times_are_microseconds_inside_and_timestamps_outside(engine: Engine, tmp_path: Path) -> None:
    when = datetime.datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=datetime.UTC)
    pq.write_table(pa.table({"ts": pa.array([when, None], pa.timestamp("us", tz="America/Lima"))}), tmp_path / "t.parquet")
    engine.register("t", tmp_path / "t.parquet")
    assert engine.rows("SELECT ts FROM t ORDER BY ts NULLS LAST") == [{"ts": 1_767_225_600_000_005}, {"ts": None}]
    schema = pa.schema({"ts": pa.timestamp("us", tz="UTC")})
    assert engine.write("SELECT ts FROM t", tmp_path / "out.parquet", schema, order_by="ts NULLS LAST") == 2
    assert pq.read_table(tmp_path / "out.parquet")["ts"].to_pylist() == [when, None]


def test_numbers_follow_the_order(engine: Engine) -> None:
    engine.register("t", pa.table({"word": ["b", "é", "A", "a"]}))
    assert engine.keep("numbered", "SELECT word FROM t", order_by="word", number="n") == 4
    words = [row["word"] for row in engine.rows("SELECT word, n FROM numbered ORDER BY n")]
    assert words == sorted(["b", "é", "A", "a"], key=str.encode)


def test_two_streams_at_once_and_queries_between(engine: Engine) -> None:
    engine.register("t", pa.table({"x": list(range(100_000))}))
    one, two = engine.stream("SELECT x FROM t", order_by="x"), engine.stream("SELECT x FROM t", order_by="x DESC")
    first, last = next(one)["x"][0].as_py(), next(two)["x"][0].as_py()
    assert engine.rows("SELECT count(*) AS n FROM t") == [{"n": 100_000}]
    assert (first, last) == (0, 99_999)
    assert sum(batch.num_rows for batch in one) + module.BATCH_ROWS == 100_000


def twice(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield pa.RecordBatch.from_arrays([batch["x"], pc.multiply(batch["x"], 2)], names=["x", "twice"])


@pytest.mark.parametrize("threads", [1, 4])
def test_a_presorted_stream_keeps_the_order_of_its_files(tmp_path: Path, threads: int) -> None:
    for part in range(5):
        table = pa.table({"x": list(range(part * 30_000, (part + 1) * 30_000))})
        pq.write_table(table, tmp_path / f"part-{part}.parquet", row_group_size=4_000)
    with open_engine(scratch=tmp_path / "scratch", threads=threads) as engine:
        engine.register("t", tmp_path)
        query = "SELECT t.x FROM t WHERE t.x >= 1000"
        schema = pa.schema({"x": pa.int64(), "twice": pa.int64()})
        batches = list(engine.stream(query, order_by="x", presorted=True, kernel=twice, schema=schema, batch_rows=7_000))
    assert [batch.num_rows for batch in batches] == [7_000] * 21 + [2_000]
    rows = pa.Table.from_batches(batches)
    assert rows["x"].to_pylist() == list(range(1_000, 150_000))
    assert rows["twice"].to_pylist() == list(range(2_000, 300_000, 2))


@given(sizes=st.lists(st.integers(0, 40), max_size=12), rows=st.integers(1, 50))
def test_batches_cut_anew_hold_the_same_rows(sizes: list[int], rows: int) -> None:
    values = iter(range(1_000))
    batches = [pa.RecordBatch.from_pydict({"x": pa.array([next(values) for _ in range(size)], pa.int64())}) for size in sizes]
    found = list(module.rebatch(batches, rows))
    assert [x for batch in found for x in batch["x"].to_pylist()] == list(range(sum(sizes)))
    assert all(batch.num_rows == rows for batch in found[:-1])
    assert all(0 < batch.num_rows <= rows for batch in found)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=40),
    batch_rows=st.integers(1, 50),
    wanted=st.integers(1, 60),
)
def test_groups_are_never_cut(sizes: list[int], batch_rows: int, wanted: int) -> None:
    keys = [key for key, size in enumerate(sizes) for _ in range(size)]
    batches = pa.table({"key": keys, "row": list(range(len(keys)))}).to_batches(max_chunksize=batch_rows)
    tables = list(module.whole_groups(batches, "key", rows=wanted))
    assert [row for table in tables for row in table["row"].to_pylist()] == list(range(len(keys)))
    seen = [set(table["key"].to_pylist()) for table in tables]
    assert sum(len(part) for part in seen) == len(set(keys))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), max_size=12),
    part_rows=st.integers(0, 45),
    start=st.integers(0, 5),
)
def test_parts_hold_what_they_should(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], part_rows: int, start: int
) -> None:
    schema = pa.schema({"n": pa.int32(), "x": pa.int64()})
    values = iter(range(1_000))
    batches = [pa.RecordBatch.from_pydict({"x": pa.array([next(values) for _ in range(size)], pa.int64())}) for size in sizes]
    path = tmp_path_factory.mktemp("parts") / "out"
    assert write_parquet(batches, path, schema, number="n", number_from=start, part_rows=part_rows) == sum(sizes)
    files = sorted(path.iterdir()) if part_rows else [path]
    tables = [pq.read_table(file) for file in files]
    whole = pa.concat_tables(tables)
    assert whole["x"].to_pylist() == list(range(sum(sizes)))
    assert whole["n"].to_pylist() == list(range(start, start + sum(sizes)))
    if part_rows:
        assert all(table.num_rows == part_rows for table in tables[:-1])
        assert tables[-1].num_rows <= part_rows
        assert tables[-1].num_rows > 0 or len(tables) == 1


def test_a_missing_source_and_an_unknown_engine(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothing is there"):
        engine.register("t", tmp_path / "none")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(StorageError, match="no Parquet files"):
        engine.register("t", tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match="unknown engine 'ducks'"):
        open_engine("ducks")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "folder", ["clicked=true", "x=9", "a[x]b", "st*r", "q?m", "pc%20t", "ha#sh", "qu'ote", "{a,b}", "back\\slash"]
)
def test_paths_carry_no_meaning(tmp_path: Path, folder: str) -> None:
    """Neither `key=value` folders nor the signs of patterns: files beside the one that is named are not read."""
    table = pa.table({"x": [1, 2], "clicked": [False, True]})
    for name in (folder, "axb", "star", "qum", "a", "b"):
        (tmp_path / name).mkdir()
        pq.write_table(table if name == folder else pa.table({"x": [0], "clicked": [True]}), tmp_path / name / "t.parquet")
    with open_engine(scratch=tmp_path / folder / "scratch", threads=1) as engine:
        engine.register("one", tmp_path / folder / "t.parquet")
        engine.register("folder", tmp_path / folder)
        engine.keep("kept", "SELECT * FROM one")
        for name in ("one", "folder", "kept"):
            assert engine.rows(f"SELECT * FROM {name} ORDER BY x") == table.to_pylist()
