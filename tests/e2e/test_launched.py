"""The ranker as a PyTorchJob on a real cluster: it trains, loses a worker, loses its launcher, is terminated, has no image."""

import time

import pytest
from tritower import storage
from tritower.errors import JobFailed

from pipelines import runs
from tests.e2e.running import LONG, There, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_two_pods_train_and_score(there: There) -> None:
    run = there.start()
    job = run.job()
    assert run.ended() == "SUCCEEDED"
    (owner,) = job["metadata"]["ownerReferences"]
    assert owner["kind"] == "Workflow"
    log = run.log()
    assert "2 of 2 running" in log and "training done in" in log  # rank 0's lines are the step's
    (model,) = {word.partition("=")[2] for word in _command(job) if word.startswith("--model=")}
    (scores,) = {word.partition("=")[2] for word in _command(job) if word.startswith("--scores=")}
    assert {"model.safetensors", "metrics.json"} <= {name.rpartition("/")[2] for name in storage.names(model)}
    assert "validation.parquet" in {name.rpartition("/")[2] for name in storage.names(scores)}
    assert not storage.names(f"{model}.checkpoints")
    until(lambda: {pod["status"]["phase"] for pod in run.pods().values()} == {"Succeeded"}, "pods that have ended", 60)


def test_a_killed_worker_is_made_anew_and_the_training_goes_on(there: There) -> None:
    run = there.start(LONG)
    run.trains()
    before = run.pods()["worker"]["metadata"]
    run.kubectl("delete", "pod", before["name"], "--grace-period=0", "--force")
    start = time.monotonic()
    until(lambda: "resumed at step" in run.log(), "a training that goes on")
    print(f"the training goes on {time.monotonic() - start:.0f} s after its worker was killed")
    assert run.pods()["worker"]["metadata"]["uid"] != before["uid"]
    assert run.ended() == "SUCCEEDED"


def test_a_launcher_that_is_lost_with_its_node_is_followed_by_one_that_goes_on_with_the_job(there: There) -> None:
    run = there.start(LONG)
    run.trains()
    job, (first,) = run.job(), run.launchers()
    pods = {role: pod["metadata"]["uid"] for role, pod in run.pods().items()}
    run.stand_still()
    run.kubectl("delete", "pod", first, "--grace-period=0", "--force")
    start = time.monotonic()
    until(lambda: "which is there already" in run.log(), "a launcher that goes on with the job")
    print(f"the job is followed again {time.monotonic() - start:.0f} s after its launcher was lost")
    assert run.job()["metadata"]["uid"] == job["metadata"]["uid"]
    assert {role: pod["metadata"]["uid"] for role, pod in run.pods().items()} == pods
    assert run.ended() == "SUCCEEDED"
    assert "resumed at step" not in run.log()  # nothing was lost


def test_a_terminated_run_leaves_no_job(there: There) -> None:
    run = there.start(LONG)
    run.trains()
    start = time.monotonic()
    there.api.post("runs", run.id, verb="terminate")
    until(lambda: not run.jobs(), "the job's end", 10)
    print(f"the job is gone {time.monotonic() - start:.1f} s after the run was terminated")
    ended = runs.wait(there.api, run.id, poll_s=2.0)
    with pytest.raises(JobFailed, match="the run was terminated"):
        runs.check(there.api, ended)
    assert not run.jobs()


def test_a_job_that_nobody_follows_ends_itself(there: There) -> None:
    """The run is terminated while its launcher hears nothing: what is left is the heartbeat."""
    run = there.start(LONG | {"training.epochs": 1000}, heartbeat_s=5.0, abandoned_after_s=30.0)
    run.trains()
    name = run.job()["metadata"]["name"]
    run.stand_still()
    start = time.monotonic()
    there.api.post("runs", run.id, verb="terminate")
    until(lambda: not run.jobs(), "the job's end", 60)
    print(f"the job is gone {time.monotonic() - start:.0f} s after the run was terminated; abandoned_after_s was 30")
    until(
        lambda: not run.listed("pods", f"tritower.dev/step=ranker,training.kubeflow.org/job-name={name}"), "the pods' end", 60
    )


def test_an_image_that_is_not_there_is_named_and_the_job_is_gone(there: There) -> None:
    run = there.start(image="tritower/train:no-such-tag", patience_s=10.0)
    start = time.monotonic()
    with pytest.raises(JobFailed, match=r"JobFailed: the image cannot be pulled: .*tritower/train:no-such-tag"):
        run.ended()
    print(f"the run failed {time.monotonic() - start:.0f} s after it was submitted")
    assert not run.jobs()


def _command(job: dict) -> list[str]:
    (container,) = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    return list(container["command"])
