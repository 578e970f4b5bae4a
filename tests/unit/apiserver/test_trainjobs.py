"""Trainer's part, as it was seen to work: the environment, the conditions, restarts of the whole set."""

from typing import Any

import pytest
from kubernetes import client
from kubernetes.client import ApiException

from tests.support.apiserver import Cluster, kinds
from tests.support.pytorchjobs import Object, shell, until

GROUP = ("trainer.kubeflow.org", "v1alpha1", "team", "trainjobs")


def launch(
    api: Any, name: str, command: list[str], *, nodes: int = 2, restarts: int = 0, policy: str = "Never", **spec: Any
) -> Any:
    """Make a runtime and a TrainJob of it."""
    custom = client.CustomObjectsApi(api())
    pod = {
        "restartPolicy": policy,
        "terminationGracePeriodSeconds": 5,
        "containers": [{"name": "node", "image": "example/python:1"}],
    }
    ancestor = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    job = {
        "metadata": {"labels": ancestor},
        "spec": {"template": {"spec": pod}} | ({"backoffLimit": 0} if policy == "Never" else {}),
    }
    jobset = {"failurePolicy": {"maxRestarts": restarts}, "replicatedJobs": [{"name": "node", "template": job}]}
    runtime = {"mlPolicy": {"numNodes": nodes, "torch": {}}, "template": {"spec": jobset}}
    head = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "metadata": {"name": name}}
    plural = (*GROUP[:3], "trainingruntimes")
    custom.create_namespaced_custom_object(
        *plural, head | {"kind": "TrainingRuntime", "spec": runtime}, field_validation="Strict"
    )
    trainer = {"image": "example/python:1", "command": command, "numNodes": nodes, "numProcPerNode": 1}
    own = {"runtimeRef": {"name": name, "kind": "TrainingRuntime"}, "trainer": trainer} | spec
    custom.create_namespaced_custom_object(*GROUP, head | {"kind": "TrainJob", "spec": own}, field_validation="Strict")
    return custom


def condition(custom: Any, name: str, type_: str) -> Object | None:
    status = custom.get_namespaced_custom_object(*GROUP, name).get("status", {})
    return next((dict(one) for one in status.get("conditions", []) if one["type"] == type_), None)


def pods(api: Any, rank: int | None = None) -> list[Any]:
    own = "" if rank is None else f",batch.kubernetes.io/job-completion-index={rank}"
    return list(
        client.CoreV1Api(api()).list_namespaced_pod("team", label_selector=f"jobset.sigs.k8s.io/jobset-name{own}").items
    )


def test_every_rank_has_its_environment_and_all_have_to_end(cluster: Cluster, api: Any) -> None:
    custom = launch(api, "fine", shell("env | grep -E '^(PET_|JOB_)'; sleep $PET_NODE_RANK"))
    until(lambda: len([pod for pod in pods(api) if pod.status.phase == "Succeeded"]) == 1)
    # Rank 0 has ended, rank 1 has not: no condition at all.
    assert "conditions" not in custom.get_namespaced_custom_object(*GROUP, "fine")["status"]
    assert until(lambda: condition(custom, "fine", "Complete"))["reason"] == "AllJobsCompleted"
    for rank in (0, 1):
        (pod,) = pods(api, rank)
        assert pod.metadata.name.startswith(f"fine-node-0-{rank}-")
        text = client.CoreV1Api(api()).read_namespaced_pod_log(pod.metadata.name, "team", container="node")
        own = dict(line.split("=", 1) for line in text.splitlines())
        assert (own["PET_NNODES"], own["PET_NODE_RANK"], own["JOB_COMPLETION_INDEX"]) == ("2", str(rank), str(rank))
        assert (own["PET_MASTER_ADDR"], own["PET_NPROC_PER_NODE"]) == ("127.0.0.1", "1")
        shown = {one.name: one.value for one in pod.spec.containers[0].env}
        assert (shown["PET_MASTER_ADDR"], shown["PET_MASTER_PORT"]) == ("fine-node-0-0.fine", "29500")


def test_a_failure_leaves_the_failed_pod_only(cluster: Cluster, api: Any) -> None:
    custom = launch(api, "bad", shell('test "$PET_NODE_RANK" = 0 && sleep 60; sleep 0.3; echo boom; exit 1'))
    found = until(lambda: condition(custom, "bad", "Failed"))
    assert found["reason"] == "FailedJobs" and "first failed job: bad-node-0" in found["message"]
    (left,) = until(lambda: pods(api) if len(pods(api)) == 1 else None)
    assert left.status.phase == "Failed" and left.metadata.labels["batch.kubernetes.io/job-completion-index"] == "1"
    assert client.CoreV1Api(api()).read_namespaced_pod_log(left.metadata.name, "team") == "boom\n"


def test_the_whole_set_restarts_and_then_fails(cluster: Cluster, api: Any) -> None:
    custom = launch(api, "again", shell('test "$PET_NODE_RANK" = 0 && sleep 60; exit 1'), restarts=2)
    assert until(lambda: condition(custom, "again", "Failed"))["reason"] == "ReachedMaxRestarts"
    jobset = cluster.store.get(kinds.JOBSET, "team", "again")
    assert jobset and jobset["status"]["restarts"] == 2
    attempts = {pod.metadata.labels["jobset.sigs.k8s.io/restart-attempt"] for pod in pods(api)}
    assert attempts == {"2"}


def test_a_pod_that_ends_with_0_as_it_is_deleted_counts_as_success(cluster: Cluster, api: Any) -> None:
    custom = launch(api, "short", shell("trap 'exit 0' TERM; echo start; sleep 60 & wait $!"), nodes=1, policy="OnFailure")
    core = client.CoreV1Api(api())
    (pod,) = until(lambda: [one for one in pods(api) if one.status.phase == "Running"])
    until(lambda: core.read_namespaced_pod_log(pod.metadata.name, "team"))
    core.delete_namespaced_pod(pod.metadata.name, "team")
    until(lambda: condition(custom, "short", "Complete"))


def test_suspended_and_resumed(cluster: Cluster, api: Any) -> None:
    custom = launch(api, "queued", shell("true"), nodes=1, suspend=True)
    assert until(lambda: condition(custom, "queued", "Suspended"))["status"] == "True" and not pods(api)
    custom.patch_namespaced_custom_object(*GROUP, "queued", {"spec": {"suspend": False}})
    until(lambda: condition(custom, "queued", "Complete"))
    assert condition(custom, "queued", "Suspended")["reason"] == "Resumed"  # type: ignore[index]


def test_the_deadline_is_a_timer_and_takes_the_pods_with_it(cluster: Cluster, api: Any) -> None:
    custom = launch(api, "slow", shell("trap 'exit 143' TERM; sleep 60 & wait $!"), nodes=1, activeDeadlineSeconds=10)
    assert until(lambda: condition(custom, "slow", "Failed"))["reason"] == "DeadlineExceeded"
    until(lambda: not pods(api))


def test_a_name_that_is_too_long_is_taken_and_nothing_happens(cluster: Cluster, api: Any) -> None:
    custom = launch(api, "x" * 49, shell("true"))
    events = until(lambda: client.CoreV1Api(api()).list_namespaced_event("team").items)
    assert events[0].reason == "TrainJobResourcesCreationFailed"
    assert not custom.get_namespaced_custom_object(*GROUP, "x" * 49).get("status")


def test_a_runtime_that_is_not_there_is_refused(cluster: Cluster, api: Any) -> None:
    spec = {"runtimeRef": {"name": "none", "kind": "TrainingRuntime"}}
    job = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": "a"}, "spec": spec}
    with pytest.raises(ApiException) as raised:
        client.CustomObjectsApi(api()).create_namespaced_custom_object(*GROUP, job)
    assert raised.value.status == 403 and "spec.runtimeRef" in raised.value.body
