"""Kubeflow Trainer's part (2.3, with JobSet): TrainJobs with a TrainingRuntime become a JobSet, a Service and pods of one set.

Not played: runtimePatches, ClusterTrainingRuntimes, initializers.
"""

import copy
import time
import uuid
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import admission, answers, conditions, kinds, resources
from tests.support.apiserver.pytorchjob import owner_of
from tests.support.apiserver.store import now, record

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]

_PREFIX, _INDEX = "jobset.sigs.k8s.io/", "batch.kubernetes.io/job-completion-index"
_LONGEST_NAME = 48
_SOURCE = "trainjob-controller"


class Operator:
    """Looks at all TrainJobs in turn."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster, self._store = cluster, cluster.store
        self._seen = 0
        self._pods: dict[str, Object] = {}
        """The last state of every pod of a JobSet by its uid: one that is gone may have ended well before."""
        self._suspended: set[str] = set()
        """Pods that a suspension ended: they count for nothing."""
        self._began: dict[str, float] = {}
        self._ended: dict[str, float] = {}

    def step(self) -> None:
        """Once through everything."""
        with self._store.changed:
            changes = self._store.since(kinds.POD, max(self._seen, self._store.compacted))
            self._seen = self._store.version
        for change in changes:
            if f"{_PREFIX}jobset-name" in (change.item["metadata"].get("labels") or {}):
                self._pods[change.item["metadata"]["uid"]] = change.item | {"gone": change.verb == "DELETED"}
        if "trainer" in self._cluster.down:
            return
        for job in self._store.all(kinds.TRAINJOB):
            if "deletionTimestamp" not in job["metadata"]:
                self._reconcile(job)

    def _reconcile(self, job: Object) -> None:
        meta, status = job["metadata"], copy.deepcopy(job.get("status") or {})
        name, home = meta["name"], meta["namespace"]
        if len(name) > _LONGEST_NAME:
            message = f'failed to create resources: JobSet "{name}" is invalid: pod names would be too long'
            record(self._store, job, "TrainJobResourcesCreationFailed", message, type_="Warning", source=_SOURCE)
            return
        runtime = self._store.get(kinds.RUNTIME, home, job["spec"]["runtimeRef"]["name"])
        jobset = self._store.get(kinds.JOBSET, home, name)
        if conditions.has(status, "Complete") or conditions.has(status, "Failed"):
            ttl_s = ((jobset or {}).get("spec") or {}).get("ttlSecondsAfterFinished")
            since = self._ended.setdefault(meta["uid"], time.monotonic())
            if jobset and ttl_s is not None and time.monotonic() - since >= ttl_s / self._cluster.speed:
                resources.delete(self._cluster, kinds.JOBSET, home, name, {})
            return
        if jobset is None:
            if runtime is None:
                return
            jobset = self._make(job, runtime)
            self._began[meta["uid"]] = time.monotonic()
        own = [pod for uid, pod in self._pods.items() if uid not in self._suspended and _owned(pod, jobset)]
        deadline_s = job["spec"].get("activeDeadlineSeconds")
        if job["spec"].get("suspend"):
            self._delete(own)
            self._suspended |= {pod["metadata"]["uid"] for pod in own}
            self._put(status, "Suspended", "Suspended", "TrainJob is suspended")
        elif deadline_s is not None and time.monotonic() - self._began[meta["uid"]] >= deadline_s / self._cluster.speed:
            self._put(status, "Failed", "DeadlineExceeded", "TrainJob exceeded its active deadline")
            resources.delete(self._cluster, kinds.JOBSET, home, name, {})
        else:
            if conditions.has(status, "Suspended"):
                self._put(status, "Suspended", "Resumed", "TrainJob is resumed", is_true=False)
            self._run(job, jobset, status, own)
        if status != (job.get("status") or {}):
            self._store.edit(kinds.TRAINJOB, job, lambda one: one.update(status=status))

    def _run(self, job: Object, jobset: Object, status: Object, own: list[Object]) -> None:
        """Make what is missing of an attempt, and judge it."""
        attempt = jobset["status"]["restarts"]
        spec = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
        nodes = _nodes(job, jobset)
        now_own = [pod for pod in own if pod["metadata"]["labels"][f"{_PREFIX}restart-attempt"] == str(attempt)]
        policy, limit = spec["template"]["spec"].get("restartPolicy", "OnFailure"), spec.get("backoffLimit", 6)
        failed = [pod for pod in now_own if pod["status"]["phase"] == "Failed" or (pod["gone"] and _phase(pod) != "Succeeded")]
        restarts = sum(one["restartCount"] for pod in now_own for one in pod["status"].get("containerStatuses", []))
        lost = len(failed) if policy == "Never" else restarts
        done = {_rank(pod) for pod in now_own if _phase(pod) == "Succeeded"}
        if lost and lost >= max(limit, 1):
            self._fail(job, jobset, status, own, keeps_failed=policy == "Never")
        elif len(done) == nodes:
            self._put(status, "Complete", "AllJobsCompleted", "jobset completed successfully")
        elif not [pod for pod in own if pod not in now_own and not pod["gone"]]:
            alive = {_rank(pod) for pod in now_own if not pod["gone"] and pod["status"]["phase"] != "Failed"}
            for rank in sorted(set(range(nodes)) - alive - done):
                self._create(job, jobset, rank)
        ready = sum(1 for pod in now_own if pod["status"]["phase"] in ("Running", "Succeeded") and not pod["gone"])
        over, bad = conditions.has(status, "Complete"), conditions.has(status, "Failed")
        counts = {"active": int(not over and not bad), "ready": int(ready == nodes and not over), "succeeded": int(over)}
        status["jobsStatus"] = [{"name": "node", **counts, "failed": int(bad), "suspended": 0}]

    def _fail(self, job: Object, jobset: Object, status: Object, own: list[Object], *, keeps_failed: bool) -> None:
        """The Job has failed: all of it once more, or the end."""
        name, restarts = job["metadata"]["name"], jobset["status"]["restarts"]
        most = (jobset["spec"].get("failurePolicy") or {}).get("maxRestarts", 0)
        if restarts < most:
            self._delete(own)
            self._store.edit(kinds.JOBSET, jobset, lambda one: one["status"].update(restarts=restarts + 1))
            return
        self._delete([pod for pod in own if not (keeps_failed and pod["status"]["phase"] == "Failed")])
        reason, why = (
            ("ReachedMaxRestarts", "jobset failed due to reaching max number of restarts") if most else ("FailedJobs", "")
        )
        why = why or f"jobset failed due to one or more job failures (first failed job: {name}-node-0)"
        self._put(status, "Failed", reason, why)

    def _make(self, job: Object, runtime: Object) -> Object:
        """The JobSet and its Service."""
        name, home = job["metadata"]["name"], job["metadata"]["namespace"]
        meta = {"name": name, "ownerReferences": [owner_of(job)]}
        spec = runtime["spec"]["template"]["spec"] | {"mlPolicy": runtime["spec"].get("mlPolicy") or {}}
        jobset = self._store.create(kinds.JOBSET, home, {"metadata": meta, "spec": spec, "status": {"restarts": 0}})
        service = {"metadata": meta | {"ownerReferences": [owner_of(jobset)]}, "spec": {"clusterIP": "None"}}
        if self._store.get(kinds.SERVICE, home, name) is None:
            self._store.create(kinds.SERVICE, home, service)
        return jobset

    def _create(self, job: Object, jobset: Object, rank: int) -> None:
        name, home, trainer = job["metadata"]["name"], job["metadata"]["namespace"], job["spec"].get("trainer") or {}
        template = copy.deepcopy(jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"])
        spec, meta = template["spec"], template.get("metadata") or {}
        spec.setdefault("restartPolicy", "OnFailure")
        (container,) = (one for one in spec["containers"] if one["name"] == "node")
        container |= {key: trainer[key] for key in ("image", "command", "args") if key in trainer}
        container |= {"resources": trainer["resourcesPerNode"]} if "resourcesPerNode" in trainer else {}
        container["env"] = [*container.get("env", []), *trainer.get("env", []), *_environment(job, jobset)]
        attempt = str(jobset["status"]["restarts"])
        labels = {f"{_PREFIX}jobset-name": name, f"{_PREFIX}replicatedjob-name": "node", f"{_PREFIX}restart-attempt": attempt}
        pod_meta = {
            "name": f"{name}-node-0-{rank}-{uuid.uuid4().hex[:5]}",
            "labels": (meta.get("labels") or {}) | labels | {_INDEX: str(rank)},
            "annotations": (meta.get("annotations") or {}) | {_INDEX: str(rank)},
            "ownerReferences": [owner_of(jobset)],
        }
        pod = {"metadata": pod_meta, "spec": spec | {"hostname": f"{name}-node-0-{rank}", "subdomain": name}}
        try:
            admission.check(self._cluster, kinds.POD, home, pod)
            made = self._store.create(kinds.POD, home, admission.with_defaults(self._cluster, kinds.POD, home, pod))
        except answers.Refused as refused:
            own = {"name": f"{name}-node-0", "namespace": home, "uid": jobset["metadata"]["uid"]}  # the Job itself is not kept
            batch = {"apiVersion": "batch/v1", "kind": "Job", "metadata": own}
            record(self._store, batch, "FailedCreate", f"Error creating: {refused}", type_="Warning", source="job-controller")
        else:
            self._pods[made["metadata"]["uid"]] = made | {"gone": False}

    def _delete(self, pods: list[Object]) -> None:
        for pod in pods:
            meta = pod["metadata"]
            if (
                not pod["gone"]
                and "deletionTimestamp" not in meta
                and self._store.get(kinds.POD, meta["namespace"], meta["name"])
            ):
                resources.delete(self._cluster, kinds.POD, meta["namespace"], meta["name"], {})

    @staticmethod
    def _put(status: Object, type_: str, reason: str, message: str, *, is_true: bool = True) -> None:
        """Set a condition; a TrainJob has no condition while it just runs."""
        new = {"type": type_, "status": "True" if is_true else "False", "reason": reason, "message": message}
        old = [one for one in status.get("conditions", []) if one["type"] == type_]
        if not old or (old[0]["status"], old[0]["reason"]) != (new["status"], reason):
            kept = [one for one in status.get("conditions", []) if one["type"] != type_]
            status["conditions"] = [*kept, new | {"lastTransitionTime": now()}]


def _environment(job: Object, jobset: Object) -> list[Object]:
    """Without a `trainer` in the TrainJob there is nothing of torchrun's."""
    name, trainer = job["metadata"]["name"], job["spec"].get("trainer")
    path = {"fieldRef": {"fieldPath": f"metadata.annotations['{_INDEX}']"}}
    own = [{"name": "JOB_COMPLETION_INDEX", "valueFrom": path}]
    if not trainer:
        return own
    values = {"PET_NNODES": str(_nodes(job, jobset)), "PET_NPROC_PER_NODE": str(trainer.get("numProcPerNode", 1))}
    values |= {"PET_MASTER_ADDR": f"{name}-node-0-0.{name}", "PET_MASTER_PORT": "29500"}
    shown = [{"name": key, "value": value} for key, value in values.items()]
    return [*shown, {"name": "PET_NODE_RANK", "valueFrom": path}, *own]


def _nodes(job: Object, jobset: Object) -> int:
    return int((job["spec"].get("trainer") or {}).get("numNodes") or jobset["spec"]["mlPolicy"].get("numNodes", 1))


def _owned(pod: Object, jobset: Object) -> bool:
    return any(one["uid"] == jobset["metadata"]["uid"] for one in pod["metadata"]["ownerReferences"])


def _rank(pod: Object) -> int:
    return int(pod["metadata"]["labels"][_INDEX])


def _phase(pod: Object) -> str:
    return str(pod["status"]["phase"])
