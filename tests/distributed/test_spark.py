"""DuckDB and Spark give the same rows; a killed worker changes nothing. Not run where there is no Java 17 or no PySpark."""

import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tritower.engine import Engine, open_engine
from tritower.errors import DataError
from tritower.ingest import step
from tritower.ingest.config import IngestConfig
from tritower.spark import SparkEngine

_HAS_SPARK = shutil.which("java") is not None and importlib.util.find_spec("pyspark") is not None
pytestmark = [
    pytest.mark.spark,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not _HAS_SPARK, reason="NOT RUN: the Spark engine needs Java 17 and the extra `spark`"),
]


# ------------------------------------------------------------------------------------------------------------- the engines


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A place on a real S3 server that the workers reach through the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as output, pytest.MonkeyPatch.context() as patch:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            patch.setenv("TRITOWER_S3_ENDPOINT", f"http://127.0.0.1:{port}")
            patch.setenv("AWS_ACCESS_KEY_ID", "key")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
            keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
            client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys)
            _wait(lambda: _answers(port), "S3 server", log.parent, timeout_s=60)
            client.create_bucket(Bucket="bucket")
            yield "s3://bucket"
        finally:
            process.terminate()
            process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


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
    return {
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


# --------------------------------------------------------------------------------------------------------------- the ingest


def _log(folder: Path, requests: int) -> dict[str, str]:
    """A log with every kind of refused and repeated row, in several files."""
    rng = random.Random(3)
    jobs = [{"job_id": f"j{i % 290}", "title": f"Titel  {i % 37}", "company": f"Firma{i % 11}"} for i in range(300)]
    users = [{"user_id": f"u{i}", "interests": [f"Titel {i % 7}", "Ärztin"][: i % 3], "past_titles": None} for i in range(40)]
    rows = []
    for number in range(requests):
        for place in range(1, 9):
            clicked = rng.random() < 0.2
            ts = 1_700_000_000_000_000 + number // 2 * 60_000_000
            rows.append(
                {
                    "request_id": f"r{number}",
                    "ts": ts,
                    "user_id": f"u{number % 61}" if rng.random() < 0.999 else "other",
                    "query": f"suche {number % 29}",
                    "job_id": f"j{rng.randrange(295)}",
                    "clicked": clicked,
                    "position": place if rng.random() < 0.99 else -1,
                    "clicked_at": ts + rng.choice([-1, 5_000_000]) if clicked and rng.random() < 0.1 else None,
                }
            )
            if rng.random() < 0.02:
                rows.append(dict(rows[-1]))
    pq.write_table(pa.Table.from_pylist(jobs), folder / "jobs.parquet")
    pq.write_table(pa.Table.from_pylist(users), folder / "users.parquet")
    (folder / "impressions").mkdir()
    for part in range(4):
        share = pa.Table.from_pylist(rows[part::4])
        pq.write_table(share, folder / "impressions" / f"{part}.parquet", row_group_size=500)
    return {
        "jobs": str(folder / "jobs.parquet"),
        "users": str(folder / "users.parquet"),
        "impressions": str(folder / "impressions"),
    }


def _assert_equal(one: Path, other: Path) -> None:
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*.parquet"))
    assert names == sorted(str(path.relative_to(other)) for path in other.rglob("*.parquet"))
    for name in names:
        assert pq.ParquetFile(one / name).read().equals(pq.ParquetFile(other / name).read()), name
    summaries = [json.loads((path / "dataset.json").read_text()) for path in (one, other)]
    assert summaries[0]["counts"] == summaries[1]["counts"]
    assert summaries[0]["splits"] == summaries[1]["splits"]


@pytest.mark.parametrize("negatives", [0, 3])
def test_ingest_gives_the_same_dataset(tmp_path: Path, negatives: int) -> None:
    uris = _log(tmp_path, 400)
    if negatives:
        clicks = pq.read_table(uris["impressions"]).filter(pc.field("clicked"))
        uris["impressions"] = str(tmp_path / "views.parquet")
        pq.write_table(clicks.drop_columns(["clicked", "request_id"]), uris["impressions"])
    for name in ("duckdb", "spark"):
        config = IngestConfig(engine=name, max_quarantined_share=1.0, threads=2, negatives=negatives)  # type: ignore[arg-type]
        step.run(**uris, dataset=tmp_path / name, config=config)
    _assert_equal(tmp_path / "duckdb", tmp_path / "spark")


@contextlib.contextmanager
def _cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A standalone Spark master and two workers on loopback; yields its address and the workers."""
    import pyspark

    spark_class = Path(pyspark.__file__).parent / "bin" / "spark-class"
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    environment = os.environ | {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_NO_DAEMONIZE": "1",
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
    }
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        with (folder / f"spark-{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(spark_class), *arguments], stdout=log, stderr=log, env=environment, start_new_session=True, cwd=folder
            )
        started.append(process)
        return process

    master = f"spark://127.0.0.1:{ports[0]}"
    host = ["--host", "127.0.0.1"]
    try:
        start("org.apache.spark.deploy.master.Master", *host, "--port", str(ports[0]), "--webui-port", str(ports[1]))
        limits = ["--cores", "1", "--memory", "1g", "--webui-port", "0"]
        workers = [
            start("org.apache.spark.deploy.worker.Worker", *host, *limits, "--work-dir", str(folder / f"work{n}"), master)
            for n in range(2)
        ]
        _wait(lambda: _alive_workers(ports[1]) == 2, "two workers", folder)
        yield master, workers
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _alive_workers(port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/", timeout=5) as answer:
            return sum(worker["state"] == "ALIVE" for worker in json.load(answer)["workers"])
    except OSError:
        return 0


def _wait(condition: Any, what: str, folder: Path, timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        logs = "".join(path.read_text()[-2_000:] for path in folder.glob("*.log"))
        assert time.monotonic() < deadline, f"no {what} after {timeout_s} s: {logs}"
        time.sleep(0.2)


_KILLED = """
import sys, time
from pathlib import Path
import pyarrow as pa
from tritower.engine import open_engine

def slow(batches):
    for batch in batches:
        time.sleep(0.5)
        yield batch

def ranks(table):
    table = table.sort_by([("who", "ascending"), ("ts", "ascending"), ("id", "ascending")])
    places, last = [], None
    for who in table["who"].to_pylist():
        places.append(places[-1] + 1 if who == last else 0)
        last = who
    return pa.table({"id": table["id"], "place": pa.array(places, pa.int64())})

engine_name, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
ints = lambda *names: pa.schema([(name, pa.int64()) for name in names])
with open_engine(engine_name, scratch=out, memory_limit="800MiB") as engine:
    engine.register("events", folder / "events")
    engine.keep("numbered", "SELECT e.id, e.who, e.ts FROM events e", order_by="ts, id", number="n")
    (out / "kept").touch()
    schema = pa.schema([("id", pa.int64()), ("who", pa.string()), ("ts", pa.int64())])
    engine.map_batches("slowly", "SELECT e.id, e.who, e.ts FROM events e", slow, schema)
    (out / "mapped").touch()
    engine.map_groups("ranked", "SELECT s.id, s.who, s.ts FROM slowly s", "who", ranks, ints("id", "place"))
    query = "SELECT n.n, n.id, r.place FROM numbered n JOIN ranked r ON n.id = r.id"
    engine.write(query, out / "result.parquet", ints("n", "id", "place"), order_by="n")
"""


def test_a_killed_worker_changes_nothing(tmp_path: Path) -> None:
    """A worker dies in the middle of a stage, with a kept table's parts and shuffle files behind it."""
    (tmp_path / "events").mkdir()
    events = _events(40_000).select(["id", "who", "ts"])
    for part in range(8):
        pq.write_table(events.slice(part * 5_000, 5_000), tmp_path / "events" / f"{part}.parquet")

    def command(engine: str) -> list[str]:
        (tmp_path / engine).mkdir()
        return [sys.executable, "-c", _KILLED, engine, str(tmp_path), str(tmp_path / engine)]

    subprocess.run(command("duckdb"), check=True)
    with _cluster(tmp_path) as (master, workers), (tmp_path / "run.log").open("wb") as log:
        environment = os.environ | {"TRITOWER_SPARK_MASTER": master, "SPARK_LOCAL_IP": "127.0.0.1"}
        run = subprocess.Popen(command("spark"), env=environment, stdout=log, stderr=log)
        try:
            _wait(lambda: (tmp_path / "spark" / "kept").exists() or run.poll() is not None, "kept table", tmp_path)
            time.sleep(0.3)  # into the slow stage
            assert run.poll() is None, (tmp_path / "run.log").read_text()[-3_000:]
            assert not (tmp_path / "spark" / "mapped").exists()
            os.killpg(workers[0].pid, signal.SIGKILL)
            assert run.wait(timeout=600) == 0, (tmp_path / "run.log").read_text()[-3_000:]
        finally:
            run.kill()
            run.wait()
        assert workers[0].wait() == -signal.SIGKILL
        assert "Lost executor" in (tmp_path / "run.log").read_text()
    expected = pq.read_table(tmp_path / "duckdb" / "result.parquet")
    assert expected.num_rows == 40_000
    assert pq.read_table(tmp_path / "spark" / "result.parquet").equals(expected)
