"""Where and how a cluster runs jobs: one config for every kind of job."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tritower.config import check

_QUANTITY = re.compile(r"(\d+(\.\d+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
_LABEL = re.compile(r"([A-Za-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
POD = {
    "affinity": dict, "env": list, "nodeSelector": dict, "resources": dict, "tolerations": list, "volumeMounts": list,
    "volumes": list,
}  # fmt: skip
"""The keys of `ClusterConfig.pod`, and what they hold."""
SHARED_MEMORY = "shm"
"""The name of the volume at /dev/shm."""


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Pods, what they are given, and the launcher's patience. An empty text, 0 or an empty table leaves a thing out."""

    namespace: str = ""
    """Namespace of the job; empty = the launcher's own."""

    image: str = ""
    """Image of the pods, with an immutable tag or a digest; empty = the image that the launcher itself runs in."""

    image_pull_policy: str = "IfNotPresent"
    """Always, IfNotPresent or Never."""

    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets with a registry's credentials."""

    nodes: int = 0
    """Pods, at most 100; 0 = as the step says, which is one."""

    cpu: str = ""
    """Requested cores of a pod, such as `4` or `500m`; empty = as the step says."""

    memory: str = ""
    """Memory of a pod, requested and as its limit, such as `16Gi`; empty = as the step says. Shared memory is part of it."""

    disk: str = ""
    """Requested disk for a pod's temporary files, such as `50Gi`; inputs are fetched there."""

    gpus: int = 0
    """GPUs of a pod; 0 = as the step says."""

    gpu_resource: str = "nvidia.com/gpu"
    """The name under which the nodes offer GPUs."""

    gpu_type: str = ""
    """Kind of GPU, as the label `gpu_label` of the nodes names it, such as `NVIDIA-H100-80GB-HBM3`."""

    gpu_label: str = "nvidia.com/gpu.product"
    """The nodes' label that names the kind of GPU (GPU feature discovery's; GKE: `cloud.google.com/gke-accelerator`)."""

    nodes_may_come: bool = False
    """An autoscaler adds nodes with GPUs when a pod asks for one: that no node has enough now is no error."""

    devices: dict[str, str] = field(default_factory=dict)
    """Further resources of a pod, requested and as limit, such as `{"rdma/hca": "1"}`."""

    shared_memory: str = "1Gi"
    """Size of /dev/shm, which torch's processes and NCCL use; the runtime's own 64 MiB are too few."""

    node_selector: dict[str, str] = field(default_factory=dict)
    """Labels that the nodes must have."""

    tolerations: tuple[dict[str, Any], ...] = ()
    """Kubernetes tolerations, such as `{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}`."""

    priority_class: str = ""
    """Name of a PriorityClass."""

    queue: str = ""
    """Kueue's LocalQueue: the job is made suspended and starts when the queue admits it."""

    service_account: str = "tritower-worker"
    """The pods' service account: workload identity for the store, and the right to delete an abandoned job."""

    store_secret: str = "tritower-store"  # noqa: S105 - a Secret's name, not a secret
    """Secret with the store's endpoint, region, accesskey and secretkey; empty = workload identity."""

    store_secret_optional: bool = False
    """Start without the Secret, too."""

    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the pods, such as NCCL's: `{"NCCL_IB_HCA": "mlx5", "NCCL_SOCKET_IFNAME": "eth0"}`. No secrets."""

    pod: dict[str, Any] = field(default_factory=dict)
    """Parts of the pods' specification in Kubernetes' words: affinity, env, nodeSelector, resources, tolerations, volumeMounts,
    volumes. Launched steps fill it with what the pipeline gave their own pod (KFP's TaskConfig). The other knobs win."""

    run_as_user: int = 1000
    """User id of the pods, 0 or more; -1 leaves it to the cluster (OpenShift). The images work with any."""

    capabilities: tuple[str, ...] = ()
    """Capabilities that RDMA needs, such as IPC_LOCK; everything else is dropped."""

    host_network: bool = False
    """Pods share their node's network, as some RDMA set-ups want."""

    labels: dict[str, str] = field(default_factory=dict)
    """Labels of the job and its pods."""

    annotations: dict[str, str] = field(default_factory=dict)
    """Annotations of the pods."""

    grace_s: int = 30
    """Seconds between SIGTERM and SIGKILL of a pod, 1 or more."""

    restarts: int = 3
    """Attempts after the first, 0 or more. A pod that fails makes the others fail and start again as well."""

    start_timeout_s: float = 900.0
    """Seconds until every pod must run, queueing not counted, above 0: image pulls and a node of the autoscaler are within."""

    patience_s: float = 60.0
    """Seconds for which an image, a Secret, a quota may be missing until the job has failed, above 0."""

    deadline_s: float = 86_400.0
    """Seconds until the job must have ended, above 0. The launcher keeps the time: the operator looks when a pod changes."""

    api_patience_s: float = 300.0
    """Seconds for which the API server may be gone, above 0."""

    poll_s: float = 3.0
    """Seconds between two looks at the job, above 0."""

    heartbeat_s: float = 30.0
    """Seconds between two heartbeats of the launcher, above 0."""

    abandoned_after_s: float = 600.0
    """Seconds without a heartbeat, by the clock of the first pod, after which the job ends itself; at least 3 `heartbeat_s`."""

    keep_after_s: int = 86_400
    """Seconds after which the cluster removes a job that has ended and whose launcher is gone, 0 or more."""

    keep_failed: bool = False
    """Leave a failed job and its pods in place, to be looked at. They hold their GPUs."""

    def __post_init__(self) -> None:
        check(self.image_pull_policy in ("Always", "IfNotPresent", "Never"), "image_pull_policy", self.image_pull_policy,
              "that is Always, IfNotPresent or Never")  # fmt: skip
        check(0 <= self.nodes <= 100, "nodes", self.nodes, "between 0 and 100")
        for name in ("cpu", "memory", "disk", "shared_memory"):
            text = getattr(self, name)
            check(not text or bool(_QUANTITY.fullmatch(text)), name, text, "of Kubernetes', such as 500m or 16Gi")
        for name in ("gpus", "restarts", "keep_after_s"):
            check(getattr(self, name) >= 0, name, getattr(self, name), "of at least 0")
        check(self.run_as_user >= -1, "run_as_user", self.run_as_user, "of at least -1")
        check(self.grace_s >= 1, "grace_s", self.grace_s, "of at least 1")
        for name in ("start_timeout_s", "patience_s", "deadline_s", "api_patience_s", "poll_s", "heartbeat_s"):
            check(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        enough = self.abandoned_after_s >= 3 * self.heartbeat_s
        check(enough, "abandoned_after_s", self.abandoned_after_s, "of at least three heartbeats")
        _check_texts("labels", self.labels)
        _check_texts("node_selector", self.node_selector)
        for name in self.environment:
            check(not is_reserved(name), "environment", name, "that neither the operator nor the launcher sets")
        _check_pod(self.pod)


def is_reserved(name: str) -> bool:
    """Whether a variable of a job's pods is the operator's or the launcher's to set."""
    return name.startswith(("PET_", "TRITOWER_JOB")) or name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def _check_pod(pod: Mapping[str, Any]) -> None:
    for key, value in pod.items():
        check(key in POD, "pod", key, f"that is one of {', '.join(POD)}")
        check(isinstance(value, POD[key]), f"pod.{key}", value, f"that is a {'list' if POD[key] is list else 'table'}")
    for key in ("env", "volumes", "volumeMounts"):
        named = all(isinstance(one, dict) and "name" in one for one in pod.get(key, ()))
        check(named, f"pod.{key}", pod.get(key), "with a name in each")
    ours = [one["name"] for one in pod.get("volumes", ()) if one["name"] == SHARED_MEMORY]
    check(not ours, "pod.volumes", ours, f"with other names: {SHARED_MEMORY} is the shared memory's")


def _check_texts(knob: str, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        good = bool(_LABEL.fullmatch(name)) and (not value or bool(_LABEL.fullmatch(value)))
        check(good, knob, f"{name}={value}", "that Kubernetes takes as a label")
