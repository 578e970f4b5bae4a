"""Launchers that are killed, terminated or started again; jobs that nobody follows any more."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tritower.cluster import heartbeat
from tritower.errors import LaunchError

from tests.support import family
from tests.support.apiserver import Cluster, kinds
from tests.unit.cluster.test_launcher import QUICK, held, jobs, launch


def start(
    where: str, *deed: str, output: Path | None = None, launcher: str = "pytorchjob", **settings: Any
) -> "subprocess.Popen[bytes]":
    """A launcher in a process of its own."""
    command = [sys.executable, "-m", "tests.support.launch", launcher, json.dumps(QUICK | settings), where, *deed]
    target = output.open("wb") if output else subprocess.PIPE
    return subprocess.Popen(command, stdout=target, stderr=subprocess.STDOUT)


def running(cluster: Cluster) -> bool:
    return any(pod["status"].get("phase") == "Running" for pod in cluster.store.all(kinds.POD))


def failed(job: dict[str, Any]) -> bool:
    return any(one["type"] == "Failed" and one["status"] == "True" for one in job.get("status", {}).get("conditions", []))


def powerless_pods(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on pods have no rights; the launchers of this process keep theirs."""
    whole = Path(os.environ["KUBECONFIG"])
    own = cluster.kubeconfig(whole.with_name("launcher"), namespace="team")
    cluster.kubeconfig(whole, cluster.token([], namespace="team"), namespace="team")
    monkeypatch.setenv("KUBECONFIG", str(own))


def deletes(cluster: Cluster, since: int = 0) -> list[str]:
    """What has been asked to go, each kind once: a server with no time to answer is asked again."""
    asked = [path.split("/")[-2] for method, path in cluster.faults.seen[since:] if method == "DELETE"]
    return list(dict.fromkeys(asked))


def drains_once(cluster: Cluster, log: Path, hold: Path) -> tuple[Callable[[], None], list[str]]:
    """What drains the first pod that has written a line, to be called now and then; and the uid of that pod, once it has."""
    drained: list[str] = []

    def look() -> None:
        for pod in cluster.store.all(kinds.POD):
            if not drained and pod["status"].get("phase") == "Running" and log.read_text().count("line"):
                drained.append(pod["metadata"]["uid"])
                cluster.drain(pod["metadata"]["name"], namespace="team")
                hold.unlink()

    return look, drained


def test_a_launcher_that_was_killed_goes_on_with_its_job(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    hold = held(tmp_path)
    first = start(s3, "count", "200", str(hold))
    family.wait_for(lambda: running(cluster), "a running pod")
    first.kill()
    first.wait()
    (before,) = jobs(cluster)
    launch(s3, "count", "200", str(hold), log=tmp_path / "log", look=lambda: hold.unlink(missing_ok=True))
    (after,) = jobs(cluster)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line for line in lines if line.startswith("line ")] == [f"line {number}" for number in range(200)]
    assert sum(method == "POST" and "/pytorchjobs" in path for method, path in cluster.faults.seen) == 1


def test_a_terminated_launcher_deletes_its_job_and_prints_nothing_more(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    launcher = start(s3, "sleep", output=tmp_path / "out")
    family.wait_for(lambda: running(cluster), "a running pod")
    family.wait_for(lambda: "deed sleep" in (tmp_path / "out").read_text(), "the pod's log")
    printed, before = (tmp_path / "out").stat().st_size, len(cluster.faults.seen)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(300) == -signal.SIGTERM
    assert (tmp_path / "out").stat().st_size == printed
    assert deletes(cluster, before) == ["pytorchjobs"]
    family.wait_for(lambda: not jobs(cluster) and not cluster.store.all(kinds.POD), "no job and no pod")


def test_a_launcher_that_is_terminated_while_it_creates_its_job_leaves_none(cluster: Cluster, s3: str) -> None:
    """The job comes into being after the first DELETE: one is not enough."""
    cluster.faults.hold(lambda: "pytorchjobs" in deletes(cluster), method="POST", path="/pytorchjobs")
    launcher = start(s3, "sleep")
    family.wait_for(lambda: any(one == "POST" and "/pytorchjobs" in path for one, path in cluster.faults.seen), "a create")
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(300) == -signal.SIGTERM
    family.wait_for(lambda: any(change.kind is kinds.PYTORCHJOB for change in cluster.store.history), "the job")
    family.wait_for(lambda: not jobs(cluster), "no job")


def test_a_job_that_nobody_follows_ends_itself(cluster: Cluster, s3: str) -> None:
    launcher = start(s3, "sleep", abandoned_after_s=2)
    family.wait_for(lambda: running(cluster), "a running pod")
    launcher.kill()
    launcher.wait()
    family.wait_for(lambda: not jobs(cluster) and not cluster.store.all(kinds.POD), "no job and no pod")
    assert heartbeat.marked(f"{s3}/.model.launch")


@pytest.mark.slow
def test_without_the_right_to_delete_it_every_start_ends_at_the_mark(
    cluster: Cluster, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    powerless_pods(cluster, monkeypatch)
    launcher = start(s3, "sleep", abandoned_after_s=2, restarts=1)
    family.wait_for(lambda: running(cluster), "a running pod")
    launcher.kill()
    launcher.wait()
    family.wait_for(lambda: any(failed(job) for job in jobs(cluster)), "a failed job")
    starts = [name for name in cluster.faults.seen if name[0] == "DELETE" and "pytorchjobs" in name[1]]
    assert len(starts) >= 2  # each start looked for the mark and tried
    launch(s3, "count", "1")  # a new launcher clears the mark and starts anew
    assert not heartbeat.marked(f"{s3}/.model.launch")


def test_a_job_that_succeeded_is_not_run_again(cluster: Cluster, s3: str) -> None:
    launch(s3, "count", "1")
    pods = {pod["metadata"]["uid"] for pod in cluster.store.all(kinds.POD)}
    launch(s3, "count", "1")
    assert {pod["metadata"]["uid"] for pod in cluster.store.all(kinds.POD)} == pods


def test_another_job_of_the_same_name_is_left_alone(cluster: Cluster, s3: str) -> None:
    launch(s3, "count", "1")
    with pytest.raises(LaunchError, match=r"another spec.*kubectl -n team delete pytorchjob small-"):
        launch(s3, "count", "2")
    assert len(jobs(cluster)) == 1


def test_the_workflow_owns_the_job(cluster: Cluster, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = cluster.add(kinds.WORKFLOW, {"metadata": {"name": "run-x"}}, namespace="team")
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-x", "uid": workflow["metadata"]["uid"]}
    meta = {"name": "own", "labels": {"pipeline/runid": "run-7"}, "ownerReferences": [owner]}
    spec = {"containers": [{"name": "main", "image": "example/base:1", "command": ["sleep", "600"]}], "restartPolicy": "Never"}
    cluster.add(kinds.POD, {"metadata": meta, "spec": spec, "status": {}}, namespace="team")
    monkeypatch.setenv("KFP_POD_NAME", "own")
    launch(s3, "count", "1", image="")
    (job,) = jobs(cluster)
    assert job["metadata"]["ownerReferences"] == [owner]
    assert job["metadata"]["labels"]["tritower.dev/run"] == "run-7"
    template = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    assert template["spec"]["containers"][0]["image"] == "example/base:1"


def test_a_job_deleted_by_hand_is_told(cluster: Cluster, s3: str) -> None:
    from tritower.cluster.api import Api, custom

    def look() -> None:
        for job in jobs(cluster):
            if running(cluster):
                Api().call("DELETE", custom("kubeflow.org", "v1", "team", "pytorchjobs", job["metadata"]["name"]))

    with pytest.raises(LaunchError, match="the job was deleted"):
        launch(s3, "sleep", look=look)


def test_a_drained_pod_is_no_success_and_is_made_anew(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    """A master that ends with 0 in its grace would make the job a success: the agent ends with 143."""
    hold = held(tmp_path)
    look, drained = drains_once(cluster, tmp_path / "log", hold)
    launch(s3, "count", "100", str(hold), log=tmp_path / "log", look=look)
    (pod,) = cluster.store.all(kinds.POD)
    assert drained and pod["metadata"]["uid"] != drained[0]
    assert (tmp_path / "log").read_text().splitlines()[-2:] == ["line 99", "done"]


def test_a_pod_that_is_deleted_again_and_again_is_given_up(cluster: Cluster, s3: str) -> None:
    seen: set[str] = set()

    def look() -> None:
        for pod in cluster.store.all(kinds.POD):
            if pod["status"].get("phase") == "Running" and pod["metadata"]["uid"] not in seen:
                seen.add(pod["metadata"]["uid"])
                cluster.drain(pod["metadata"]["name"], namespace="team")

    with pytest.raises(LaunchError, match=r"made anew 2 time\(s\)"):
        launch(s3, "sleep", look=look, restarts=1)
    assert not jobs(cluster)
