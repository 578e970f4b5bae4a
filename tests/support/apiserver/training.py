"""The training operator's part (1.9): PyTorchJobs become pods and Services, and their states a status."""

import copy
import time
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import admission, answers, conditions, kinds, resources, schema
from tests.support.apiserver.pytorchjob import index_of, labels_of, pod_of, role_of, service_of
from tests.support.apiserver.store import now, record

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]

_SOURCE = "pytorchjob-controller"
_RETRYABLE = 128
"""Exit codes from here on are worth another try with restartPolicy ExitCode."""


class Operator:
    """Reconciles a job when it or one of its pods or Services has changed, or a retry is due. It has no other clock."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster, self._store = cluster, cluster.store
        self._seen: dict[str, Object] = {}
        self._retries: dict[str, tuple[int, float]] = {}
        self._times: dict[tuple[str, str], float] = {}
        """When a time stamp of a job (by uid and field) was written: it has whole seconds only."""

    def step(self) -> None:
        """Look at all jobs once."""
        if self._cluster.down & {"training-operator", "training-controller"}:
            self._seen.clear()
            return
        for job in self._store.all(kinds.PYTORCHJOB):
            uid = job["metadata"]["uid"]
            pods, services = _own(self._store.all(kinds.POD), job), _own(self._store.all(kinds.SERVICE), job)
            state = {one["metadata"]["uid"]: one["metadata"]["resourceVersion"] for one in (job, *pods, *services)}
            tries, due = self._retries.get(uid, (0, 0.0))
            is_due = bool(due) and time.monotonic() >= due
            if (state == self._seen.get(uid) and not is_due) or "deletionTimestamp" in job["metadata"]:
                continue
            self._seen[uid] = state
            try:
                self._reconcile(job, pods, services)
                self._retries.pop(uid, None)
            except answers.Refused:
                self._retries[uid] = (tries + 1, time.monotonic() + min(10.0, 0.05 * 2**tries))

    def _reconcile(self, job: Object, pods: list[Object], services: list[Object]) -> None:
        status = copy.deepcopy(job.get("status") or {})
        name, policy = job["metadata"]["name"], job["spec"].get("runPolicy") or {}
        if not status:
            conditions.put(status, "Created", "PyTorchJobCreated", f"PyTorchJob {name} is created.")
        if conditions.has(status, "Succeeded") or conditions.has(status, "Failed"):
            self._finish(job, status, pods, services)
        elif policy.get("suspend"):
            self._suspend(job, status, pods, services)
        elif why := self._beyond_limit(job, status, pods):
            self._delete(job, pods, services, policy.get("cleanPodPolicy") or "None")
            message = f"Job {name} has failed because {why}"
            record(self._store, job, "PyTorchJobFailed", message, source=_SOURCE)
            status["completionTime"] = now()
            conditions.put(status, "Failed", "PyTorchJobFailed", message)
            self._write(job, status)
        else:
            self._run(job, status, pods, services)

    def _run(self, job: Object, status: Object, pods: list[Object], services: list[Object]) -> None:
        name = job["metadata"]["name"]
        if any(one["type"] == "Suspended" and one["status"] == "True" for one in status.get("conditions", [])):
            message = f"PyTorchJob {name} is resumed."
            conditions.put(status, "Suspended", "PyTorchJobResumed", message, is_true=False)
            record(self._store, job, "PyTorchJobResumed", message, source=_SOURCE)
            status["startTime"] = now()
        for pod in pods:
            self._repeat_troubles(job, pod)
        counts = {}
        roles = list(job["spec"]["pytorchReplicaSpecs"].items())
        if self._retries.get(job["metadata"]["uid"], (0, 0.0))[0] % 2:
            # The operator takes them in any order: one that cannot be made does not keep the other away for ever.
            roles.reverse()
        for role, spec in roles:
            counts[role] = self._replicas(job, status, role, spec, pods, services)
        status.setdefault("startTime", now())
        status["replicaStatuses"] = {
            role: {key: value for key, value in count.items() if value}
            | {"selector": ",".join("=".join(one) for one in labels_of(name, role).items())}
            for role, count in counts.items()
        }
        self._judge(job, status, counts)
        self._write(job, status)

    def _replicas(
        self, job: Object, status: Object, role: str, spec: Object, pods: list[Object], services: list[Object]
    ) -> Object:
        """Make what is missing of a role, and count what is there. Raises: Refused: a pod or a Service cannot be made."""
        wanted, count = spec.get("replicas", 1), {"active": 0, "succeeded": 0, "failed": 0}
        by_index = {index_of(pod): pod for pod in pods if role_of(pod) == role.lower()}
        for index in range(wanted):
            pod = by_index.get(index)
            if pod is None:
                self._create(job, kinds.POD, pod_of(job, role, spec, index))
            else:
                self._count(job, status, role, spec, pod, count)
            if not any(role_of(one) == role.lower() and index_of(one) == index for one in services):
                self._create(job, kinds.SERVICE, service_of(job, role, index))
        for index, pod in by_index.items():
            if index >= wanted:
                self._delete_pod(job, pod)
                self._count(job, status, role, spec, pod | {"metadata": pod["metadata"] | {"deletionTimestamp": now()}}, count)
        return count

    def _count(self, job: Object, status: Object, role: str, spec: Object, pod: Object, count: Object) -> None:
        name, meta, phase = job["metadata"]["name"], pod["metadata"], pod["status"].get("phase")
        code = _exit_code(pod)
        if code is not None:
            message = f"Pod: {meta['namespace']}.{meta['name']} exited with code {code}"
            record(self._store, job, "ExitedWithCode", message, source=_SOURCE)
        policy = spec.get("restartPolicy", "Never")
        if phase == "Failed" and (policy in ("OnFailure", "Always") or (policy == "ExitCode" and (code or 0) >= _RETRYABLE)):
            self._delete_pod(job, pod)
            self._warn(job, "PyTorchJobRestarting", f"job {name} is restarting because {role} replica(s) failed.")
        elif phase == "Failed" and policy == "ExitCode":
            message = f'job "{name}" is failing because "{role}" replica(s) failed.'
            conditions.put(status, "Failed", "PyTorchJobFailed", message)
            self._warn(job, "PyTorchJobFailed", message)
            status["completionTime"] = now()
        if phase == "Succeeded":
            count["succeeded"] += 1
        elif phase == "Failed" or (phase == "Running" and "deletionTimestamp" in meta):
            count["failed"] += 1
        elif phase == "Running":
            count["active"] += 1

    def _judge(self, job: Object, status: Object, counts: dict[str, Object]) -> None:
        """The job's conditions from its replicas: the Master's success is the job's, anybody's failure is its failure."""
        name, specs = job["metadata"]["name"], job["spec"]["pytorchReplicaSpecs"]
        leader = "Master" if "Master" in specs else "Worker"
        for role, count in counts.items():
            wanted = specs[role].get("replicas", 1)
            if role == leader and count["active"]:
                conditions.put(status, "Running", "PyTorchJobRunning", f"PyTorchJob {name} is running.")
            if role == leader and count["succeeded"] == wanted:
                message = f"PyTorchJob {name} is successfully completed."
                record(self._store, job, "PyTorchJobSucceeded", message, source=_SOURCE)
                status.setdefault("completionTime", now())
                conditions.put(status, "Succeeded", "PyTorchJobSucceeded", message)
            if not count["failed"] or wanted <= count["succeeded"] + count["active"]:
                continue
            if specs[role].get("restartPolicy", "Never") != "Never":
                message = f"PyTorchJob {name} is restarting because {count['failed']} {role} replica(s) failed."
                record(self._store, job, "PyTorchJobRestarting", message, type_="Warning", source=_SOURCE)
                conditions.put(status, "Restarting", "PyTorchJobRestarting", message)
            else:
                message = f"PyTorchJob {name} is failed because {count['failed']} {role} replica(s) failed."
                record(self._store, job, "PyTorchJobFailed", message, source=_SOURCE)
                status.setdefault("completionTime", now())
                conditions.put(status, "Failed", "PyTorchJobFailed", message)

    def _beyond_limit(self, job: Object, status: Object, pods: list[Object]) -> str:
        """Restarts of containers over all pods, and the deadline: looked at when something else has changed."""
        policy, specs = job["spec"].get("runPolicy") or {}, job["spec"]["pytorchReplicaSpecs"]
        restarts = sum(
            one["restartCount"]
            for pod in pods
            if pod["status"].get("phase") == "Running"
            and specs.get(role_of(pod).capitalize(), {}).get("restartPolicy") in ("OnFailure", "Always")
            for one in pod["status"].get("containerStatuses", []) + pod["status"].get("initContainerStatuses", [])
        )
        limit = policy.get("backoffLimit")
        if limit is not None and restarts and restarts >= limit:
            return "it has reached the specified backoff limit"
        deadline_s = policy.get("activeDeadlineSeconds")
        if (
            deadline_s is not None
            and "startTime" in status
            and self._age_s(job, status, "startTime") >= deadline_s / self._cluster.speed
        ):
            return "it was active longer than specified deadline"
        return ""

    def _suspend(self, job: Object, status: Object, pods: list[Object], services: list[Object]) -> None:
        message = f"PyTorchJob {job['metadata']['name']} is suspended."
        for pod in pods:
            self._delete_pod(job, pod)
        for service in services:
            self._store.remove(kinds.SERVICE, service)
        status["replicaStatuses"] = {role: {} for role in status.get("replicaStatuses", {})}
        if not status["replicaStatuses"]:
            del status["replicaStatuses"]
        if conditions.has(status, "Running"):
            conditions.put(status, "Running", "PyTorchJobSuspended", message, is_true=False)
        conditions.put(status, "Suspended", "PyTorchJobSuspended", message)
        record(self._store, job, "PyTorchJobSuspended", message, source=_SOURCE)
        self._write(job, status)

    def _finish(self, job: Object, status: Object, pods: list[Object], services: list[Object]) -> None:
        policy = job["spec"].get("runPolicy") or {}
        self._delete(job, pods, services, policy.get("cleanPodPolicy") or "None")
        if conditions.has(status, "Succeeded"):
            for count in status.get("replicaStatuses", {}).values():
                if active := count.pop("active", 0):
                    count["succeeded"] = count.get("succeeded", 0) + active
        self._write(job, status)
        ttl_s = policy.get("ttlSecondsAfterFinished")
        if ttl_s is None:
            return
        uid, left_s = job["metadata"]["uid"], ttl_s / self._cluster.speed - self._age_s(job, status, "completionTime")
        if left_s <= 0:
            name = job["metadata"]["name"]
            record(self._store, job, "SuccessfulDeletePod", f"Deleted job: {name}", source=_SOURCE)
            self._warn(job, "FailedDeletePod", f'Error deleting: pytorchjobs.kubeflow.org "{name}" not found')
            resources.delete(self._cluster, kinds.PYTORCHJOB, job["metadata"]["namespace"], job["metadata"]["name"], {})
        else:
            self._retries[uid] = (0, time.monotonic() + left_s)
            raise answers.Refused(0, "", "later")

    def _delete(self, job: Object, pods: list[Object], services: list[Object], which: str) -> None:
        """By cleanPodPolicy. A pod between two attempts counts as Running."""
        for pod in pods:
            if which == "All" or (which == "Running" and pod["status"].get("phase") in ("Running", "Pending")):
                self._delete_pod(job, pod)
                for service in services:
                    if service["metadata"]["name"] == pod["metadata"]["name"]:
                        self._store.remove(kinds.SERVICE, service)

    def _delete_pod(self, job: Object, pod: Object) -> None:
        meta = pod["metadata"]
        if "deletionTimestamp" not in meta:
            resources.delete(self._cluster, kinds.POD, meta["namespace"], meta["name"], {})
            record(self._store, job, "SuccessfulDeletePod", f"Deleted pod: {meta['name']}", source=_SOURCE)

    def _create(self, job: Object, kind: kinds.Kind, item: Object) -> None:
        word, home = kind.kind, job["metadata"]["namespace"]
        try:
            schema.check(kind, item)
            admission.check(self._cluster, kind, home, item)
            self._store.create(kind, home, admission.with_defaults(self._cluster, kind, home, item))
        except answers.Refused as refused:
            record(self._store, job, f"FailedCreate{word}", f"Error creating: {refused}", type_="Warning", source=_SOURCE)
            raise
        message = f"Created {word.lower()}: {item['metadata']['name']}"
        record(self._store, job, f"SuccessfulCreate{word}", message, source=_SOURCE)

    def _repeat_troubles(self, job: Object, pod: Object) -> None:
        """A pod's troubles as events of its job."""
        name = pod["metadata"]["name"]
        for one in pod["status"].get("containerStatuses", []):
            state, what = one["state"], f"Error pod {name} container {one['name']}"
            if "message" in state.get("waiting", {}):
                self._warn(job, state["waiting"]["reason"], f"{what} waiting message: {state['waiting']['message']}")
            if state.get("terminated", {}).get("exitCode"):
                ended = state["terminated"]
                self._warn(
                    job, ended["reason"], f"{what} exitCode: {ended['exitCode']} terminated message: {ended.get('message', '')}"
                )
        for one in pod["status"].get("conditions", []):
            if one["type"] == "PodScheduled" and one["status"] == "False":
                self._warn(job, one["reason"], f"Error pod {name} condition message: {one['message']}")

    def _age_s(self, job: Object, status: Object, field: str) -> float:
        """Seconds since this operator first saw the time stamp."""
        return time.monotonic() - self._times.setdefault((job["metadata"]["uid"], status[field]), time.monotonic())

    def _warn(self, job: Object, reason: str, message: str) -> None:
        record(self._store, job, reason, message, type_="Warning", source=_SOURCE)

    def _write(self, job: Object, status: Object) -> None:
        self._store.edit(kinds.PYTORCHJOB, job, lambda one: one.update(status=status))


def _own(items: list[Object], job: Object) -> list[Object]:
    uid = job["metadata"]["uid"]
    return [one for one in items if any(ref["uid"] == uid for ref in one["metadata"].get("ownerReferences") or [])]


def _exit_code(pod: Object) -> int | None:
    for one in pod["status"].get("containerStatuses", []):
        if one["name"] == "pytorch" and "terminated" in one["state"]:
            return int(one["state"]["terminated"]["exitCode"])
    return None
