"""Whole pipelines on a real cluster, with steps that are jobs: training, the search, batch, ingest on Spark's executors."""

from pathlib import Path

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
        assert not storage.names(f"{words(job)[_OUTPUT[step]]}.checkpoints"), step
    assert standing.verdict(there.api, get(there.api, trained.id))["gate"] in ("pass", "hold")


_OUTPUT = {"finetune": "encoder", "embed": "embeddings", "ranker": "model"}


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
    run = there.submit(file, {**rows, "config": {"trials": 4, "parallel": 1, "startup_trials": 2}, "cluster": cluster})
    (experiment,) = until(lambda: run.jobs("experiments"), "an Experiment")
    assert run.ended() == "SUCCEEDED"
    (experiment,) = run.jobs("experiments")
    assert experiment["status"]["trialsSucceeded"] == 4
    best = experiment["status"]["currentOptimalTrial"]
    told = standing.handed_back(run.log())["parameterValues"]["ranker_settings"]
    assert best["bestTrialName"] and told
