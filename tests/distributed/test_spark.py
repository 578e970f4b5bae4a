"""DuckDB and Spark give the same rows; a killed worker changes nothing. Not run where there is no Java 17 or no PySpark.

TRITOWER_SPARK_ROWS sets the impressions of the large comparison (1000000).
"""

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tritower.engine import Engine, open_engine
from tritower.errors import DataError
from tritower.features import step as features_step
from tritower.features.config import FeaturesConfig
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


# ------------------------------------------------------------------------------------------------------------- the features


def _embed(folder: Path) -> Path:
    """Random unit vectors for the texts of `folder`/dataset: features need some, not good ones."""
    texts = pq.read_metadata(folder / "dataset" / "texts.parquet").num_rows
    vectors = np.random.default_rng(0).normal(size=(texts, 32)).astype(np.float32)
    (folder / "embeddings").mkdir()
    np.save(folder / "embeddings" / "matrix.npy", (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16))
    (folder / "embeddings" / "encoder.json").write_text(json.dumps({"hash": "random", "dim": 32, "texts": texts}))
    return folder / "embeddings"


def _assert_equal_features(one: Path, other: Path) -> int:
    """Every column of every row, and every value of the saved state; returns the rows of all splits."""
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*.parquet"))
    assert names == sorted(str(path.relative_to(other)) for path in other.rglob("*.parquet"))
    for name in names:
        assert pq.ParquetFile(one / name).read().equals(pq.ParquetFile(other / name).read()), name
    sums = [np.load(path / "state" / "sums.npz") for path in (one, other)]
    assert all(np.array_equal(sums[0][name], sums[1][name]) for name in sums[0].files)
    assert (one / "state" / "vectors.npy").read_bytes() == (other / "state" / "vectors.npy").read_bytes()
    return sum(pq.read_metadata(one / name).num_rows for name in names if not name.startswith("state"))


def test_a_large_log_gives_the_same_features(tmp_path: Path) -> None:
    """Ingest and features of a simulated log under both engines; each ingests for itself."""
    rows = int(os.environ.get("TRITOWER_SPARK_ROWS", "1000000"))
    log = tmp_path / "log"
    command = [sys.executable, "-m", "tritower.simulate", "--out", str(log), "--impressions", str(rows)]
    subprocess.run(command, check=True, capture_output=True)
    uris = {"jobs": f"{log}/jobs.parquet", "users": f"{log}/users.parquet", "impressions": f"{log}/impressions"}
    for name in ("duckdb", "spark"):
        out = tmp_path / name
        step.run(**uris, dataset=out / "dataset", config=IngestConfig(engine=name, threads=2))  # type: ignore[arg-type]
        config = FeaturesConfig(engine=name, threads=2)  # type: ignore[arg-type]
        features_step.run(dataset=out / "dataset", embeddings=_embed(out), features=out / "features", config=config)
    _assert_equal(tmp_path / "duckdb" / "dataset", tmp_path / "spark" / "dataset")
    assert _assert_equal_features(tmp_path / "duckdb" / "features", tmp_path / "spark" / "features") >= 0.95 * rows


def test_features_where_workers_share_no_disk(store: str, tmp_path: Path) -> None:
    """Tables, vectors and rows travel through an object store; candidates and a state of the day before as well."""
    step.run(**_log(tmp_path, 400), dataset=tmp_path / "dataset", config=IngestConfig(max_quarantined_share=1.0))
    embeddings = _embed(tmp_path)
    candidates = tmp_path / "candidates"
    (candidates / "candidates").mkdir(parents=True)
    shutil.copy(tmp_path / "dataset" / "requests.parquet", candidates / "requests.parquet")
    wanted = pq.read_table(tmp_path / "dataset" / "impressions" / "validation")
    pq.write_table(wanted, candidates / "candidates" / "part-00000.parquet")
    for name, scratch in (("duckdb", ""), ("spark", f"{store}/scratch")):
        config = FeaturesConfig(engine=name, scratch=scratch, threads=2)  # type: ignore[arg-type]
        for what in (None, candidates):
            out = tmp_path / name / ("candidates" if what else "features")
            features_step.run(dataset=tmp_path / "dataset", embeddings=embeddings, features=out, config=config, candidates=what)
    for what in ("features", "candidates"):
        assert _assert_equal_features(tmp_path / "duckdb" / what, tmp_path / "spark" / what) > 300


# --------------------------------------------------------------------------------------------------------- a killed worker


@contextlib.contextmanager
def _cluster(folder: Path) -> Iterator[tuple[str, Callable[[], subprocess.Popen[bytes]]]]:
    """A standalone Spark master on loopback; yields its address and a function that adds a worker and waits for it."""
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

    def add_worker() -> subprocess.Popen[bytes]:
        limits = ["--cores", "1", "--memory", "1g", "--webui-port", "0", "--work-dir", str(folder / f"work{len(started)}")]
        before = _alive_workers(ports[1])
        worker = start("org.apache.spark.deploy.worker.Worker", *host, *limits, master)
        _wait(lambda: _alive_workers(ports[1]) > before, "worker", folder)
        return worker

    try:
        start("org.apache.spark.deploy.master.Master", *host, "--port", str(ports[0]), "--webui-port", str(ports[1]))
        _wait(lambda: _answers(ports[1]), "master", folder)
        yield master, add_worker
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


_STEPS = """
import sys
from pathlib import Path
from tritower.features import step as features
from tritower.features.config import FeaturesConfig
from tritower.ingest import step as ingest
from tritower.ingest.config import IngestConfig

engine, log, embeddings, out = sys.argv[1], *map(Path, sys.argv[2:])
knobs = {"engine": engine, "memory_limit": "800MiB"}
config = IngestConfig(scratch=f"{out}/ingesting", max_quarantined_share=1.0, **knobs)
uris = {name: str(log / name) for name in ("impressions",)} | {name: str(log / f"{name}.parquet") for name in ("jobs", "users")}
ingest.run(**uris, dataset=out / "dataset", config=config)
(out / "ingested").touch()
config = FeaturesConfig(scratch=f"{out}/featurising", **knobs)
features.run(dataset=out / "dataset", embeddings=embeddings, features=out / "features", config=config)
"""


def _kept(scratch: Path) -> int:
    """How many tables a Spark engine has begun to keep in its scratch folder."""
    return len(list(scratch.glob("spark-*/*")))


def test_a_killed_worker_changes_nothing(tmp_path: Path) -> None:
    """Of two workers one dies in the middle of ingest, with kept tables and shuffle files behind it; in its place comes a
    new one, and the other dies in the middle of features."""
    log, one, other = (tmp_path / name for name in ("log", "duckdb", "spark"))
    for folder in (log, one, other):
        folder.mkdir()
    _log(log, 6_000)
    uris = {"jobs": f"{log}/jobs.parquet", "users": f"{log}/users.parquet", "impressions": f"{log}/impressions"}
    step.run(**uris, dataset=one / "dataset", config=IngestConfig(max_quarantined_share=1.0))
    features_step.run(dataset=one / "dataset", embeddings=_embed(one), features=one / "features", config=FeaturesConfig())
    arguments = [sys.executable, "-c", _STEPS, "spark", str(log), str(one / "embeddings"), str(other)]
    with _cluster(tmp_path) as (master, add_worker), (tmp_path / "run.log").open("wb") as output:
        workers = [add_worker(), add_worker()]
        environment = os.environ | {"TRITOWER_SPARK_MASTER": master, "SPARK_LOCAL_IP": "127.0.0.1"}
        run = subprocess.Popen(arguments, env=environment, stdout=output, stderr=output)

        def kill(worker: subprocess.Popen[bytes], when: Callable[[], bool], what: str) -> None:
            _wait(lambda: when() or run.poll() is not None, what, tmp_path)
            assert run.poll() is None, (tmp_path / "run.log").read_text()[-3_000:]
            os.killpg(worker.pid, signal.SIGKILL)
            assert worker.wait() == -signal.SIGKILL

        try:
            kill(workers[0], lambda: _kept(other / "ingesting") >= 8, "eight kept tables")
            assert not (other / "ingested").exists()
            add_worker()
            kill(workers[1], lambda: _kept(other / "featurising") >= 1, "rows on their way")
            assert run.wait(timeout=600) == 0, (tmp_path / "run.log").read_text()[-3_000:]
        finally:
            run.kill()
            run.wait()
        assert (tmp_path / "run.log").read_text().count("Lost executor") >= 2
    _assert_equal(one / "dataset", other / "dataset")
    assert _assert_equal_features(one / "features", other / "features") > 40_000
