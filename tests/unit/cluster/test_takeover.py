"""Jobs of a name that is taken, that go while they are taken over, or that several launchers have in hand."""

import re
import tempfile
import threading
import time
from pathlib import Path

import pytest
from tritower.cluster.api import Api, custom
from tritower.errors import DataError, JobFailed, LaunchError

from tests.support.apiserver import Cluster, kinds
from tests.support.family import wait_for
from tests.support.pytorchjobs import job, shell
from tests.support.s3 import client
from tests.unit.cluster.test_launcher import held, jobs, launch
from tests.unit.cluster.test_stopping import running, start

JOBS = custom("kubeflow.org", "v1", "team", "pytorchjobs")
SLOW_TO_END = shell("trap 'sleep 1; exit 143' TERM; sleep 60 & wait $!")


def delete(name: str, policy: str = "Background") -> None:
    Api().call("DELETE", f"{JOBS}/{name}", body={"propagationPolicy": policy})


def name_of(cluster: Cluster, where: str) -> str:
    """The name that a job gets."""
    launch(where, "count", "1")
    (done,) = jobs(cluster)
    delete(done["metadata"]["name"])
    wait_for(lambda: not cluster.store.all(kinds.POD), "no pods")
    return str(done["metadata"]["name"])


def test_a_job_that_is_being_deleted_is_not_taken_over(cluster: Cluster, s3: str) -> None:
    name = name_of(cluster, s3)
    first = Api().call("POST", JOBS, body=job(name, SLOW_TO_END))
    wait_for(lambda: running(cluster), "a running pod")
    delete(name, "Foreground")
    # The create meets a name that is taken; a moment later the server says why.
    cluster.faults.answer(409, method="POST", path="/pytorchjobs", message=f'pytorchjobs.kubeflow.org "{name}" already exists')
    launch(s3, "count", "1")
    (second,) = jobs(cluster)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]


def test_a_name_that_is_never_free_is_no_endless_wait(cluster: Cluster, s3: str) -> None:
    cluster.faults.answer(409, method="POST", path="/pytorchjobs", message='pytorchjobs "small" already exists', times=999)
    with pytest.raises(
        LaunchError, match=r"could not be made within 2 s: one of its name is there, or goes .*kubectl -n team get"
    ):
        launch(s3, "count", "1", api_patience_s=2)
    assert sum(method == "POST" and "/pytorchjobs" in path for method, path in cluster.faults.seen) < 40


def test_another_job_in_its_place_is_left_alone(cluster: Cluster, s3: str) -> None:
    other: list[str] = []

    def look() -> None:
        for one in jobs(cluster):
            if running(cluster) and not other:
                delete(one["metadata"]["name"])
                made = Api().call("POST", JOBS, body=job(one["metadata"]["name"], shell("sleep 60")))
                other.append(made["metadata"]["uid"])

    with pytest.raises(JobFailed, match="another job took this one's place"):
        launch(s3, "sleep", look=look)
    assert [one["metadata"]["uid"] for one in jobs(cluster)] == other


def test_two_launchers_of_one_job_make_one_and_the_later_one_follows_it(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    outputs = [tmp_path / "first", tmp_path / "second"]
    hold = held(tmp_path)
    first = start(s3, "count", "300", str(hold), output=outputs[0])
    wait_for(lambda: running(cluster), "a running pod")
    second = start(s3, "count", "300", str(hold), output=outputs[1])
    assert first.wait(300) == 1
    hold.unlink()
    assert second.wait(300) == 0
    assert "another launcher follows this job" in outputs[0].read_text()
    lines = re.findall(r"^line \d+$", outputs[1].read_text(), re.MULTILINE)
    assert lines == [f"line {number}" for number in range(300)]
    made = [change for change in cluster.store.history if change.kind is kinds.PYTORCHJOB and change.verb == "ADDED"]
    assert len(made) == 1 and len(jobs(cluster)) == 1


@pytest.mark.slow
def test_two_launchers_at_the_same_moment(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    both = [start(s3, "count", "150", output=tmp_path / f"{number}") for number in range(2)]
    codes = sorted(one.wait(300) for one in both)
    made = [change for change in cluster.store.history if change.kind is kinds.PYTORCHJOB and change.verb == "ADDED"]
    assert codes in ([0, 0], [0, 1]) and len(made) == 1
    told = "".join((tmp_path / f"{number}").read_text() for number in range(2))
    assert told.count("Error:") == told.count("LaunchError: another launcher follows this job") == codes[1]


def test_an_owner_that_is_gone_takes_the_job_along_and_that_is_told(
    cluster: Cluster, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded (kfp-wrong-owner): 201, and the job is deleted ten milliseconds later without a word."""
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-x", "uid": "of-a-run-that-was-deleted"}
    workflow = cluster.add(kinds.WORKFLOW, {"metadata": {"name": "run-x"}}, namespace="team")
    spec = {"containers": [{"name": "main", "image": "example/base:1", "command": ["sleep", "600"]}], "restartPolicy": "Never"}
    meta = {"name": "own", "ownerReferences": [owner | {"uid": workflow["metadata"]["uid"]}]}
    cluster.add(kinds.POD, {"metadata": meta, "spec": spec, "status": {}}, namespace="team")
    monkeypatch.setenv("KFP_POD_NAME", "own")

    def forget() -> None:
        wait_for(lambda: any("/pods/own" in path for _, path in cluster.faults.seen), "a look at the own pod")
        cluster.store.remove(kinds.WORKFLOW, workflow)

    thread = threading.Thread(target=forget)
    thread.start()
    with pytest.raises(JobFailed, match=r"the job was deleted .*A run that is deleted takes its job along"):
        launch(s3, "sleep")
    thread.join()
    assert not jobs(cluster)


def test_a_success_stays_one_when_the_server_goes_away_with_it(cluster: Cluster, s3: str) -> None:
    def look() -> None:
        if any(one["status"].get("phase") == "Running" for one in cluster.store.all(kinds.POD)):
            cluster.faults.answer(503, path="labelSelector", times=3)  # the last looks at the pods

    launch(s3, "count", "20", look=look)
    cluster.faults.pending.clear()
    before = {one["metadata"]["uid"] for one in jobs(cluster)}
    launch(s3, "count", "20")
    assert {one["metadata"]["uid"] for one in jobs(cluster)} == before


def test_a_kind_that_the_server_forgets_for_a_moment_is_no_job_that_is_gone(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    forgotten: list[bool] = []
    hold = held(tmp_path)

    def look() -> None:
        if running(cluster) and not forgotten:
            forgotten.append(True)
            hold.unlink()
            cluster.faults.answer(404, method="GET", path="/pytorchjobs/small", times=3, message="404 page not found")

    launch(s3, "count", "50", str(hold), look=look, patience_s=60)
    assert forgotten


def test_a_failed_job_goes_although_its_logs_cannot_be_kept(
    cluster: Cluster, s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The launcher's disk is full, or the store is away."""

    def look() -> None:
        if cluster.store.all(kinds.POD):
            monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))

    with pytest.raises(
        DataError, match=r"row 7 has no time .*Status and logs could not be saved: .*tmp_path|could not be saved"
    ):
        launch(s3, "refuse", look=look)
    assert not jobs(cluster)


def test_a_job_that_is_left_in_place_stays_there(cluster: Cluster, s3: str) -> None:
    cluster.speed = 0.1  # so long does the operator leave it alone, whatever its pod does
    with pytest.raises(
        JobFailed, match=r"has not ended within 2 s .*The job is left in place: kubectl -n team delete pytorchjob"
    ):
        launch(s3, "sleep", deadline_s=2, keep_failed=True, abandoned_after_s=5)
    time.sleep(7)
    assert running(cluster) and len(jobs(cluster)) == 1
    with pytest.raises(LaunchError, match="another spec"):
        launch(s3, "sleep", deadline_s=3)
    cluster.speed = 10.0
    launch(f"{s3}/beside", "count", "1")


def test_a_server_that_stays_away_leaves_the_end_to_the_heartbeat(cluster: Cluster, s3: str) -> None:
    def look() -> None:
        if running(cluster):
            cluster.faults.gone(6.0)

    with pytest.raises(LaunchError, match="the API server does not answer"):
        launch(s3, "sleep", look=look, api_patience_s=1, abandoned_after_s=5)
    assert running(cluster)
    wait_for(lambda: not jobs(cluster) and not cluster.store.all(kinds.POD), "no job and no pod")


def test_a_store_that_is_away_for_longer_than_the_heartbeat_may_be_silent(
    cluster: Cluster, s3: str, endpoint: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Only the launcher cannot reach it: rank 0 hears nothing and ends the job, and the launcher starts it anew."""
    away, store = pytest.MonkeyPatch(), client(endpoint)
    watchers: list[threading.Thread] = []
    hold = held(tmp_path)

    def marked() -> bool:
        found = store.list_objects_v2(Bucket="bucket", Prefix=s3.removeprefix("s3://bucket/"))
        return any(one["Key"].endswith("/abandoned") for one in found.get("Contents", []))

    def watch() -> None:
        wait_for(marked, "the mark")
        hold.unlink()
        away.undo()

    def look() -> None:
        if not watchers and running(cluster):
            away.setenv("TRITOWER_S3_ENDPOINT", "http://127.0.0.1:9")
            away.setenv("TRITOWER_S3_RETRIES", "0")
            watchers.append(threading.Thread(target=watch))
            watchers[0].start()

    launch(s3, "count", "10", str(hold), look=look, abandoned_after_s=5)
    watchers[0].join()
    assert "no heartbeat" in caplog.text and "it starts anew" in caplog.text
    made = [change for change in cluster.store.history if change.kind is kinds.PYTORCHJOB and change.verb == "ADDED"]
    assert len(made) == 2
