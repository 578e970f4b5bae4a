"""Ingest and features give the same files on DuckDB and Spark; a killed worker changes nothing. Not run where there is no Java
17 or no PySpark.

TRITOWER_SPARK_ROWS sets the impressions of the large comparison (250000).
"""

import contextlib
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

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tritower import processes
from tritower.features import step as features_step
from tritower.features.config import FeaturesConfig
from tritower.ingest import step
from tritower.ingest.config import IngestConfig

from tests.distributed.conftest import WITH_SPARK

pytestmark = WITH_SPARK


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


_STEPS = """
import sys
from pathlib import Path
from tritower.features import step as features
from tritower.features.config import FeaturesConfig
from tritower.ingest import step as ingest
from tritower.ingest.config import IngestConfig

log, embeddings, out = map(Path, sys.argv[2:])
knobs = {"engine": "spark", "memory_limit": sys.argv[1], "threads": 2}
config = IngestConfig(scratch=f"{out}/ingesting", max_quarantined_share=1.0, **knobs)
uris = {name: str(log / name) for name in ("impressions",)} | {name: str(log / f"{name}.parquet") for name in ("jobs", "users")}
ingest.run(**uris, dataset=out / "dataset", config=config)
(out / "ingested").touch()
config = FeaturesConfig(scratch=f"{out}/featurising", **knobs)
features.run(dataset=out / "dataset", embeddings=embeddings, features=out / "features", config=config)
"""


def _steps(log: Path, embeddings: Path, out: Path, *, memory_limit: str) -> list[str]:
    """A command that runs ingest and features on Spark, in a Java process of their own."""
    return [sys.executable, "-c", _STEPS, memory_limit, str(log), str(embeddings), str(out)]


def test_a_large_log_gives_the_same_features(tmp_path: Path) -> None:
    """Ingest and features of a simulated log under both engines, each on its own; Spark in half of its default memory."""
    rows = int(os.environ.get("TRITOWER_SPARK_ROWS", "250000"))
    log = tmp_path / "log"
    command = [sys.executable, "-m", "tritower.simulate", "--out", str(log), "--impressions", str(rows)]
    subprocess.run(command, check=True, capture_output=True)
    uris = {"jobs": f"{log}/jobs.parquet", "users": f"{log}/users.parquet", "impressions": f"{log}/impressions"}
    one, other = tmp_path / "duckdb", tmp_path / "spark"
    step.run(**uris, dataset=one / "dataset", config=IngestConfig(threads=2))
    features_step.run(
        dataset=one / "dataset", embeddings=_embed(one), features=one / "features", config=FeaturesConfig(threads=2)
    )
    subprocess.run(_steps(log, one / "embeddings", other, memory_limit="512MiB"), check=True)
    _assert_equal(one / "dataset", other / "dataset")
    assert _assert_equal_features(one / "features", other / "features") >= 0.95 * rows


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
    ports = [processes.free_port() for _ in range(2)]
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
        before = _workers(ports[1])  # one that was just killed may be among them for a while: a number would not tell
        worker = start("org.apache.spark.deploy.worker.Worker", *host, *limits, master)
        _wait(lambda: _workers(ports[1]) - before, "worker", folder)
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


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _workers(port: int) -> set[str]:
    """The ids of all workers that the master takes for living."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/", timeout=300) as answer:
            return {worker["id"] for worker in json.load(answer)["workers"] if worker["state"] == "ALIVE"}
    except OSError:
        return set()


def _wait(condition: Any, what: str, folder: Path, timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        logs = "".join(path.read_text()[-2_000:] for path in folder.glob("*.log"))
        assert time.monotonic() < deadline, f"no {what} after {timeout_s} s: {logs}"
        time.sleep(0.2)


def _kept(scratch: Path) -> int:
    """How many tables a Spark engine has begun to keep in its scratch folder."""
    return len(list(scratch.glob("spark-*/*")))


def test_a_killed_worker_changes_nothing(tmp_path: Path) -> None:
    """Of two workers one dies in the middle of ingest, with kept tables and shuffle files behind it; in its place comes a
    new one, and the other dies in the middle of features."""
    log, one, other = (tmp_path / name for name in ("log", "duckdb", "spark"))
    for folder in (log, one, other):
        folder.mkdir()
    _log(log, 2_500)
    uris = {"jobs": f"{log}/jobs.parquet", "users": f"{log}/users.parquet", "impressions": f"{log}/impressions"}
    step.run(**uris, dataset=one / "dataset", config=IngestConfig(max_quarantined_share=1.0))
    features_step.run(dataset=one / "dataset", embeddings=_embed(one), features=one / "features", config=FeaturesConfig())
    arguments = _steps(log, one / "embeddings", other, memory_limit="800MiB")
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
    assert _assert_equal_features(one / "features", other / "features") > 16_000
