"""Every call of the engine protocol gives equal rows on DuckDB and Spark; what Spark says when it fails. Not run where there is
no Java 17 or no PySpark.
"""

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tritower.engines.protocol import Engine, open_engine
from tritower.engines.spark import SparkEngine
from tritower.errors import DataError, StepError

from tests.distributed.conftest import WITH_SPARK

pytestmark = WITH_SPARK


@pytest.fixture(scope="module")
def engines(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, ...]]:
    """DuckDB, Spark with its scratch on the disk, and Spark with its scratch in an object store."""
    from pyspark.sql import SparkSession

    folder = tmp_path_factory.mktemp("engines")
    with (
        open_engine("duckdb", scratch=folder / "duckdb") as small,
        open_engine("spark", scratch=folder / "spark", threads=2) as large,
        SparkEngine(scratch=f"{store}/scratch", session=SparkSession.getActiveSession()) as remote,
    ):
        yield small, large, remote


def _events(count: int) -> pa.Table:
    rng = random.Random(7)
    start = 1_700_000_000_000_000
    return pa.table(
        {
            "id": pa.array(range(count), pa.int64()),
            "who": pa.array([f"u{rng.randrange(50)}" for _ in range(count)]),
            "word": pa.array([rng.choice(["é", "z", "Z", "a ", "", None, "𝒳", "￿"]) for _ in range(count)]),
            "ts": pa.array([start + rng.randrange(1000) for _ in range(count)], pa.timestamp("us", tz="UTC")),
            "small": pa.array([rng.choice([None, 1, -5]) for _ in range(count)], pa.int16()),
            "words": pa.array([rng.choice([None, [], ["a", "b"]]) for _ in range(count)], pa.list_(pa.string())),
        }
    )


def _double(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield pa.RecordBatch.from_arrays([batch["id"], pc.multiply(batch["id"], 2)], names=["id", "twice"])


def _rank(table: pa.Table) -> pa.Table:
    """Each row's place in its group by (ts, id): wrong whenever a group is cut."""
    table = table.sort_by([("who", "ascending"), ("ts", "ascending"), ("id", "ascending")])
    places, last = [], None
    for who in table["who"].to_pylist():
        places.append(places[-1] + 1 if who == last else 0)
        last = who
    return pa.table({"id": table["id"], "place": pa.array(places, pa.int64())})


def _fail(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for _ in batches:
        raise DataError("a bad row", where="row 7", remedy="Mend it.")
    yield from ()


def _work(engine: Engine, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every call of the protocol; results in a fixed order."""
    folder.mkdir()
    pq.write_table(_events(5_000), folder / "events.parquet", row_group_size=1_000)
    engine.register("events", folder / "events.parquet")
    engine.register("few", pa.table({"who": ["u1", "u2"], "weight": pa.array([0.5, 1.5])}))
    engine.sql("late", "SELECT e.* FROM events e SEMI JOIN few f ON e.who = f.who WHERE e.ts % 2 = 0")
    counts = {
        "numbered": engine.keep(
            "numbered", "SELECT id, who, word, ts FROM events", order_by="word NULLS LAST, ts, id", number="n"
        ),
        "twice": engine.map_batches(
            "twice", "SELECT id FROM late", _double, pa.schema([("id", pa.int64()), ("twice", pa.int64())])
        ),
        "ranked": engine.map_groups(
            "ranked", "SELECT id, who, ts FROM events", "who", _rank, pa.schema([("id", pa.int64()), ("place", pa.int64())])
        ),
        "none": engine.keep("none", "SELECT id FROM events WHERE id < 0"),
    }
    schema = pa.schema({"n": pa.int32(), "id": pa.int64(), "ts": pa.timestamp("us", tz="UTC"), "words": pa.list_(pa.string())})
    written = engine.write(
        "SELECT e.id, e.ts, e.words FROM events e ANTI JOIN few f ON e.who = f.who",
        folder / f"{type(engine).__name__}",
        schema,
        order_by="ts, id",
        number="n",
        number_from=100,
        part_rows=1_500,
    )
    files = sorted((folder / type(engine).__name__).iterdir())
    streamed = [row for batch in engine.stream("SELECT id FROM late", order_by="id") for row in batch.to_pylist()]
    wide = pa.schema({"id": pa.int64(), "twice": pa.int64()})
    sized = list(engine.stream("SELECT id FROM late", order_by="id", kernel=_double, schema=wide, batch_rows=7))
    assert {batch.num_rows for batch in sized[:-1]} <= {7} and 0 < sized[-1].num_rows <= 7
    return {
        "with_kernel": [row for batch in sized for row in batch.to_pylist()],
        "counts": [counts | {"written": written, "files": len(files)}],
        "numbered": engine.rows("SELECT * FROM numbered ORDER BY n"),
        "again": engine.rows("SELECT n FROM numbered WHERE word = 'z' ORDER BY n"),
        "twice": engine.rows("SELECT * FROM twice ORDER BY id"),
        "ranked": engine.rows("SELECT * FROM ranked ORDER BY id"),
        "none": engine.rows("SELECT count(*) AS n FROM none"),
        "lists": engine.rows("SELECT id, small, words FROM events ORDER BY id"),
        "written": [row for file in files for row in pq.read_table(file).to_pylist()],
        "streamed": streamed,
    }


def test_every_engine_gives_equal_rows(engines: tuple[Engine, ...], tmp_path: Path) -> None:
    small, large, remote = (_work(engine, tmp_path / str(place)) for place, engine in enumerate(engines))
    assert small["counts"][0]["numbered"] == 5_000
    assert small["counts"][0]["files"] == 4
    assert [row["n"] for row in small["written"]] == list(range(100, 100 + len(small["written"])))
    for name in small:
        assert large[name] == small[name], name
        assert remote[name] == small[name], name


def test_an_error_of_a_kernel_keeps_its_kind(engines: tuple[Engine, ...]) -> None:
    for engine in engines:
        engine.register("one", pa.table({"x": [1]}))
        with pytest.raises(DataError, match=r"a bad row \(in row 7\). Mend it."):
            engine.map_batches("failed", "SELECT x FROM one", _fail, pa.schema([("x", pa.int64())]))


# --------------------------------------------------------------------------------------------------------- errors and memory


def _stumble(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for _ in batches:
        raise ValueError("not a number: x")
    yield from ()


def _vanish(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for _ in batches:
        os.kill(os.getpid(), signal.SIGKILL)
    yield from ()


def test_what_went_wrong_in_a_worker_is_said_in_one_line(engines: tuple[Engine, ...]) -> None:
    engine = engines[1]
    engine.register("one", pa.table({"x": [1]}))
    schema = pa.schema([("x", pa.int64())])
    with pytest.raises(StepError, match=r"^Spark failed: ValueError: not a number: x \(in engine\)\. See the logs"):
        engine.map_batches("failed", "SELECT x FROM one", _stumble, schema)
    with pytest.raises(StepError, match=r"^a Python worker of Spark ended on the way, most likely for want of memory"):
        engine.map_batches("failed", "SELECT x FROM one", _vanish, schema)


_TOO_MUCH = """
import sys
import pyarrow as pa
from tritower.errors import StepError
from tritower.engines.spark import SparkEngine

try:
    with SparkEngine(memory_limit=sys.argv[1], threads=1) as engine:
        engine.register("t", pa.table({"x": ["a", "b"], "i": [0, 1]}))
        engine.rows(sys.argv[2])
except StepError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("memory_limit", "query", "expected"),
    [
        ("256MiB", "SELECT 1", "the engine's memory is too small: .*System memory 268435456 must be at least"),
        (
            "450MiB",
            "SELECT /*+ BROADCAST(b) */ max(w) FROM t JOIN (SELECT id, repeat(id, 1000) AS w FROM range(400000)) b ON i = id",
            "the engine's memory is too small: .*Not enough memory to build and broadcast",
        ),
        ("450MiB", "SELECT max(length(repeat(x, 700000000))) FROM t", "Spark's Java process ended on the way"),
    ],
    ids=["less than Spark takes", "a broadcast table", "a task, which ends the Java process"],
)
def test_too_little_memory_is_said_in_one_line_with_the_remedy(memory_limit: str, query: str, expected: str) -> None:
    command = [sys.executable, "-c", _TOO_MUCH, memory_limit, query]
    (line,) = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    assert re.match(rf"{expected}.* \(in memory_limit\)\. Raise it, or lower threads", line), line


def test_a_table_in_a_store_is_not_taken_for_small(engines: tuple[Engine, ...], tmp_path: Path) -> None:
    """Spark knows the list of its files only; by the size of that it would hold any table whole in every worker."""
    rows = 300_000
    keys = np.random.default_rng(0).permutation(rows)
    pq.write_table(pa.table({"k": keys, "v": keys}), tmp_path / "large.parquet")
    remote = engines[2]
    for name in ("one", "other"):
        remote.register(name, tmp_path / "large.parquet")
    (plan,) = remote.rows("EXPLAIN SELECT o.v FROM one AS o JOIN other AS r ON o.k = r.k")
    assert "SortMergeJoin" in plan["plan"] and "Broadcast" not in plan["plan"]
    assert remote.rows("SELECT count(*) AS n FROM one AS o JOIN other AS r ON o.k = r.k") == [{"n": rows}]
