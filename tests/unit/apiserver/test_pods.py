"""Pods and PyTorchJobs: real processes, their logs, and what ends them."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes import client
from kubernetes.client import ApiException

from tests.support import family
from tests.support.apiserver import Cluster, Node, kinds, served
from tests.support.pytorchjobs import Object, ended, job, shell, until

GROUP = ("kubeflow.org", "v1", "team", "pytorchjobs")
TRAPPED = "trap 'echo got TERM; exit 143' TERM; echo start; "


def run(api: Any, manifest: Object) -> Object:
    """Make a job and wait for its end: its status."""
    custom = client.CustomObjectsApi(api())
    custom.create_namespaced_custom_object(*GROUP, manifest, field_validation="Strict")

    def status() -> Object | None:
        found = custom.get_namespaced_custom_object(*GROUP, manifest["metadata"]["name"]).get("status", {})
        return found if ended(found) else None

    return dict(until(status))


def pods(api: Any) -> dict[str, Any]:
    return {pod.metadata.name: pod for pod in client.CoreV1Api(api()).list_namespaced_pod("team").items}


def start(api: Any, manifest: Object, *running: str) -> client.CoreV1Api:
    """Make a job and wait until these pods run."""
    client.CustomObjectsApi(api()).create_namespaced_custom_object(*GROUP, manifest)
    until(lambda: all(name in pods(api) and pods(api)[name].status.phase == "Running" for name in running))
    return client.CoreV1Api(api())


def reasons(api: Any, name: str) -> set[str]:
    """Reasons of the events about an object."""
    found = client.CoreV1Api(api()).list_namespaced_event("team", field_selector=f"involvedObject.name={name}").items
    return {event.reason for event in found}


def test_pods_have_the_environment_of_the_operator(cluster: Cluster, api: Any, tmp_path: Path) -> None:
    core = client.CoreV1Api(api())
    core.create_namespaced_secret("team", {"metadata": {"name": "store"}, "stringData": {"key": "s3cret"}})
    # The Workers wait for the Master's name, which goes with it; its success is the job's, whatever they do.
    let = tmp_path / "let"
    master = shell(f"until [ -e {let} ]; do sleep 0.05; done; env; cat /keys/key")
    manifest = job("env", master, shell("env"), shell("env"))
    for role in manifest["spec"]["pytorchReplicaSpecs"].values():
        spec = role["template"]["spec"]
        spec["volumes"] = [{"name": "keys", "secret": {"secretName": "store"}}]
        key = {"secretKeyRef": {"name": "store", "key": "key"}}
        own = [{"name": "KEY", "valueFrom": key}, {"name": "HELLO", "value": "key $(KEY)"}]
        spec["containers"][0] |= {"env": own, "volumeMounts": [{"name": "keys", "mountPath": "/keys"}]}
    manifest["spec"]["nprocPerNode"] = "2"
    start(api, manifest)
    until(lambda: [pod.status.phase for pod in pods(api).values()].count("Succeeded") == 2)
    let.touch()
    custom = client.CustomObjectsApi(api())
    assert ended(until(lambda: _ended(custom, "env"))) == "Succeeded"
    texts = {name: core.read_namespaced_pod_log(name, "team") for name in pods(api)}
    values = {name: dict(line.partition("=")[::2] for line in text.splitlines()) for name, text in texts.items()}
    assert set(values) == {"env-master-0", "env-worker-0", "env-worker-1"}
    for rank, (_, own) in enumerate(sorted(values.items())):
        assert (own["RANK"], own["WORLD_SIZE"], own["PET_NODE_RANK"]) == (str(rank), "6", str(rank))
        assert (own["PET_NNODES"], own["PET_NPROC_PER_NODE"], own["HELLO"]) == ("3", "2", "key s3cret")
        assert own["MASTER_ADDR"] == own["PET_MASTER_ADDR"] == "127.0.0.1"
    assert len({(own["MASTER_PORT"], own["PET_MASTER_PORT"]) for own in values.values()}) == 1
    assert texts["env-master-0"].endswith("s3cret")
    shown = {one.name: one.value for one in pods(api)["env-worker-1"].spec.containers[0].env}
    assert (shown["MASTER_ADDR"], shown["MASTER_PORT"]) == ("env-master-0", "23456")


def test_a_pod_that_the_kubelet_has_not_taken_up_is_waited_for() -> None:
    one = Cluster(namespaces=["team"])
    container = {"name": "main", "image": "example/shell:1", "command": shell("sleep 300")}
    pod = {"metadata": {"name": "late"}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    one.add(kinds.POD, pod, namespace="team")
    asked = threading.Thread(target=one.kill, args=("late",), kwargs={"namespace": "team"})
    asked.start()
    time.sleep(0.1)
    assert asked.is_alive()
    one.kubelet.step()
    asked.join(timeout=300)
    assert not asked.is_alive()
    one.kubelet.close()
    with pytest.raises(LookupError, match="pod team/none: there is none"):
        one.evict("none", namespace="team")


def test_a_log_is_followed_while_the_pod_runs(cluster: Cluster, api: Any) -> None:
    core = start(api, job("talk", shell("for i in 1 2 3 4 5 6; do echo line $i; sleep 0.2; done")), "talk-master-0")
    until(lambda: "line 1" in core.read_namespaced_pod_log("talk-master-0", "team"))
    stream = core.read_namespaced_pod_log("talk-master-0", "team", follow=True, _preload_content=False)
    assert b"".join(stream.stream()) == b"".join(b"line %d\n" % i for i in range(1, 7))
    stamped = core.read_namespaced_pod_log("talk-master-0", "team", timestamps=True, tail_lines=2).splitlines()
    assert [line.split(" ", 1)[1] for line in stamped] == ["line 5", "line 6"]
    # The client has no argument for a time.
    since = urllib3.request(
        "GET",
        f"{cluster.url}/api/v1/namespaces/team/pods/talk-master-0/log?sinceTime=2999-01-01T00:00:00Z",
        headers={"Authorization": f"Bearer {cluster.admin_token}"},
    )
    assert since.data == b""
    for query in ({"container": "none"}, {"previous": True}):
        with pytest.raises(ApiException) as raised:
            core.read_namespaced_pod_log("talk-master-0", "team", **query)
        assert raised.value.status == 400


def test_a_log_stream_is_cut(cluster: Cluster, api: Any) -> None:
    core = start(api, job("talk", shell("echo 0123456789; sleep 5")), "talk-master-0")
    cluster.faults.cut("log", 4)
    stream = core.read_namespaced_pod_log("talk-master-0", "team", follow=True, _preload_content=False)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        list(stream.stream())
    assert core.read_namespaced_pod_log("talk-master-0", "team") == "0123456789\n"


def test_the_masters_success_is_the_jobs_and_cleaning_ends_the_worker(cluster: Cluster, api: Any) -> None:
    manifest = job("short", shell("sleep 0.8"), shell(TRAPPED + "sleep 60 & wait $!"), cleanPodPolicy="Running")
    start(api, manifest, "short-worker-0")
    until(lambda: set(pods(api)) == {"short-master-0"})
    status = client.CustomObjectsApi(api()).get_namespaced_custom_object(*GROUP, "short")["status"]
    assert ended(status) == "Succeeded" and status["replicaStatuses"]["Worker"]["succeeded"] == 1


def test_a_failed_worker_fails_the_job_and_the_master_goes_on(cluster: Cluster, api: Any) -> None:
    status = run(api, job("bad", shell("sleep 60"), shell("echo boom; exit 3")))
    assert status["conditions"][-1]["message"] == "PyTorchJob bad is failed because 1 Worker replica(s) failed."
    assert pods(api)["bad-master-0"].status.phase == "Running"
    assert client.CoreV1Api(api()).read_namespaced_pod_log("bad-worker-0", "team") == "boom\n"
    assert {"Error", "ExitedWithCode", "PyTorchJobFailed"} <= reasons(api, "bad")


def test_restarts_of_all_pods_count_for_the_limit(cluster: Cluster, api: Any) -> None:
    manifest = job("again", shell("exit 1"), shell("sleep 60"), restart="OnFailure", backoffLimit=2)
    status = run(api, manifest)
    assert status["conditions"][-1]["message"] == "Job again has failed because it has reached the specified backoff limit"
    (container,) = pods(api)["again-master-0"].status.container_statuses
    assert container.restart_count == 2 and container.last_state.terminated.exit_code == 1


def test_more_memory_than_the_limit_is_oom(cluster: Cluster, api: Any) -> None:
    eat = ["python", "-c", "print('eating', flush=True)\nx = []\nwhile True: x.append(bytearray(1 << 20))"]
    assert ended(run(api, job("oom", eat, resources={"limits": {"memory": "64Mi"}}))) == "Failed"
    state = pods(api)["oom-master-0"].status.container_statuses[0].state.terminated
    assert (state.reason, state.exit_code) == ("OOMKilled", 137)
    assert "OOMKilled" in reasons(api, "oom")


def test_deleting_a_job_asks_its_processes_to_end(cluster: Cluster, api: Any) -> None:
    core = start(api, job("gone", shell(TRAPPED + "sleep 60 & wait $!")), "gone-master-0")
    until(lambda: core.read_namespaced_pod_log("gone-master-0", "team"))
    stream = core.read_namespaced_pod_log("gone-master-0", "team", follow=True, _preload_content=False)
    client.CustomObjectsApi(api()).delete_namespaced_custom_object(*GROUP, "gone")
    assert b"".join(stream.stream()) == b"start\ngot TERM\n"
    until(lambda: not pods(api))


def test_a_process_that_does_not_hear_is_killed_after_its_grace(cluster: Cluster, api: Any) -> None:
    # As process 1 of a container, a shell without a trap is not ended by SIGTERM.
    core = start(api, job("deaf", shell("echo start; sleep 60 & wait $!")), "deaf-master-0")
    begun = time.monotonic()
    core.delete_namespaced_pod("deaf-master-0", "team")
    cluster.down.add("training-operator")
    until(lambda: not pods(api))
    assert time.monotonic() - begun >= 10 / cluster.speed


def test_an_owner_takes_its_job_with_it(cluster: Cluster, api: Any) -> None:
    owner = cluster.add(kinds.WORKFLOW, {"metadata": {"name": "run"}, "spec": {}}, namespace="team")
    reference = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run", "uid": owner["metadata"]["uid"]}
    custom = client.CustomObjectsApi(api())
    for name, uid in (("mine", owner["metadata"]["uid"]), ("wrong", "0000")):
        manifest = job(name, shell("sleep 60"))
        manifest["metadata"]["ownerReferences"] = [reference | {"uid": uid}]
        custom.create_namespaced_custom_object(*GROUP, manifest)
    until(lambda: [one["metadata"]["name"] for one in custom.list_namespaced_custom_object(*GROUP)["items"]] == ["mine"])
    custom.delete_namespaced_custom_object("argoproj.io", "v1alpha1", "team", "workflows", "run")
    until(lambda: not custom.list_namespaced_custom_object(*GROUP)["items"] and not pods(api))


def test_an_owner_elsewhere_is_none_and_one_of_an_unknown_version_is_never_collected_for(cluster: Cluster, api: Any) -> None:
    client.CoreV1Api(api()).create_namespace({"metadata": {"name": "other"}})
    owner = cluster.add(kinds.WORKFLOW, {"metadata": {"name": "run"}, "spec": {}}, namespace="other")
    reference = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run", "uid": owner["metadata"]["uid"]}
    custom = client.CustomObjectsApi(api())
    for name, version in (("elsewhere", "argoproj.io/v1alpha1"), ("unknown", "v1")):
        manifest = job(name, shell("sleep 60"))
        manifest["metadata"]["ownerReferences"] = [reference | {"apiVersion": version}]
        custom.create_namespaced_custom_object(*GROUP, manifest)
    until(lambda: [one["metadata"]["name"] for one in custom.list_namespaced_custom_object(*GROUP)["items"]] == ["unknown"])
    assert "OwnerRefInvalidNamespace" in reasons(api, "elsewhere")


def test_an_eviction_by_the_node_fails_the_pod(cluster: Cluster, api: Any) -> None:
    start(api, job("full", shell("sleep 60")), "full-master-0")
    cluster.evict("full-master-0", namespace="team")
    until(lambda: pods(api)["full-master-0"].status.phase == "Failed")
    status = pods(api)["full-master-0"].status
    assert status.reason == "Evicted" and "low on resource" in status.message
    until(lambda: ended(client.CustomObjectsApi(api()).get_namespaced_custom_object(*GROUP, "full")["status"]) == "Failed")


def test_an_evicted_master_that_ends_with_0_makes_the_job_a_success(cluster: Cluster, api: Any) -> None:
    command = shell("trap 'exit 0' TERM; echo start; sleep 60 & wait $!")
    core = start(api, job("evicted", command, restart="OnFailure"), "evicted-master-0")
    until(lambda: core.read_namespaced_pod_log("evicted-master-0", "team"))
    core.create_namespaced_pod_eviction("evicted-master-0", "team", {"metadata": {"name": "evicted-master-0"}})
    custom = client.CustomObjectsApi(api())
    status = until(lambda: _ended(custom, "evicted"))
    assert [one["type"] for one in status["conditions"]] == ["Created", "Restarting", "Succeeded"]


def test_after_an_eviction_by_the_node_a_pod_is_made_anew(cluster: Cluster, api: Any) -> None:
    start(api, job("full", shell("sleep 60"), restart="OnFailure"), "full-master-0")
    first = pods(api)["full-master-0"].metadata.uid
    cluster.evict("full-master-0", namespace="team")
    until(lambda: first not in {pod.metadata.uid for pod in pods(api).values()} and pods(api))


def _ended(custom: Any, name: str) -> Object | None:
    status = custom.get_namespaced_custom_object(*GROUP, name).get("status", {})
    return dict(status) if ended(status) else None


@pytest.mark.slow
def test_two_nodes_meet(tmp_path: Path) -> None:
    code = (
        "import os, torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "one = torch.tensor([float(dist.get_rank() + 1)])\n"
        "dist.all_reduce(one)\n"
        "print('sum', one.item(), 'of', dist.get_world_size())\n"
        "dist.destroy_process_group()\n"
    )
    (tmp_path / "meet.py").write_text(code)
    command = ["torchrun", "--max-restarts=0", str(tmp_path / "meet.py")]
    with served(Cluster(namespaces=["team"], environment={"OMP_NUM_THREADS": "1"})) as cluster:
        cluster.add(kinds.PYTORCHJOB, job("meet", command, command), namespace="team")
        until(lambda: ended(_status(cluster, "meet")), 120)
        texts = {}
        for pod in cluster.store.all(kinds.POD):
            runner = cluster.kubelet.runner(pod["metadata"]["uid"])
            assert runner
            texts[pod["metadata"]["name"]] = b"".join(
                line for _, line in runner.container("pytorch").attempts[-1].lines
            ).decode()
    assert ended(_status(cluster, "meet")) == "Succeeded", texts
    assert all("sum 3.0 of 2" in text for text in texts.values()) and len(texts) == 2


def test_nothing_is_left_when_the_server_ends() -> None:
    # A grandchild in a session of its own, as torchrun's workers are.
    code = (
        "import subprocess, time\n"
        "subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "print('up', flush=True)\n"
        "time.sleep(300)\n"
    )
    with served(Cluster(namespaces=["team"])) as cluster:
        cluster.add(kinds.PYTORCHJOB, job("left", ["python", "-c", code]), namespace="team")
        mark = until(lambda: _mark(cluster))
        until(lambda: len(family.members(mark)) == 2)
    family.assert_gone(mark)
    assert not cluster.kubelet.folder.exists()


def _status(cluster: Cluster, name: str) -> Object:
    found = cluster.store.get(kinds.PYTORCHJOB, "team", name) or {}
    return dict(found.get("status", {}))


def _mark(cluster: Cluster) -> dict[str, str] | None:
    for pod in cluster.store.all(kinds.POD):
        runner = cluster.kubelet.runner(pod["metadata"]["uid"])
        if runner and runner.containers[0].attempts and runner.containers[0].attempts[0].lines:
            return runner.containers[0].attempts[0].mark
    return None


@pytest.mark.parametrize(
    "nodes, asked, told",
    [
        ((Node(),), {"limits": {"nvidia.com/gpu": "1"}}, "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. "),
        ((Node(name="a", gpus=1), Node(name="b", memory="1Gi")), {"requests": {"memory": "900Gi"}}, "2 Insufficient memory"),
    ],
)
def test_what_no_node_has_is_named(nodes: tuple[Node, ...], asked: Object, told: str) -> None:
    with served(Cluster(namespaces=["team"], nodes=nodes)) as cluster:
        cluster.add(kinds.PYTORCHJOB, job("big", shell("true"), resources=asked), namespace="team")

        def condition() -> Object | None:
            found = [one for pod in cluster.store.all(kinds.POD) for one in pod["status"].get("conditions", [])]
            return next((one for one in found if one["type"] == "PodScheduled"), None)

        found = until(condition)
        assert (found["status"], found["reason"]) == ("False", "Unschedulable") and told in found["message"]
