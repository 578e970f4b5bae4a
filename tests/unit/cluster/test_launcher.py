"""Jobs on the tests' API server: real processes in pods, a real store, the official client."""

from pathlib import Path
from typing import Any

import pytest
from tritower import storage
from tritower.errors import ConfigError, DataError, JobFailed, LaunchError, TritowerError
from tritower.jobs import Job, open_launcher

from tests.support.apiserver import Cluster, kinds

QUICK = {
    "image": "example/train:1", "poll_s": 0.1, "heartbeat_s": 0.2, "abandoned_after_s": 60, "patience_s": 1,
    "start_timeout_s": 120, "memory": "2Gi", "grace_s": 5, "api_patience_s": 60,
}  # fmt: skip


def launch(
    where: str,
    *deed: str,
    log: Path | None = None,
    name: str = "small",
    look: Any = None,
    launcher: str = "pytorchjob",
    **settings: Any,
) -> None:
    job = Job(name=name, module="tests.support.pod", arguments=deed, outputs={"model": f"{where}/model"})
    open_launcher(launcher, QUICK | settings).run(job, log=log, look=look)


def held(folder: Path) -> Path:
    """A file that keeps a pod of the deed `count` from its end until it is removed."""
    path = folder / "held"
    path.touch()
    return path


def jobs(cluster: Cluster) -> list[dict[str, Any]]:
    return cluster.store.all(kinds.PYTORCHJOB)


def test_a_job_runs_to_its_end_and_its_log_is_here(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    launch(s3, "count", "50", log=tmp_path / "log")
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line for line in lines if line.startswith("line ")] == [f"line {number}" for number in range(50)]
    assert lines[-1] == "done"
    (job,) = jobs(cluster)
    assert job["metadata"]["name"].startswith("small-") and job["spec"]["runPolicy"]["cleanPodPolicy"] == "None"


def test_the_log_comes_whole_however_often_the_stream_is_cut(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    cluster.faults.cut("log", 100, 333, 50)
    launch(s3, "count", "150", log=tmp_path / "log")
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line for line in lines if line.startswith("line ")] == [f"line {number}" for number in range(150)]


def test_what_a_process_raised_is_raised_here(cluster: Cluster, s3: str) -> None:
    with pytest.raises(DataError, match="row 7 has no time") as caught:
        launch(s3, "refuse")
    assert f"{s3}/.model.launch/failure" in caught.value.remedy
    assert not jobs(cluster)
    files = {name.rpartition("/")[2] for name in storage.names(f"{s3}/.model.launch/failure")}
    assert {"job.json", "pods.json", "events.json"} < files and any(name.endswith(".log") for name in files)


def test_an_exit_code_is_told_with_the_pod(cluster: Cluster, s3: str) -> None:
    with pytest.raises(TritowerError, match=r"(ended with|exit) code 3") as caught:
        launch(s3, "exit", "3", restarts=0)
    assert "master-0" in caught.value.where and not jobs(cluster)


def test_a_failed_job_is_kept_where_that_is_asked_for(cluster: Cluster, s3: str) -> None:
    with pytest.raises(TritowerError, match="kubectl -n team delete pytorchjob"):
        launch(s3, "exit", "3", restarts=0, keep_failed=True)
    assert len(jobs(cluster)) == 1


def test_a_container_starts_again(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    launch(s3, "once", log=tmp_path / "log")
    assert (tmp_path / "log").read_text().count("deed once") == 2


def test_memory_that_runs_out_is_told_with_its_limit(cluster: Cluster, s3: str) -> None:
    with pytest.raises(JobFailed, match="OOMKilled, limit 300Mi"):
        launch(s3, "eat", memory="300Mi")
    assert not jobs(cluster)


def test_an_image_that_is_not_there(cluster: Cluster, s3: str) -> None:
    cluster.images["example/none:1"] = "missing"
    with pytest.raises(JobFailed, match=r"the image cannot be pulled: .*not found"):
        launch(s3, "count", "1", image="example/none:1")
    assert not jobs(cluster)


def test_gpus_that_no_node_has(cluster: Cluster, s3: str) -> None:
    with pytest.raises(LaunchError, match=r"no node has 8 nvidia.com/gpu: large has most, 2.*kubectl get nodes"):
        launch(s3, "count", "1", gpus=8)
    with pytest.raises(JobFailed, match=r"Insufficient nvidia.com/gpu.*large, has 2 of nvidia.com/gpu"):
        launch(s3, "count", "1", gpus=8, nodes_may_come=True, start_timeout_s=5)
    assert not jobs(cluster)


def test_a_quota_is_named(cluster: Cluster, s3: str) -> None:
    cluster.add(kinds.QUOTA, {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}}, namespace="team")
    with pytest.raises(JobFailed, match="exceeded quota"):
        launch(s3, "count", "1")
    assert not jobs(cluster)


def test_a_secret_that_is_not_there(cluster: Cluster, s3: str) -> None:
    with pytest.raises(
        LaunchError, match=r"the store's Secret other is not there.*kubectl -n team create secret generic other"
    ):
        launch(s3, "count", "1", store_secret="other")
    assert not jobs(cluster)


def test_who_looks_may_end_the_job(cluster: Cluster, s3: str) -> None:
    def look() -> None:
        if cluster.store.all(kinds.POD):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        launch(s3, "sleep", look=look)
    assert not jobs(cluster)


def test_a_path_of_this_machine_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pod can open it"):
        launch(str(tmp_path), "count", "1")
    assert not jobs(cluster)
