"""Spark's executors as pods, without an operator: a cluster of real processes behind a real API server, on which the step's pod
is the driver. Not run where there is no Java 17 or no PySpark."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tritower.features import step as features_step
from tritower.features.config import FeaturesConfig
from tritower.ingest import step as ingest_step
from tritower.ingest.config import IngestConfig

from tests.distributed.conftest import WITH_SPARK
from tests.distributed.test_spark import _assert_equal, _assert_equal_features, _embed, _log
from tests.support import family, s3, spark_pods
from tests.support.apiserver import kinds, served

pytestmark = [*WITH_SPARK, pytest.mark.timeout(1800)]


def test_ingest_and_features_on_executors_equal_duckdb(tmp_path: Path, endpoint: str, store: str) -> None:
    log, one, other = (tmp_path / name for name in ("log", "duckdb", "spark"))
    for folder in (log, one, other):
        folder.mkdir()
    uris = _log(log, 400)
    ingest_step.run(**uris, dataset=one / "dataset", config=IngestConfig(max_quarantined_share=1.0))
    features_step.run(dataset=one / "dataset", embeddings=_embed(one), features=one / "features", config=FeaturesConfig())
    for what in ("ingest", "features"):
        with served(spark_pods.cluster()) as cluster:
            kubeconfig = spark_pods.prepare(cluster, tmp_path, endpoint)
            command = spark_pods.steps(what, log, other, f"{store}/{what}")
            spark_pods.start(cluster, command, kubeconfig, endpoint)
            most: list[int] = []
            phase = spark_pods.ended(cluster, meanwhile=lambda: most.append(len(spark_pods.executors(cluster, "Running"))))  # noqa: B023
            assert phase == "Succeeded", spark_pods.log(cluster)[-6_000:]
            assert max(most) == 2 and "executors: 2 of 2 are there" in spark_pods.log(cluster)
    _assert_equal(one / "dataset", other / "dataset")
    assert _assert_equal_features(one / "features", other / "features") > 2_000


def test_a_killed_executor_is_replaced_and_changes_nothing(tmp_path: Path, endpoint: str, store: str) -> None:
    """One dies in the middle of ingest, with shuffle files behind it and a task in work."""
    log, one, other = (tmp_path / name for name in ("log", "duckdb", "spark"))
    for folder in (log, one, other):
        folder.mkdir()
    ingest_step.run(**_log(log, 400), dataset=one / "dataset", config=IngestConfig(max_quarantined_share=1.0))
    with served(spark_pods.cluster()) as cluster:
        kubeconfig = spark_pods.prepare(cluster, tmp_path, endpoint)
        scratch = f"killed-{tmp_path.name}"
        spark_pods.start(cluster, spark_pods.steps("ingest", log, other, f"{store}/{scratch}"), kubeconfig, endpoint)

        def kept() -> int:
            found = s3.client(endpoint).list_objects_v2(Bucket="bucket", Prefix=scratch).get("Contents", [])
            return len({entry["Key"].split("/")[-2] for entry in found})

        family.wait_for(lambda: kept() >= 4 or spark_pods.phase(cluster) != "Running", "four kept tables", 600)
        victim = spark_pods.executors(cluster, "Running")[0]["metadata"]["name"]
        cluster.kill(victim, namespace=spark_pods.NAMESPACE)
        assert spark_pods.ended(cluster) == "Succeeded", spark_pods.log(cluster)[-6_000:]
        names = [path for method, path in cluster.faults.seen if method == "POST" and path.endswith("/pods")]
        assert len(names) >= 4  # the step's own, two, and the one in place of the first
        assert "executors: 1 of 2 are there" in spark_pods.log(cluster)
        # It ends its executors, the failed one as well.
        family.wait_for(lambda: not spark_pods.executors(cluster), "the executors' end")
    _assert_equal(one / "dataset", other / "dataset")


_PROGRAM = """
import json, sys, time
import pyarrow as pa
from tritower.config import from_dict
from tritower.engines.config import SparkConfig
from tritower.engines.spark import SparkEngine
from tritower.errors import DataError, TritowerError

def fail(batches):
    for _ in batches:
        raise DataError("a bad row", where="row 7", remedy="Mend it.")
    yield from ()

def eat(batches):
    for _ in batches:
        eaten = [b"x" * (1 << 20) for _ in range(1 << 12)]
        yield from ()

def sleep(batches):
    for batch in batches:
        time.sleep(600)
        yield batch

schema = pa.schema([("x", pa.int64())])
config = from_dict(SparkConfig, {"master": "kubernetes", "memory": "2Gi", **json.loads(sys.argv[2])})
try:
    with SparkEngine(memory_limit="512MiB", scratch=sys.argv[1], config=config) as engine:
        engine.register("one", pa.table({"x": [1, 2, 3]}))
        print("sum", engine.rows("SELECT sum(x) AS s FROM one"), flush=True)
        try:
            engine.map_batches("failed", "SELECT x FROM one", fail, schema)
        except TritowerError as error:
            print(type(error).__name__, error, flush=True)
        if len(sys.argv) > 3:
            engine.map_batches("eaten", "SELECT x FROM one", eat, schema)
        print("sleeping", flush=True)
        engine.map_batches("slept", "SELECT x FROM one", sleep, schema)
except TritowerError as error:
    print("ended by", type(error).__name__, error, flush=True)
    sys.exit(1)
"""


def _program(store: str, **knobs: Any) -> list[str]:
    return ["python3", "-c", _PROGRAM, f"{store}/program", json.dumps(knobs)]


def test_an_error_keeps_its_kind_and_sigterm_ends_the_executors(tmp_path: Path, endpoint: str, store: str) -> None:
    with served(spark_pods.cluster()) as cluster:
        spark_pods.start(cluster, _program(store), spark_pods.prepare(cluster, tmp_path, endpoint), endpoint)
        over = ("Succeeded", "Failed")
        family.wait_for(
            lambda: "sleeping" in spark_pods.log(cluster) or spark_pods.phase(cluster) in over, "the long query", 600
        )
        said = spark_pods.log(cluster)
        assert "sum [{'s': 6}]" in said and "DataError a bad row (in row 7). Mend it." in said, said[-6_000:]
        running = spark_pods.executors(cluster, "Running")
        assert len(running) == 2
        step = cluster.store.get(kinds.POD, spark_pods.NAMESPACE, spark_pods.DRIVER)
        owner = {key: step["metadata"][key] for key in ("name", "uid")}
        assert all(owner.items() <= pod["metadata"]["ownerReferences"][0].items() for pod in running)
        cluster.kill(spark_pods.DRIVER, namespace=spark_pods.NAMESPACE, signal=15)
        family.wait_for(lambda: not spark_pods.executors(cluster), "the executors' end")
        assert spark_pods.ended(cluster) == "Failed"


def test_without_executors_the_step_ends_with_the_reason(tmp_path: Path, endpoint: str, store: str) -> None:
    knobs = {"cluster": {"image": "example/none:1", "patience_s": 5.0, "poll_s": 0.5}}
    with served(spark_pods.cluster()) as cluster:
        cluster.images["example/none:1"] = "missing"
        spark_pods.start(cluster, _program(store, **knobs), spark_pods.prepare(cluster, tmp_path, endpoint), endpoint)
        assert spark_pods.ended(cluster) == "Failed"
        said = spark_pods.log(cluster)
        assert "ended by JobFailed the image cannot be pulled: " in said and "example/none:1: not found" in said, said[-6_000:]
        family.wait_for(lambda: not spark_pods.executors(cluster), "the executors' end")


def test_executors_whose_memory_runs_out_end_the_step(tmp_path: Path, endpoint: str, store: str) -> None:
    command = [*_program(store, executors=1, memory="1Gi", cluster={"poll_s": 0.5, "restarts": 1}), "eat"]
    with served(spark_pods.cluster()) as cluster:
        spark_pods.start(cluster, command, spark_pods.prepare(cluster, tmp_path, endpoint), endpoint)
        assert spark_pods.ended(cluster) == "Failed"
        said = spark_pods.log(cluster)
        assert re.search(
            r"ended by JobFailed 2 executors failed, the last: memory ran out \(OOMKilled, limit 1024Mi\)", said
        ), said
