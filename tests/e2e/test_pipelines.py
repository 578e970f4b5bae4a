"""Whole pipelines on a real cluster, with steps that are jobs: training, the search, batch, ingest on Spark's executors."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tritower import storage

from pipelines import compiling, running, standing, steps
from pipelines.runs import get
from tests.e2e import single
from tests.e2e.cluster import Run, There, until, words

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]


def of_step(run: Run) -> dict[str, dict]:
    """Step -> its job."""
    return {job["metadata"]["labels"]["tritower.dev/step"]: job for job in run.jobs()}


def test_the_heavy_steps_of_a_training_are_jobs_and_it_has_a_verdict(there: There, trained: Run) -> None:
    jobs = of_step(trained)
    assert jobs.keys() == {"finetune", "embed", "ranker"}
    for step, job in jobs.items():
        told = [one["type"] for one in job["status"]["conditions"] if one["status"] == "True"]
        assert "Succeeded" in told, step
        assert not storage.names(words(job)["checkpoints"]), step
    assert standing.verdict(there.api, get(there.api, trained.id))["gate"] in ("pass", "hold")


def test_batch_ranks_with_what_the_training_made(there: There, trained: Run, log: dict[str, str], tmp_path: Path) -> None:
    jobs = of_step(trained)
    model, encoder = words(jobs["ranker"])["model"], words(jobs["embed"])["encoder"]
    file = compiling.compile_one(tmp_path / "batch.yaml", "batch", steps.parts("batch"))
    given = {**log, "model_ranker": model, "model_encoder": encoder}
    run = there.submit(file, running.arguments("batch", given, "quick", (), version=there.name))
    assert run.ended() == "SUCCEEDED"


def test_an_experiment_of_four_trials_finds_its_best(there: There, rows: dict[str, str], tmp_path: Path) -> None:
    file = single.compiled(single.launched_tune, tmp_path)
    cluster = {"cpu": "200m", "memory": "2Gi"}
    run = there.submit(file, {**rows, "config": {"trials": 4, "parallel": 2, "prune": False}, "cluster": cluster})
    (experiment,) = until(lambda: run.jobs("experiments"), "an Experiment")
    assert experiment["spec"]["maxTrialCount"] == 4
    assert run.ended() == "SUCCEEDED"
    told = standing.handed_back(run.log())
    found = told["artifacts"]["tune_trials"]["artifacts"][0]["metadata"]
    assert (found["trials"], found["failed"]) == (4, 0) and 0.5 < found["best"] < 1
    assert told["parameterValues"]["ranker_settings"]
    assert not run.jobs("experiments")


def test_ingest_on_executors_that_are_pods_equals_duckdb(
    there: There, trained: Run, log: dict[str, str], tmp_path: Path
) -> None:
    if not os.environ.get("TRITOWER_E2E_SPARK"):
        pytest.skip("the image tritower/spark is not said to be there: TRITOWER_E2E_SPARK is not set")
    file = compiling.for_engine(single.compiled(single.ingest_alone, tmp_path), "spark", tmp_path / "spark")
    given = {parameter.removeprefix("data_"): place for parameter, place in log.items()}
    spark = {"master": "kubernetes", "executors": 2, "memory": "2Gi", "cluster": {"cpu": "100m"}}
    run = there.submit(file, {**given, "data_version": there.name, "engine": "spark", "config": {"spark": spark}})
    executors: set[str] = set()
    until(lambda: executors.update(_executors(run)) or len(executors) >= 2, "two executors")
    assert run.ended() == "SUCCEEDED"
    assert not _executors(run)
    made = standing.handed_back(run.log())["parameterValues"]["dataset_at"]
    storage.fetch_tree(made, tmp_path / "spark-dataset")
    storage.fetch_tree(words(of_step(trained)["finetune"])["dataset"], tmp_path / "duckdb-dataset")
    files = sorted(path.relative_to(tmp_path / "duckdb-dataset") for path in (tmp_path / "duckdb-dataset").rglob("*.parquet"))
    assert files
    for name in files:
        one, other = (pq.ParquetFile(tmp_path / folder / name).read() for folder in ("duckdb-dataset", "spark-dataset"))
        assert one.equals(other), name


def _executors(run: Run) -> list[str]:
    return [pod["metadata"]["name"] for pod in run.listed("pods", f"spark-role=executor,tritower.dev/run={run.id}")]
