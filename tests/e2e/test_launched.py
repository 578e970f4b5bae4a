"""The ranker as a PyTorchJob on a real cluster: it trains, loses pods one by one, is terminated, has no image, is scheduled."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tritower import storage
from tritower.errors import JobFailed

from pipelines import runs, schedules
from tests.e2e.cluster import LONG, Run, There, drained, kubectl, until, words
from tests.support import backend

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]
Start = Callable[..., Run]


def arguments(rows: dict[str, str], config: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    """Of the launched ranker in two small pods."""
    return {**rows, "config": config or {}, "cluster": {"nodes": 2, "cpu": "200m", "memory": "2Gi", **cluster}}


@pytest.fixture
def start(there: There, ranker: Path, rows: dict[str, str]) -> Start:
    return lambda config=None, **cluster: there.submit(ranker, arguments(rows, config, **cluster))


def test_two_pods_train_and_score(start: Start) -> None:
    run = start()
    job = run.job()
    assert run.ended() == "SUCCEEDED"
    (owner,) = job["metadata"]["ownerReferences"]
    assert owner["kind"] == "Workflow"
    log = run.log()
    assert "2 of 2 running" in log and "training done in" in log  # rank 0's lines are the step's
    made = words(job)
    assert {"model.safetensors", "metrics.json"} <= {name.rpartition("/")[2] for name in storage.names(made["model"])}
    assert "validation.parquet" in {name.rpartition("/")[2] for name in storage.names(made["scores"])}
    assert not storage.names(made["checkpoints"])
    until(lambda: {pod["status"]["phase"] for pod in run.pods().values()} == {"Succeeded"}, "pods that have ended", 60)


def test_a_killed_worker_is_made_anew_and_the_training_goes_on(start: Start) -> None:
    run = start(LONG)
    run.trains()
    before = run.pods()["worker"]["metadata"]
    run.kubectl("delete", "pod", before["name"], "--grace-period=0", "--force")
    begun = time.monotonic()
    until(lambda: "resumed at step" in run.log(), "a training that goes on")
    print(f"the training goes on {time.monotonic() - begun:.0f} s after its worker was killed")
    assert run.pods()["worker"]["metadata"]["uid"] != before["uid"]
    assert run.ended() == "SUCCEEDED"


@pytest.mark.parametrize("role", ["worker", "master"])
def test_a_container_that_is_killed_starts_again_in_place_and_the_training_goes_on(start: Start, role: str) -> None:
    run = start(LONG)
    run.trains()
    before = run.pods()[role]["metadata"]
    run.kill_processes(before["name"])
    begun = time.monotonic()
    until(lambda: "resumed at step" in run.log(), "a training that goes on", 600)
    print(f"the training goes on {time.monotonic() - begun:.0f} s after the {role}'s processes were killed")
    assert run.pods()[role]["metadata"]["uid"] == before["uid"]
    assert run.ended() == "SUCCEEDED"


@pytest.mark.parametrize("role", ["worker", "master"])
def test_a_pod_whose_node_is_drained_is_made_anew_and_the_training_goes_on(start: Start, there: There, role: str) -> None:
    run = start(LONG)
    run.trains()
    before = run.pods()[role]
    with drained(there, before):
        pass
    begun = time.monotonic()
    until(lambda: "resumed at step" in run.log(), "a training that goes on")
    print(f"the training goes on {time.monotonic() - begun:.0f} s after the {role}'s node was drained")
    assert run.pods()[role]["metadata"]["uid"] != before["metadata"]["uid"]
    assert run.ended() == "SUCCEEDED"
    made = words(run.job())["model"]
    assert "model.safetensors" in {name.rpartition("/")[2] for name in storage.names(made)}  # no half of a model


def test_a_step_whose_node_is_drained_ends_its_job_and_starts_it_again(start: Start, there: There) -> None:
    run = start(LONG)
    run.trains()
    (first,), job = run.steps(), run.job()
    with drained(there, run.kubectl_json("get", "pod", first)):
        until(lambda: job["metadata"]["uid"] not in {one["metadata"]["uid"] for one in run.jobs()}, "the job's end", 30)
    retries = "workflowDefaults" in kubectl(
        "get", "configmap", "workflow-controller-configmap", "--output", "yaml", namespace="kubeflow"
    )
    if not retries:
        with pytest.raises(JobFailed):
            run.ended()
        pytest.skip("manifests/kfp is not applied, so the backend does not start a drained step again; its job is gone")
    until(lambda: "resumed at step" in run.log(), "a training that goes on")
    assert run.ended() == "SUCCEEDED"


def test_a_launcher_that_is_lost_with_its_node_is_followed_by_one_that_goes_on_with_the_job(start: Start) -> None:
    run = start(LONG)
    run.trains()
    job, (first,) = run.job(), run.steps()
    pods = {role: pod["metadata"]["uid"] for role, pod in run.pods().items()}
    run.stand_still()
    run.kubectl("delete", "pod", first, "--grace-period=0", "--force")
    begun = time.monotonic()
    until(lambda: "which is there already" in run.log(), "a launcher that goes on with the job")
    print(f"the job is followed again {time.monotonic() - begun:.0f} s after its launcher was lost")
    assert run.job()["metadata"]["uid"] == job["metadata"]["uid"]
    assert {role: pod["metadata"]["uid"] for role, pod in run.pods().items()} == pods
    assert run.ended() == "SUCCEEDED"
    assert "resumed at step" not in run.log()  # nothing was lost


def test_a_terminated_run_leaves_no_job(there: There, start: Start) -> None:
    run = start(LONG)
    run.trains()
    begun = time.monotonic()
    there.api.post("runs", run.id, verb="terminate")
    until(lambda: not run.jobs(), "the job's end", 10)
    print(f"the job is gone {time.monotonic() - begun:.1f} s after the run was terminated")
    ended = runs.wait(there.api, run.id, poll_s=2.0)
    with pytest.raises(JobFailed, match="the run was terminated"):
        runs.check(there.api, ended)
    assert not run.jobs()


def test_a_job_that_nobody_follows_ends_itself(there: There, start: Start) -> None:
    """The run is terminated while its launcher hears nothing: what is left is the heartbeat."""
    run = start(LONG | {"training.epochs": 1000}, heartbeat_s=5.0, abandoned_after_s=30.0)
    run.trains()
    name = run.job()["metadata"]["name"]
    run.stand_still()
    begun = time.monotonic()
    there.api.post("runs", run.id, verb="terminate")
    until(lambda: not run.jobs(), "the job's end", 60)
    print(f"the job is gone {time.monotonic() - begun:.0f} s after the run was terminated; abandoned_after_s was 30")
    until(
        lambda: not run.listed("pods", f"tritower.dev/step=ranker,training.kubeflow.org/job-name={name}"), "the pods' end", 60
    )


def test_an_image_that_is_not_there_is_named_and_the_job_is_gone(start: Start) -> None:
    run = start(image="tritower/train:no-such-tag", patience_s=10.0)
    begun = time.monotonic()
    with pytest.raises(JobFailed, match=r"JobFailed: the image cannot be pulled: .*tritower/train:no-such-tag"):
        run.ended()
    print(f"the run failed {time.monotonic() - begun:.0f} s after it was submitted")
    assert not run.jobs()


def test_a_schedule_fires_and_its_run_trains(there: There, ranker: Path, rows: dict[str, str]) -> None:
    version = there.publish(ranker)
    made = schedules.schedule(
        there.api, version, arguments(rows), experiment=there.name, name=f"{there.name}-each-minute", cron="0 * * * * *"
    ).made
    listed = partial(backend.runs_of, there.api, there.name, made)
    try:
        run = Run(there, str(until(listed, "a run of the schedule", 180)[-1]["run_id"]))
        assert run.ended() == "SUCCEEDED"
        assert [one["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] for one in run.jobs()] == [1]
    finally:
        there.api.delete("recurringruns", made)
    for one in listed():  # the clock went on meanwhile
        if not runs.has_ended(one):
            runs.terminate(there.api, one["run_id"])
