"""Jobs as TrainJobs on the tests' API server, which plays Kubeflow Trainer: real processes in pods, a real store."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tritower import storage
from tritower.cluster import heartbeat
from tritower.cluster.api import Api
from tritower.cluster.trainjob import TrainJobs
from tritower.errors import DataError, JobFailed, LaunchError, StepError

from tests.support import family
from tests.support.apiserver import Cluster, kinds, served
from tests.unit.cluster.test_launcher import held
from tests.unit.cluster.test_launcher import launch as launched
from tests.unit.cluster.test_stopping import deletes, drains_once, running, start


def launch(where: str, *deed: str, **more: Any) -> None:
    launched(where, *deed, launcher="trainjob", **more)


def left(cluster: Cluster) -> list[str]:
    """What there is of a job: kinds of objects."""
    every = (kinds.TRAINJOB, kinds.RUNTIME, kinds.JOBSET, kinds.POD)
    return [kind.kind for kind in every for _ in cluster.store.all(kind)]


def lines(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("line ")]


def test_a_job_runs_to_its_end_and_its_log_is_here(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    launch(s3, "count", "50", log=tmp_path / "log", nodes=2)
    assert lines(tmp_path / "log") == [f"line {number}" for number in range(50)]
    assert left(cluster) == ["TrainJob", "TrainingRuntime", "JobSet", "Pod", "Pod"]
    (job,), (runtime,) = cluster.store.all(kinds.TRAINJOB), cluster.store.all(kinds.RUNTIME)
    assert job["metadata"]["name"] == runtime["metadata"]["name"] == job["spec"]["runtimeRef"]["name"]
    launch(s3, "count", "50", nodes=2)  # it succeeded: nothing is run again
    assert sum(method == "POST" and "/trainjobs" in path for method, path in cluster.faults.seen) == 1


def test_the_runtime_is_not_known_to_the_webhook_for_a_moment(cluster: Cluster, s3: str) -> None:
    message = (
        'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: spec.runtimeRef: Invalid value: "x":'
        ' TrainingRuntime.trainer.kubeflow.org "x" not found: specified trainingRuntime must be created before the TrainJob is'
        " created"
    )
    cluster.faults.answer(403, method="POST", path="trainjobs", times=2, message=message)
    launch(s3, "count", "1", patience_s=60)
    cluster.faults.answer(403, method="POST", path="trainjobs", times=99, message=message)
    with pytest.raises(LaunchError, match="must be created before the TrainJob"):
        launch(f"{s3}/other", "count", "1")


def test_what_a_process_raised_is_raised_here_and_nothing_is_left(cluster: Cluster, s3: str) -> None:
    with pytest.raises(DataError, match="row 7 has no time") as caught:
        launch(s3, "refuse", restarts=0)
    place = heartbeat.home({"model": f"{s3}/model"}) + "/failure"
    assert place in caught.value.remedy
    files = {name.rpartition("/")[2] for name in storage.names(place)}
    assert {"job.json", "pods.json", "events.json"} < files and any(name.endswith(".log") for name in files)
    family.wait_for(lambda: not left(cluster), "nothing of the job")


def test_a_failed_job_is_kept_where_that_is_asked_for_and_made_anew(cluster: Cluster, s3: str) -> None:
    with pytest.raises(StepError, match=r"code 3 .*kubectl -n team delete trainjob,trainingruntime small-"):
        launch(s3, "exit", "3", restarts=0, keep_failed=True)
    (failed,) = cluster.store.all(kinds.TRAINJOB)
    launch(s3, "count", "1")
    (job,) = cluster.store.all(kinds.TRAINJOB)
    assert job["metadata"]["uid"] != failed["metadata"]["uid"]


def test_all_pods_start_again_and_the_log_goes_on_with_the_next_attempt(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    launch(s3, "once", log=tmp_path / "log", restarts=1)
    assert (tmp_path / "log").read_text().splitlines()[-2:] == ["deed once", "done"]
    (jobset,) = cluster.store.all(kinds.JOBSET)
    assert jobset["status"]["restarts"] == 1


def test_memory_that_runs_out_is_told_with_its_limit(cluster: Cluster, s3: str) -> None:
    with pytest.raises(JobFailed, match="OOMKilled, limit 300Mi"):
        launch(s3, "eat", memory="300Mi", restarts=0)


def test_an_image_that_is_not_there(cluster: Cluster, s3: str) -> None:
    cluster.images["example/none:1"] = "missing"
    with pytest.raises(JobFailed, match=r"the image cannot be pulled: .*not found"):
        launch(s3, "count", "1", image="example/none:1")
    family.wait_for(lambda: not left(cluster), "nothing of the job")


def test_a_quota_is_named_by_the_events_of_the_job_that_makes_the_pods(cluster: Cluster, s3: str) -> None:
    cluster.add(kinds.QUOTA, {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}}, namespace="team")
    with pytest.raises(JobFailed, match=r"a pod cannot be made: .*exceeded quota"):
        launch(s3, "count", "1")


def test_an_operator_that_does_not_look(cluster: Cluster, s3: str) -> None:
    cluster.down.add("trainer")
    with pytest.raises(
        LaunchError, match=r"is Kubeflow Trainer there\? .*kubectl get pods -A -l app.kubernetes.io/name=trainer"
    ):
        launch(s3, "count", "1", start_timeout_s=1)


def test_an_operator_that_is_not_installed(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(Cluster(namespaces=["team"], without=["trainjobs"])) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig", namespace="team")))
        with pytest.raises(LaunchError, match=r"no TrainJobs: Kubeflow Trainer is not installed.*kubectl apply --server-side"):
            launch(s3, "count", "1", store_secret="")


def test_a_launcher_that_was_killed_goes_on_with_its_job(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    hold = held(tmp_path)
    first = start(s3, "count", "200", str(hold), launcher="trainjob")
    family.wait_for(lambda: running(cluster), "a running pod")
    first.kill()
    first.wait()
    (before,) = cluster.store.all(kinds.TRAINJOB)
    launch(s3, "count", "200", str(hold), log=tmp_path / "log", look=lambda: hold.unlink(missing_ok=True))
    (after,) = cluster.store.all(kinds.TRAINJOB)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert lines(tmp_path / "log") == [f"line {number}" for number in range(200)]


def test_a_terminated_launcher_deletes_its_job_and_its_runtime(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    launcher = start(s3, "sleep", output=tmp_path / "out", launcher="trainjob")
    family.wait_for(lambda: running(cluster), "a running pod")
    family.wait_for(lambda: "deed sleep" in (tmp_path / "out").read_text(), "the pod's log")
    printed, before = (tmp_path / "out").stat().st_size, len(cluster.faults.seen)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(300) == -signal.SIGTERM
    assert (tmp_path / "out").stat().st_size == printed
    assert deletes(cluster, before) == ["trainjobs", "trainingruntimes"]
    family.wait_for(lambda: not left(cluster), "nothing of the job")


def test_a_job_that_nobody_follows_ends_itself_and_is_made_anew(cluster: Cluster, s3: str) -> None:
    launcher = start(s3, "sleep", launcher="trainjob", abandoned_after_s=2)
    family.wait_for(lambda: running(cluster), "a running pod")
    launcher.kill()
    launcher.wait()
    family.wait_for(lambda: not {"TrainJob", "Pod"} & set(left(cluster)), "no job and no pod")
    assert heartbeat.marked(heartbeat.home({"model": f"{s3}/model"}))
    launch(s3, "count", "1")  # with another spec: the runtime that was left is of no job any more
    assert left(cluster) == ["TrainJob", "TrainingRuntime", "JobSet", "Pod"]


def test_another_spec_is_an_error_wherever_it_stands(cluster: Cluster, s3: str) -> None:
    launch(s3, "count", "1")
    for change in ({"restarts": 2}, {"node_selector": {"kubernetes.io/hostname": "large"}}):  # both of the runtime alone
        with pytest.raises(LaunchError, match=r"another spec.*kubectl -n team delete trainjob,trainingruntime small-"):
            launch(s3, "count", "1", **change)
    (runtime,) = cluster.store.all(kinds.RUNTIME)
    assert runtime["spec"]["template"]["spec"]["failurePolicy"] == {"maxRestarts": 3}


def test_a_drained_pod_is_no_success_and_all_are_made_anew(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    hold = held(tmp_path)
    look, drained = drains_once(cluster, tmp_path / "log", hold)
    launch(s3, "count", "100", str(hold), log=tmp_path / "log", look=look)
    (pod,) = cluster.store.all(kinds.POD)
    assert drained and pod["metadata"]["uid"] != drained[0]
    assert (tmp_path / "log").read_text().splitlines()[-2:] == ["line 99", "done"]


def test_a_job_in_a_queue_is_waited_for(cluster: Cluster, s3: str) -> None:
    """Kueue admits a job by setting `suspend` to false; the time before does not count."""
    began = time.monotonic()

    def look() -> None:
        (job,) = cluster.store.all(kinds.TRAINJOB)
        if time.monotonic() - began > 11 and job["spec"]["suspend"]:
            assert not cluster.store.all(kinds.POD)
            cluster.store.edit(kinds.TRAINJOB, job, lambda one: one["spec"].update(suspend=False))

    launch(s3, "count", "1", queue="team-queue", start_timeout_s=10, look=look)
    (job,) = cluster.store.all(kinds.TRAINJOB)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-queue"
    assert [one["reason"] for one in job["status"]["conditions"]] == ["Resumed", "AllJobsCompleted"]


def test_a_job_that_its_queue_takes_back_for_a_while_has_not_failed(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    asked: list[bool] = []
    hold = held(tmp_path)

    def look() -> None:
        (job,) = cluster.store.all(kinds.TRAINJOB)
        pods = cluster.store.all(kinds.POD)
        if (not asked and lines(tmp_path / "log")) or (asked == [True] and not pods):
            asked.append(not asked)
            hold.unlink(missing_ok=True)
            cluster.store.edit(kinds.TRAINJOB, job, lambda one: one["spec"].update(suspend=asked[-1]))

    launch(s3, "count", "100", str(hold), restarts=0, log=tmp_path / "log", look=look)
    assert asked == [True, False]
    assert (tmp_path / "log").read_text().splitlines()[-2:] == ["line 99", "done"]


def test_a_job_that_takes_too_long_is_given_up(cluster: Cluster, s3: str) -> None:
    with pytest.raises(JobFailed, match="has not ended within 2 s") as caught:
        launch(s3, "sleep", deadline_s=2)
    place = heartbeat.home({"model": f"{s3}/model"}) + "/failure"
    assert place in caught.value.remedy and any(name.endswith("/job.json") for name in storage.names(place))
    family.wait_for(lambda: not left(cluster), "nothing of the job")


def test_a_job_that_somebody_deletes_is_told(cluster: Cluster, s3: str) -> None:
    def look() -> None:
        if running(cluster):
            (job,) = cluster.store.all(kinds.TRAINJOB)
            Api().call("DELETE", TrainJobs.resource.path("team", job["metadata"]["name"]))

    with pytest.raises(LaunchError, match="the job was deleted"):
        launch(s3, "sleep", look=look)
    family.wait_for(lambda: not left(cluster), "nothing of the job")


def test_the_workflow_owns_the_job_and_its_runtime(cluster: Cluster, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = cluster.add(kinds.WORKFLOW, {"metadata": {"name": "run-x"}}, namespace="team")
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run-x", "uid": workflow["metadata"]["uid"]}
    meta = {"name": "own", "labels": {"pipeline/runid": "run-7"}, "ownerReferences": [owner]}
    spec = {"containers": [{"name": "main", "image": "example/base:1", "command": ["sleep", "600"]}], "restartPolicy": "Never"}
    cluster.add(kinds.POD, {"metadata": meta, "spec": spec, "status": {}}, namespace="team")
    monkeypatch.setenv("KFP_POD_NAME", "own")
    launch(s3, "count", "1")
    for kind in (kinds.TRAINJOB, kinds.RUNTIME):
        (one,) = cluster.store.all(kind)
        assert one["metadata"]["ownerReferences"] == [owner] and one["metadata"]["labels"]["tritower.dev/run"] == "run-7"
    Api().call("DELETE", "/apis/argoproj.io/v1alpha1/namespaces/team/workflows/run-x")
    family.wait_for(lambda: not left(cluster), "nothing of the job")


def pod(name: str, *, rank: int = 0, attempt: int = 0, made: str = "2026-11-26T10:00:05Z") -> dict[str, Any]:
    labels = {"batch.kubernetes.io/job-completion-index": str(rank), "jobset.sigs.k8s.io/restart-attempt": str(attempt)}
    return {"metadata": {"name": name, "uid": name, "creationTimestamp": made, "labels": labels}, "spec": {}, "status": {}}


def test_pods_of_an_earlier_job_or_attempt_do_not_count() -> None:
    """Old and new pods live side by side with the same labels for as long as the old ones need to end."""
    job = {"metadata": {"uid": "u", "creationTimestamp": "2026-11-26T10:00:04Z"}}
    old = pod("a", made="2026-11-26T09:59:59Z", attempt=3)
    first, second, other = pod("b"), pod("c", attempt=1), pod("d", attempt=1, rank=1)
    assert [one["metadata"]["name"] for one in TrainJobs().own([old, first, second, other], job)] == ["c", "d"]
    assert TrainJobs().own([old], job) == []


def test_only_the_conditions_tell_the_end() -> None:
    """`jobsStatus` says failed 1 for a moment before all pods are made anew; a resumed job still shows Suspended."""
    kind, spec = TrainJobs(), {"runtimeRef": {"name": "x"}}
    counts = [{"name": "node", "active": 0, "ready": 0, "succeeded": 0, "failed": 1}]
    assert kind.ended({"spec": spec, "status": {"jobsStatus": counts}}) == "" and kind.ended({"spec": spec}) == ""
    resumed = {"spec": spec, "status": {"conditions": [{"type": "Suspended", "status": "False", "reason": "Resumed"}]}}
    assert not kind.queued(resumed) and kind.queued({"spec": spec | {"suspend": True}})
