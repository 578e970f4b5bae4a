"""Which node a pod goes to, and in which words the scheduler says that there is none."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import kinds, quantities

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]
_TAIL = "no new claims to deallocate, preemption: 0/{0} nodes are available: {0} Preemption is not helpful for scheduling."


@dataclass(kw_only=True)
class Node:
    """A node and what it has to give."""

    name: str = "node1"
    cpu: str = "8"
    memory: str = "32Gi"
    gpus: int = 0
    """Of `gpu_resource`."""
    gpu_resource: str = "nvidia.com/gpu"
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[dict[str, str]] = field(default_factory=list)

    def item(self) -> Object:
        """The Node object."""
        size = {"cpu": self.cpu, "memory": self.memory, "pods": "110"} | (
            {self.gpu_resource: str(self.gpus)} if self.gpus else {}
        )
        labels = {"kubernetes.io/hostname": self.name} | self.labels
        status = {"capacity": size, "allocatable": size, "conditions": [{"type": "Ready", "status": "True"}]}
        spec = {"taints": self.taints} if self.taints else {}
        return {"metadata": {"name": self.name, "labels": labels}, "spec": spec, "status": status}


def place(cluster: "Cluster", pod: Object) -> tuple[str, str]:
    """A node's name and nothing, or nothing and why."""
    nodes = cluster.store.all(kinds.NODE)
    home = pod["metadata"]["namespace"]
    for volume in pod["spec"].get("volumes", []):
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim and cluster.store.get(kinds.CLAIM, home, claim) is None:
            return "", f'0/{len(nodes)} nodes are available: persistentvolumeclaim "{claim}" not found. not found'
    reasons: dict[str, int] = {}
    for node in nodes:
        why = _against(cluster, node, pod)
        if not why:
            return node["metadata"]["name"], ""
        for one in why:
            reasons[one] = reasons.get(one, 0) + 1
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return "", f"0/{len(nodes)} nodes are available: {told}. {_TAIL.format(len(nodes))}"


def _against(cluster: "Cluster", node: Object, pod: Object) -> list[str]:
    spec, labels = pod["spec"], node["metadata"]["labels"]
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return ["node(s) didn't match Pod's node affinity/selector"]
    for taint in node.get("spec", {}).get("taints", []):
        if taint["effect"] != "PreferNoSchedule" and not any(_tolerates(one, taint) for one in spec.get("tolerations", [])):
            return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
    name = node["metadata"]["name"]
    others = [
        one["spec"]
        for one in cluster.store.all(kinds.POD)
        if one["spec"].get("nodeName") == name and one["status"].get("phase") not in ("Succeeded", "Failed")
    ]
    asked = {
        what
        for container in spec["containers"]
        for part in ("requests", "limits")
        for what in ((container.get("resources") or {}).get(part) or {})
        if not what.startswith("ephemeral")
    }
    lacking = []
    for what in sorted(asked):
        free = quantities.number(node["status"]["allocatable"].get(what, 0))
        free -= sum(quantities.of_pod(one, what) for one in others)
        if quantities.of_pod(spec, what) > free:
            lacking.append(f"Insufficient {what}")
    return lacking


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]) or toleration.get("key") not in (None, "", taint["key"]):
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")
