"""What is made of pods that no test can bring about by itself; the objects are cut from recordings of a real cluster."""

from typing import Any

from tritower.cluster import state
from tritower.cluster.config import ClusterConfig
from tritower.cluster.pytorchjob import PyTorchJobs
from tritower.config import from_dict
from tritower.errors import DataError, JobFailed, StepError

KIND = PyTorchJobs()
CONFIG = from_dict(ClusterConfig, {"restarts": 1, "patience_s": 30, "start_timeout_s": 600})


def pod(name: str = "x-master-0", container: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "pytorch", "resources": {"limits": {"memory": "64Mi"}}}]}
    own = {"containerStatuses": [{"name": "pytorch", **container}]} if container else {}
    return {"metadata": {"name": name, "uid": name}, "spec": spec, "status": {"phase": "Pending", **status, **own}}


def troubles(*pods: dict[str, Any]) -> list[state.Trouble]:
    return list(state.troubles(pods, CONFIG, {"nvidia.com/gpu": "the largest, n1, has 2"}))


def test_an_evicted_pod_that_stays_is_given_up_with_the_nodes_words() -> None:
    (one,) = troubles(pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."))
    assert "evicted: The node was low on resource: memory" in str(one.error) and one.limit_s == 30


def test_an_unplaced_pod_names_the_largest_node_without_the_schedulers_tail() -> None:
    message = (
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/1 nodes are"
        " available: 1 Preemption is not helpful for scheduling."
    )
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    (one,) = troubles(pod(conditions=[condition]))
    assert "1 Insufficient nvidia.com/gpu" in one.error.problem and "Preemption" not in one.error.problem
    assert "the largest, n1, has 2" in one.error.remedy and one.limit_s == 600


def test_the_init_container_of_a_worker_counts_too() -> None:
    waiting = {"name": "init-pytorch", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "alpine: not found"}}}
    (one,) = troubles(pod(initContainerStatuses=[waiting], container={"state": {"waiting": {"reason": "PodInitializing"}}}))
    assert "alpine: not found" in one.error.problem


def test_a_refused_pod_counts_and_not_while_old_ones_end() -> None:
    quota = {"reason": "FailedCreatePod", "message": 'Error creating: pods "x-worker-0" is forbidden: exceeded quota: pods'}
    ending = {
        "reason": "FailedCreatePod",
        "message": 'Error creating: object is being deleted: pods "x-master-0" already exists',
    }
    assert not list(state.unmade([ending], KIND.unmade, CONFIG))
    (one,) = state.unmade([ending, quota], KIND.unmade, CONFIG)
    assert one.error.problem.startswith('a pod cannot be made: pods "x-worker-0" is forbidden: exceeded quota')


def test_running_says_nothing_of_workers_and_the_last_condition_is_not_the_state() -> None:
    conditions = [
        {"type": "Created", "status": "True"}, {"type": "Running", "status": "False"}, {"type": "Restarting", "status": "True"},
        {"type": "Succeeded", "status": "True"}, {"type": "Suspended", "status": "False"},
    ]  # fmt: skip
    job = {"metadata": {"name": "x"}, "spec": {"runPolicy": {}}, "status": {"conditions": conditions}}
    assert KIND.ended(job) == "Succeeded" and not KIND.queued(job)
    assert KIND.ended({**job, "status": {"conditions": conditions[:3]}}) == ""
    started = pod(phase="Running", container={"state": {"running": {}}})
    assert not state.running([started, pod("x-worker-0")], 2) and not state.running([started], 2)


def test_the_first_cause_is_told_and_not_what_others_said_for_want_of_it() -> None:
    def ended(name: str, word: str) -> dict[str, Any]:
        terminated = {"exitCode": 1, "reason": "Error", "message": word}
        return pod(name, phase="Failed", container={"state": {"terminated": terminated}})

    word = '{"kind": "%s", "problem": "%s", "where": "", "remedy": "", "foreign": %s, "signal": 0, "time": %d}'
    lost = ended("x-master-0", word % ("StepError", "unexpected RuntimeError: Connection closed by peer", "true", 1))
    cause = ended("x-worker-0", word % ("DataError", "row 7 has no time", "false", 2))
    job = {"metadata": {"name": "x"}, "status": {}}
    error = state.failure(job, [lost, cause])
    assert isinstance(error, DataError) and error.where == "pod x-worker-0"
    assert isinstance(state.failure(job, [lost]), StepError)
    # What is no report of ours is text.
    odd = state.failure(job, [ended("x-worker-0", "[1, 2]")])
    assert isinstance(odd, JobFailed) and "exit code 1, [1, 2]" in str(odd)
