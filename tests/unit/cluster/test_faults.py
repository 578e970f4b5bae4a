"""What goes wrong with a job on a cluster, and what is then read; where it was recorded, in the recorded words."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritower import storage
from tritower.errors import JobFailed, LaunchError, TritowerError

from tests.support import family
from tests.support.apiserver import Cluster, kinds
from tests.support.replay import FOLDER
from tests.unit.cluster.test_access import RULES, act_as
from tests.unit.cluster.test_launcher import held, jobs, launch
from tests.unit.cluster.test_stopping import running, start

ROOT = Path(__file__).parents[3]


def messages(recording: str) -> set[str]:
    """Every message of a recording: of conditions, containers, events and answers."""

    def found(thing: Any) -> Iterator[str]:
        if isinstance(thing, dict):
            yield from (text for key, text in thing.items() if key == "message" and isinstance(text, str))
        for part in thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list) else ():
            yield from found(part)

    lines = (FOLDER / f"{recording}.jsonl").read_text(encoding="utf-8").splitlines()
    return {text for line in lines for text in found(json.loads(line))}


def conditions_of(cluster: Cluster) -> set[tuple[str, str]]:
    """Every condition that a job ever had."""
    items = [change.item for change in cluster.store.history if change.kind is kinds.PYTORCHJOB]
    return {(one["type"], one["status"]) for item in items for one in item.get("status", {}).get("conditions", [])}


@pytest.mark.parametrize(
    ("recording", "image", "fault"),
    [
        ("ptj-image-missing", "localhost:5000/none:1", "missing"),
        ("ptj-image-denied", "localhost:5001/private:1", "denied"),
        ("ptj-image-unreachable", "tritower/none:1", "unreachable"),
        ("ptj-image-invalid", "Tritower/Train:0.1.0", ""),
    ],
)
def test_an_image_that_cannot_be_had(cluster: Cluster, s3: str, recording: str, image: str, fault: str) -> None:
    cluster.images[image] = fault
    with pytest.raises(JobFailed) as caught:
        launch(s3, "count", "1", image=image)
    said = caught.value.problem.removeprefix("the image cannot be pulled: ")
    assert said in {one.rstrip(".") for one in messages(recording)}
    assert "image_pull_secrets" in caught.value.remedy and "master-0" in caught.value.where
    assert not jobs(cluster)


def test_a_secret_that_only_the_node_misses(cluster: Cluster, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped Role may not read Secrets: the pod tells."""
    assert 'secret "ptj-secret-missing" not found' in messages("ptj-secret-missing")
    act_as(cluster, RULES, tmp_path, monkeypatch)
    with pytest.raises(JobFailed, match=r'the container cannot be made: secret "other" not found .*Make what it names'):
        launch(s3, "count", "1", store_secret="other")
    assert not jobs(cluster)


def test_a_secret_that_is_made_in_time(cluster: Cluster, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    act_as(cluster, RULES, tmp_path, monkeypatch)
    (store,) = cluster.store.all(kinds.SECRET)

    def make() -> None:
        family.wait_for(lambda: "CreateContainerConfigError" in str(cluster.store.all(kinds.POD)), "a waiting container")
        cluster.add(kinds.SECRET, {"metadata": {"name": "other"}, "data": store["data"]}, namespace="team")

    maker = threading.Thread(target=make)
    maker.start()
    launch(s3, "count", "1", store_secret="other", patience_s=120)
    maker.join()


def test_a_quota_for_one_pod_of_two_while_the_status_stays_empty(cluster: Cluster, s3: str) -> None:
    cluster.add(kinds.QUOTA, {"metadata": {"name": "pods"}, "spec": {"hard": {"pods": "1"}}}, namespace="team")
    with pytest.raises(JobFailed, match=r"a pod cannot be made: pods .* Raise the quota, or ask for less") as caught:
        launch(s3, "sleep", nodes=2)
    (recorded,) = {one.split("is forbidden: ")[1] for one in messages("ptj-quota") if "exceeded quota" in one}
    assert caught.value.problem.split("is forbidden: ")[1] == recorded
    assert not conditions_of(cluster) and not jobs(cluster)


def test_a_job_says_that_it_runs_while_a_worker_has_no_node(cluster: Cluster, s3: str) -> None:
    with pytest.raises(
        JobFailed, match=r"no node takes the pod: 0/2 nodes are available: .*Insufficient nvidia.com/gpu"
    ) as caught:
        launch(s3, "sleep", nodes=2, gpus=2, start_timeout_s=10)
    assert "worker-0" in caught.value.where and "the largest, large, has 2 of nvidia.com/gpu" in caught.value.remedy
    assert ("Running", "True") in conditions_of(cluster) and not jobs(cluster)


def test_a_job_that_nobody_looks_at(cluster: Cluster, s3: str) -> None:
    """Its status stays empty for ever; no event and no pod tells why."""
    cluster.down.add("training-controller")
    with pytest.raises(JobFailed, match=r"nobody has looked at the job within 2 s: is the training operator there") as caught:
        launch(s3, "count", "1", start_timeout_s=2)
    assert "kubectl get pods -A -l control-plane" in caught.value.remedy
    assert not conditions_of(cluster) and not jobs(cluster)


def test_an_operator_that_goes_before_the_end(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    """Recorded (ptj-operator-down): the Master has succeeded, and the job says Running until the operator is back."""
    hold = held(tmp_path)

    def look() -> None:
        if running(cluster):
            cluster.down.add("training-operator")
            hold.unlink(missing_ok=True)

    with pytest.raises(JobFailed, match=r"its pods have ended, but the job has not: is the training operator there"):
        launch(s3, "count", "20", str(hold), look=look, start_timeout_s=10)
    cluster.down.clear()


def test_an_operator_that_comes_back_in_time(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    cluster.down.add("training-operator")
    threading.Timer(2.0, cluster.down.clear).start()
    downs: list[bool] = []
    hold = held(tmp_path)

    def look() -> None:
        if running(cluster) and not downs:
            downs.append(True)
            cluster.down.add("training-operator")
            threading.Timer(2.0, cluster.down.clear).start()
            hold.unlink()

    launch(s3, "count", "20", str(hold), look=look)
    assert downs


def test_a_webhook_that_is_down_is_told_in_its_own_words(cluster: Cluster, s3: str) -> None:
    cluster.down.add("training-operator")
    with pytest.raises(LaunchError) as caught:
        launch(s3, "count", "1", api_patience_s=1)
    said = caught.value.problem.removeprefix("the API server says 500: ")
    assert said in messages("ptj-operator-down")


def test_no_list_and_no_watch_goes_on_from_a_version(cluster: Cluster, s3: str) -> None:
    """So no version can be too old (410). A server that says so all the same, in the middle of a list, is asked again."""
    cluster.faults.answer(410, path="labelSelector", times=2, message="The provided continue parameter is too old")
    threading.Timer(1.0, cluster.store.compact).start()
    launch(s3, "count", "100")
    assert not [path for _, path in cluster.faults.seen if re.search(r"watch=|resourceVersion=|continue=|limit=", path)]


def test_an_api_server_that_is_gone_for_a_while(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    """A minute on a real cluster, some seconds here: the job goes on, and its log has no gap."""
    gone: list[bool] = []
    hold = held(tmp_path)

    def look() -> None:
        if running(cluster) and not gone:
            gone.append(True)
            cluster.faults.gone(4.0)
            hold.unlink()

    launch(s3, "count", "150", str(hold), look=look, log=tmp_path / "log")
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line for line in lines if line.startswith("line ")] == [f"line {number}" for number in range(150)]
    assert len(jobs(cluster)) == 1


def test_an_internal_error_ends_a_write_and_not_a_read(cluster: Cluster, s3: str) -> None:
    cluster.faults.answer(500, method="GET", path="/pytorchjobs/small", times=2, message="Internal error occurred: odd")
    launch(s3, "count", "1")
    cluster.faults.answer(500, method="POST", path="/pytorchjobs", message="Internal error occurred: odd")
    with pytest.raises(LaunchError, match="the API server says 500: Internal error occurred: odd"):
        launch(f"{s3}/other", "count", "1")


def test_rights_that_are_taken_away_while_the_job_runs(
    cluster: Cluster, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act_as(cluster, RULES, tmp_path, monkeypatch)
    token = next(token for token, account in cluster.rights.accounts.items() if account.user.endswith("tritower-launcher"))

    def look() -> None:
        if running(cluster):
            account = cluster.rights.accounts[token]
            rules = [rule | {"verbs": [verb for verb in rule["verbs"] if verb != "list"]} for rule in account.rules]
            cluster.rights.accounts[token] = type(account)(account.user, account.namespace, rules)

    with pytest.raises(LaunchError, match=r'says 403: pods is forbidden: User .* cannot list resource "pods".*manifests/base'):
        launch(s3, "sleep", look=look)
    assert not jobs(cluster)


def test_a_killed_container_starts_again_in_seconds(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    killed: list[bool] = []
    hold = held(tmp_path)

    def look() -> None:
        if not killed and (tmp_path / "log").read_text().count("line"):
            (pod,) = cluster.store.all(kinds.POD)
            cluster.kill(pod["metadata"]["name"], namespace="team")
            killed.append(True)
            hold.unlink()

    launch(s3, "count", "60", str(hold), look=look, log=tmp_path / "log")
    assert killed
    text = (tmp_path / "log").read_text()
    assert text.count("deed count") == 2 and text.splitlines()[-2:] == ["line 59", "done"]


def test_a_process_that_ends_with_0_when_it_is_asked_to_is_no_success() -> None:
    """Recorded: an evicted Master that ends with 0 in its grace makes the job Succeeded."""
    command = [sys.executable, "-m", "tritower.cluster.agent", "--", "tests.support.pod", "polite"]
    agent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert agent.stdout and [agent.stdout.readline() for _ in range(2)] == ["deed polite\n", "ready\n"]
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(300) == 143


def test_an_evicted_pod_is_made_anew_or_told(cluster: Cluster, s3: str) -> None:
    evicted: set[str] = set()

    def look() -> None:
        for pod in cluster.store.all(kinds.POD):
            if pod["status"].get("phase") == "Running" and pod["metadata"]["uid"] not in evicted:
                evicted.add(pod["metadata"]["uid"])
                cluster.evict(pod["metadata"]["name"], namespace="team")

    with pytest.raises(
        JobFailed, match=r"its pod was made anew 1 time|the pod was evicted: The node was low on resource: memory"
    ):
        launch(s3, "sleep", look=look, restarts=0)
    assert evicted and not jobs(cluster)


def test_the_deadline_is_the_launchers(cluster: Cluster, s3: str) -> None:
    """Recorded (ptj-deadline): activeDeadlineSeconds fires when a pod changes, and not before."""
    cluster.speed = 0.5  # its pod has run before the operator could act on a change of it
    with pytest.raises(JobFailed, match=r"the job has not ended within 5 s"):
        launch(s3, "sleep", deadline_s=5)
    assert ("Failed", "True") not in conditions_of(cluster) and not jobs(cluster)


def test_nothing_reads_the_counts_of_the_status(cluster: Cluster, s3: str) -> None:
    """Recorded: a worker that was killed counts as succeeded, one that crashes as active."""

    wrong = {"Master": {"failed": 7, "succeeded": 1}, "Worker": {"failed": 7}}

    def look() -> None:
        for one in jobs(cluster):
            cluster.store.edit(kinds.PYTORCHJOB, one, lambda job: job.get("status", {}).update(replicaStatuses=wrong))

    launch(s3, "count", "30", look=look)


@pytest.mark.slow
def test_the_pods_of_a_failed_job_go_and_what_they_said_stays(cluster: Cluster, s3: str) -> None:
    """Failed does not stop pods: the first one would go on and hold its GPUs."""
    with pytest.raises(TritowerError, match=r"(ended with|exit) code 1.*small-\w+-worker-0"):
        launch(s3, "lame", nodes=2, restarts=0, memory="", start_timeout_s=120)
    assert not jobs(cluster)
    family.wait_for(lambda: not cluster.store.all(kinds.POD), "no pod")
    kept = [name for name in storage.names(f"{s3}/.model.launch/failure") if "-worker-0." in name]
    texts = [storage.read_small(f"s3://bucket/{name.removeprefix('bucket/')}") for name in kept]
    assert any(text and b"this is why" in text[0] for text in texts), kept


@pytest.mark.parametrize(
    "sign",
    [pytest.param(1, id="the launcher is ahead"), pytest.param(-1, id="the pods are ahead", marks=pytest.mark.slow)],
)
def test_clocks_that_differ_by_hours(
    cluster: Cluster, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: int
) -> None:
    """The launcher's, rank 0's, the API server's and the nodes': nothing compares one with another."""
    clock = f"{ROOT / 'tests' / 'support' / 'clock'}:"
    monkeypatch.setenv("PYTHONPATH", clock + os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("CLOCK_AHEAD_S", f"{sign * 5 * 3600}")
    cluster.environment |= {"PYTHONPATH": clock + cluster.environment["PYTHONPATH"], "CLOCK_AHEAD_S": f"{-sign * 7 * 3600}"}
    cluster.set_clock(sign * 2 * 3600)
    first = start(s3, "count", "100", output=tmp_path / "out", abandoned_after_s=8)
    assert first.wait(300) == 0
    lines = re.findall(r"^line \d+$", (tmp_path / "out").read_text(), re.MULTILINE)
    assert lines == [f"line {number}" for number in range(100)]
    launcher = start(f"{s3}/other", "sleep", abandoned_after_s=8)
    family.wait_for(lambda: running(cluster), "a running pod")
    time.sleep(9)
    assert running(cluster)  # it is heard
    launcher.kill()
    launcher.wait()
    family.wait_for(lambda: len(jobs(cluster)) == 1 and not running(cluster), "no second job")
