"""The pods and Services of a PyTorchJob, as the training operator makes them."""

import copy
from typing import Any

Object = dict[str, Any]
PREFIX = "training.kubeflow.org/"
PORT = 23456


def pod_of(job: Object, role: str, spec: Object, index: int) -> Object:
    """The pod of a replica with all that the operator puts into it."""
    name = _name(job, role, index)
    template = copy.deepcopy(spec["template"])
    meta, pod = template.get("metadata") or {}, template["spec"]
    pod["restartPolicy"] = "Never" if spec.get("restartPolicy") == "ExitCode" else spec.get("restartPolicy", "Never")
    for container in pod["containers"]:
        if container["name"] == "pytorch":
            container.setdefault("ports", []).append({"name": "pytorchjob-port", "containerPort": PORT, "protocol": "TCP"})
            container["env"] = [*container.get("env", []), *_environment(job, role, index)]
    if role != "Master" and "Master" in job["spec"]["pytorchReplicaSpecs"]:
        pod["initContainers"] = [*pod.get("initContainers", []), _init(_name(job, "Master", 0))]
    labels = (meta.get("labels") or {}) | labels_of(job["metadata"]["name"], role) | {f"{PREFIX}replica-index": str(index)}
    labels |= {f"{PREFIX}job-role": "master"} if role == "Master" else {}
    own = {"name": name, "labels": labels, "ownerReferences": [owner_of(job)]}
    return {"metadata": own | ({"annotations": meta["annotations"]} if meta.get("annotations") else {}), "spec": pod}


def service_of(job: Object, role: str, index: int) -> Object:
    """The headless Service of a replica."""
    labels = labels_of(job["metadata"]["name"], role) | {f"{PREFIX}replica-index": str(index)}
    port = {"name": "pytorchjob-port", "protocol": "TCP", "port": PORT, "targetPort": PORT}
    meta = {"name": _name(job, role, index), "labels": labels, "ownerReferences": [owner_of(job)]}
    return {"metadata": meta, "spec": {"clusterIP": "None", "ports": [port], "selector": labels}, "status": {}}


def labels_of(name: str, role: str) -> dict[str, str]:
    """The labels of a role, and what its `selector` in the status is made of."""
    return {
        f"{PREFIX}job-name": name,
        f"{PREFIX}operator-name": "pytorchjob-controller",
        f"{PREFIX}replica-type": role.lower(),
    }


def role_of(item: Object) -> str:
    return str((item["metadata"].get("labels") or {}).get(f"{PREFIX}replica-type", ""))


def index_of(item: Object) -> int:
    return int(item["metadata"]["labels"][f"{PREFIX}replica-index"])


def _name(job: Object, role: str, index: int) -> str:
    return f"{job['metadata']['name']}-{role.lower()}-{index}"


def owner_of(job: Object) -> Object:
    """The reference by which what is made of an object goes with it."""
    meta = job["metadata"]
    return {
        "apiVersion": job["apiVersion"], "kind": job["kind"], "name": meta["name"], "uid": meta["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


def _environment(job: Object, role: str, index: int) -> list[dict[str, str]]:
    specs = job["spec"]["pytorchReplicaSpecs"]
    pods = sum(one.get("replicas", 1) for one in specs.values())
    each = str(job["spec"].get("nprocPerNode", "1"))
    rank = index if role == "Master" or "Master" not in specs else index + 1
    values = {"PYTHONUNBUFFERED": "1"}
    if "Master" in specs:
        values |= {"MASTER_PORT": str(PORT), "PET_MASTER_PORT": str(PORT)}
        values |= {"MASTER_ADDR": _name(job, "Master", 0), "PET_MASTER_ADDR": _name(job, "Master", 0)}
    values |= {"WORLD_SIZE": str(pods * (int(each) if each.isdigit() else 1)), "RANK": str(rank), "PET_NODE_RANK": str(rank)}
    values |= {"PET_NPROC_PER_NODE": each, "PET_NNODES": str(pods)}
    return [{"name": name, "value": value} for name, value in values.items()]


def _init(master: str) -> Object:
    return {
        "name": "init-pytorch",
        "image": "alpine:3.10",
        "command": ["timeout", "300", "sh", "-c", f"until getent hosts {master}; do sleep 2; done"],
        "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}, "requests": {"cpu": "10m", "memory": "16Mi"}},
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {
            "capabilities": {"drop": ["ALL"]}, "runAsUser": 1000, "runAsNonRoot": True, "allowPrivilegeEscalation": False,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }  # fmt: skip
