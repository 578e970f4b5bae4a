"""The controllers of Deployments, ReplicaSets and HorizontalPodAutoscalers, as far as a rolling update shows them.

An autoscaler sees no load: it holds the number of pods between its bounds. Not played: roll-backs by revision, pausing,
Recreate.
"""

import copy
import hashlib
import json
import math
import time
import uuid
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import admission, answers, kinds, resources
from tests.support.apiserver.pytorchjob import owner_of
from tests.support.apiserver.store import now, record

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]
_HASH = "pod-template-hash"
_RETRY_S = 2.0


def is_ready(pod: Object) -> bool:
    """Whether a Service sends it anything."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


class Operator:
    """Looks at all of them in turn."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster, self._store = cluster, cluster.store
        self._progress: dict[str, tuple[Any, float]] = {}
        """Deployment's uid -> what stood at its last progress, and when that was."""
        self._refused: dict[str, float] = {}
        """ReplicaSet's uid -> when it may make pods again."""

    def step(self) -> None:
        """Once through everything."""
        for one in self._store.all(kinds.SCALER):
            self._scale(one)
        for one in self._store.all(kinds.DEPLOYMENT):
            if "deletionTimestamp" not in one["metadata"]:
                self._roll(one)
        for one in self._store.all(kinds.REPLICA_SET):
            if "deletionTimestamp" not in one["metadata"]:
                self._fill(one)

    def _scale(self, scaler: Object) -> None:
        spec, home = scaler["spec"], scaler["metadata"]["namespace"]
        found = self._store.get(kinds.DEPLOYMENT, home, spec["scaleTargetRef"]["name"])
        if found:
            wanted = min(max(found["spec"].get("replicas", 1), spec.get("minReplicas", 1)), spec["maxReplicas"])
            self._set(kinds.DEPLOYMENT, found, wanted)

    def _roll(self, deployment: Object) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        own = [one for one in self._store.all(kinds.REPLICA_SET, meta["namespace"]) if _owned(one, deployment)]
        new = next((one for one in own if _template(one) == spec["template"]), None) or self._made(deployment)
        old = [one for one in own if one["metadata"]["uid"] != new["metadata"]["uid"]]
        wanted, pods = spec.get("replicas", 1), {one["metadata"]["uid"]: self._pods(one) for one in [*old, new]}
        rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
        surge = _share(rolling.get("maxSurge", "25%"), wanted, math.ceil)
        missing = _share(rolling.get("maxUnavailable", "25%"), wanted, math.floor)
        room = wanted + surge - sum(one["spec"]["replicas"] for one in old)
        self._set(kinds.REPLICA_SET, new, wanted if not old else max(0, min(wanted, max(room, new["spec"]["replicas"]))))
        ready = sum(is_ready(pod) for found in pods.values() for pod in found)
        spare = max(0, ready - (wanted - missing))
        for one in old:
            unready = sum(not is_ready(pod) for pod in pods[one["metadata"]["uid"]])
            cut = min(one["spec"]["replicas"], unready + spare)
            spare -= max(0, cut - unready)
            self._set(kinds.REPLICA_SET, one, one["spec"]["replicas"] - cut)
        self._tell(deployment, new, pods, wanted, missing)

    def _tell(self, deployment: Object, new: Object, pods: dict[str, list[Object]], wanted: int, missing: int) -> None:
        everything, own = [pod for found in pods.values() for pod in found], pods[new["metadata"]["uid"]]
        counts = {
            "replicas": len(everything), "updatedReplicas": len(own),
            "readyReplicas": sum(map(is_ready, everything)), "availableReplicas": sum(map(is_ready, everything)),
        }  # fmt: skip
        is_done = counts["updatedReplicas"] == counts["replicas"] == counts["availableReplicas"] == wanted
        generation = deployment["metadata"]["generation"]
        state = (new["metadata"]["uid"], generation, sum(map(is_ready, own)), len(everything))
        uid = deployment["metadata"]["uid"]
        if self._progress.get(uid, (None, 0.0))[0] != state:
            self._progress[uid] = (state, time.monotonic())
        limit_s = deployment["spec"].get("progressDeadlineSeconds", 600) / self._cluster.speed
        is_late = not is_done and time.monotonic() - self._progress[uid][1] > limit_s
        is_there = counts["availableReplicas"] >= wanted - missing and (counts["availableReplicas"] > 0 or not wanted)
        reason = "NewReplicaSetAvailable" if is_done else "ProgressDeadlineExceeded" if is_late else "ReplicaSetUpdated"
        word = "successfully progressed" if is_done else "timed out progressing" if is_late else "is progressing"
        conditions = [
            _condition("Available", is_there, f"MinimumReplicas{'Available' if is_there else 'Unavailable'}", ""),
            _condition("Progressing", not is_late, reason, f'ReplicaSet "{new["metadata"]["name"]}" {word}.'),
        ]
        old = {one["type"]: one for one in deployment.get("status", {}).get("conditions", [])}
        conditions = [
            one | {"lastTransitionTime": old[one["type"]]["lastTransitionTime"]}
            if old.get(one["type"], {}).get("status") == one["status"]
            else one
            for one in conditions
        ]
        status = {key: value for key, value in counts.items() if value} | {"observedGeneration": generation}
        unavailable = max(0, max(wanted, counts["replicas"]) - counts["availableReplicas"])
        status |= ({"unavailableReplicas": unavailable} if unavailable else {}) | {"conditions": conditions}
        self._store.edit(kinds.DEPLOYMENT, deployment, lambda one: one.update(status=status))

    def _made(self, deployment: Object) -> Object:
        meta, template = deployment["metadata"], copy.deepcopy(deployment["spec"]["template"])
        digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
        template["metadata"] = (template.get("metadata") or {}) | {"labels": template["metadata"]["labels"] | {_HASH: digest}}
        labels = template["metadata"]["labels"]
        item = {"metadata": {"name": f"{meta['name']}-{digest}", "labels": labels, "ownerReferences": [owner_of(deployment)]}}
        selector = {"matchLabels": deployment["spec"]["selector"]["matchLabels"] | {_HASH: digest}}
        item["spec"] = {"replicas": 0, "selector": selector, "template": template}
        return self._store.create(kinds.REPLICA_SET, meta["namespace"], item)

    def _fill(self, group: Object) -> None:
        meta, wanted = group["metadata"], group["spec"]["replicas"]
        own = [pod for pod in self._pods(group) if "deletionTimestamp" not in pod["metadata"]]
        gone = [pod for pod in own if pod["status"].get("phase") in ("Failed", "Succeeded")]
        alive = [pod for pod in own if pod not in gone]
        surplus = sorted(alive, key=is_ready)[: max(0, len(alive) - wanted)]
        for pod in (*gone, *surplus):
            resources.delete(self._cluster, kinds.POD, meta["namespace"], pod["metadata"]["name"], {})
        if len(alive) < wanted and time.monotonic() >= self._refused.get(meta["uid"], 0.0):
            for _ in range(wanted - len(alive)):
                self._create(group)
        self._store.edit(kinds.REPLICA_SET, group, lambda one: one.update(status={"replicas": len(alive)}))

    def _create(self, group: Object) -> None:
        meta, template = group["metadata"], copy.deepcopy(group["spec"]["template"])
        named = {"name": f"{meta['name']}-{uuid.uuid4().hex[:5]}", "ownerReferences": [owner_of(group)]}
        pod = {"metadata": template["metadata"] | named, "spec": template["spec"]}
        try:
            admission.check(self._cluster, kinds.POD, meta["namespace"], pod)
            whole = admission.with_defaults(self._cluster, kinds.POD, meta["namespace"], pod)
            self._store.create(kinds.POD, meta["namespace"], whole)
        except answers.Refused as refused:
            self._refused[meta["uid"]] = time.monotonic() + _RETRY_S / self._cluster.speed
            source = "replicaset-controller"
            record(self._store, group, "FailedCreate", f"Error creating: {refused}", type_="Warning", source=source)

    def _pods(self, group: Object) -> list[Object]:
        return [
            pod for pod in self._store.all(kinds.POD, group["metadata"]["namespace"])
            if _owned(pod, group) and "deletionTimestamp" not in pod["metadata"]
        ]  # fmt: skip

    def _set(self, kind: kinds.Kind, item: Object, replicas: int) -> None:
        if item["spec"].get("replicas", 1) != replicas:
            self._store.edit(kind, item, lambda one: one["spec"].update(replicas=replicas))


def _owned(item: Object, owner: Object) -> bool:
    references = item["metadata"].get("ownerReferences") or []
    return any(one["uid"] == owner["metadata"]["uid"] for one in references)


def _template(group: Object) -> Object:
    template = copy.deepcopy(group["spec"]["template"])
    template["metadata"]["labels"].pop(_HASH, None)
    return dict(template)


def _share(value: Any, whole: int, rounded: Any) -> int:
    return int(rounded(whole * int(value[:-1]) / 100)) if isinstance(value, str) else int(value)


def _condition(type_: str, is_true: bool, reason: str, message: str) -> Object:
    found = {"type": type_, "status": "True" if is_true else "False", "reason": reason, "message": message}
    return found | {"lastTransitionTime": now()}
