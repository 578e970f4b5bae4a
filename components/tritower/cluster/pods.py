"""The pods of a job, whoever makes them: a pure function from the job and the config to a pod template."""

from collections.abc import Mapping
from typing import Any

from tritower.cluster import given, names, quantities
from tritower.cluster.config import SHARED_MEMORY, ClusterConfig
from tritower.jobs import Job

STORE_KEYS = {
    "endpoint": "TRITOWER_S3_ENDPOINT",
    "region": "AWS_REGION",
    "accesskey": "AWS_ACCESS_KEY_ID",
    "secretkey": "AWS_SECRET_ACCESS_KEY",
}
"""Key of the store's Secret -> variable; the same as a step's pod gets."""
_SIDECAR = "sidecar.istio.io/inject"
_NO_MESH = {_SIDECAR: "false", "istio.io/dataplane-mode": "none"}
"""Istio from 1.10 reads the label, older ones the annotation; ambient mode has a label of its own."""
TERMINATION_LOG = "/dev/termination-log"


def template(job: Job, config: ClusterConfig, *, name: str, container: str, command: list[str]) -> dict[str, Any]:
    """A pod template.

    Args:
        job: what runs in it.
        config: what it is given.
        name: the job's name on the cluster.
        container: the name that the operator looks for.
        command: what the container runs.
    """
    spec: dict[str, Any] = {
        "serviceAccountName": config.service_account,
        "terminationGracePeriodSeconds": config.grace_s,
        "securityContext": _pod_security(config),
        "containers": [main(job, config, name=name, container=container, command=command)],
    }
    optional = {
        "nodeSelector": given.selector(config),
        "affinity": given.whole(config.pod.get("affinity", {})),
        "tolerations": given.tolerations(config),
        "priorityClassName": config.priority_class,
        "imagePullSecrets": [{"name": secret} for secret in config.image_pull_secrets],
        "volumes": volumes(config),
        "hostNetwork": config.host_network,
        "dnsPolicy": "ClusterFirstWithHostNet" if config.host_network else "",
    }
    annotations = {_SIDECAR: "false", **config.annotations}
    return {
        "metadata": {"labels": {**_NO_MESH, **labels(job, config)}, "annotations": annotations},
        "spec": spec | {key: value for key, value in optional.items() if value},
    }


def main(job: Job, config: ClusterConfig, *, name: str, container: str, command: list[str]) -> dict[str, Any]:
    """The container of a pod."""
    capabilities: dict[str, Any] = {"drop": ["ALL"]} | ({"add": list(config.capabilities)} if config.capabilities else {})
    # Temporary files lie in the container's own layer, which is fresh at every start: those of a killed attempt go with it.
    made: dict[str, Any] = {
        "name": container,
        "image": config.image,
        "imagePullPolicy": config.image_pull_policy,
        "command": command,
        "env": environment(job, config, name),
        "resources": resources(job, config),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": capabilities},
        "terminationMessagePath": TERMINATION_LOG,
    }
    own = [{"name": SHARED_MEMORY, "mountPath": "/dev/shm"}] if config.shared_memory else []  # noqa: S108 - a path in the pod
    mounts = [*own, *given.whole(config.pod.get("volumeMounts", []))]
    return made | ({"volumeMounts": mounts} if mounts else {})


def environment(job: Job, config: ClusterConfig, name: str) -> list[dict[str, Any]]:
    """The variables of a pod's container: those of the step over those of the config over those of the pipeline's task.

    The store's keys are of `store_secret` only: a Secret that the step's own pod has does not get past workload identity.
    """
    plain = {
        **_threads(job, config),
        **given.plain(config),
        "PYTHONUNBUFFERED": "1",
        "TRITOWER_JOB": name,
        "TRITOWER_TERMINATION_LOG": TERMINATION_LOG,
        **config.environment,
        **job.environment,
    }
    secret: list[dict[str, Any]] = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": config.store_secret, "key": key, "optional": True}}}
        for key, variable in STORE_KEYS.items()
        if config.store_secret and variable not in plain
    ]
    if secret and not config.store_secret_optional:  # a Secret without an endpoint is one of AWS; one without keys is none
        for one in secret[2:]:
            one["valueFrom"]["secretKeyRef"].pop("optional")
    known = {*plain, *STORE_KEYS.values()}
    more = [one for one in given.referring(config) if one["name"] not in known]
    return [{"name": key, "value": value} for key, value in plain.items()] + secret + more


def _threads(job: Job, config: ClusterConfig) -> dict[str, str]:
    """As many threads as the pod asks for cores, shared by its processes; else libraries count the node's cores."""
    cores = int(quantities.value(config.cpu)) if config.cpu else 0
    return {"OMP_NUM_THREADS": str(max(1, cores // job.processes))} if cores else {}


def resources(job: Job, config: ClusterConfig) -> dict[str, Any]:
    """Requests and limits of a pod. Cores have no limit: throttled processes wait for each other."""
    cpu = config.cpu or (f"{job.resources.cpus:g}" if job.resources.cpus else given.amount(config, "requests", "cpu"))
    memory = config.memory or (f"{job.resources.memory_mib}Mi" if job.resources.memory_mib else "")
    count = gpus(job, config)
    limits = {
        "memory": memory or given.amount(config, "limits", "memory"),
        config.gpu_resource: str(count) if count else "",
        **given.devices(config),
    }
    requests = {"cpu": cpu, "ephemeral-storage": config.disk, **limits}
    requests["memory"] = memory or given.amount(config, "requests", "memory") or limits["memory"]
    found = {
        "requests": {key: value for key, value in requests.items() if value},
        "limits": {key: value for key, value in limits.items() if value},
    }
    return {key: value for key, value in found.items() if value}


def volumes(config: ClusterConfig) -> list[dict[str, Any]]:
    """The volumes of a pod: shared memory, and those of the pipeline's task."""
    shared = {"name": SHARED_MEMORY, "emptyDir": {"medium": "Memory", "sizeLimit": config.shared_memory}}
    return [*([shared] if config.shared_memory else []), *given.whole(config.pod.get("volumes", []))]


def gpus(job: Job, config: ClusterConfig) -> int:
    """GPUs of each pod."""
    return config.gpus or job.resources.gpus or given.gpus(config)


def labels(job: Job, config: ClusterConfig) -> dict[str, str]:
    """The labels of a job and of its pods."""
    return {"app.kubernetes.io/managed-by": "tritower", names.STEP: names.label(job.name), **config.labels}


def metadata(name: str, spec: Mapping[str, Any], job: Job, config: ClusterConfig, *, run: str = "") -> dict[str, Any]:
    """The metadata of a job: its name, namespace, labels, queue and the digest of its spec."""
    more = ({names.RUN: names.label(run)} if run else {}) | (
        {"kueue.x-k8s.io/queue-name": config.queue} if config.queue else {}
    )
    return {
        "name": name,
        "namespace": config.namespace,
        "labels": labels(job, config) | more,
        "annotations": {names.SPEC_HASH: names.spec_hash(spec)},
    }


def owned(manifest: Mapping[str, Any], owner: Mapping[str, Any] | None) -> dict[str, Any]:
    """The manifest with an owner, which takes it along when it is deleted.

    Args:
        manifest: of any kind, in the owner's namespace.
        owner: apiVersion, kind, name and uid; a wrong uid has the job deleted at once, without a word.
    """
    if not owner:
        return dict(manifest)
    reference = {key: owner[key] for key in ("apiVersion", "kind", "name", "uid")}
    return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [reference]}}


def _pod_security(config: ClusterConfig) -> dict[str, Any]:
    security: dict[str, Any] = {"runAsNonRoot": config.run_as_user != 0, "seccompProfile": {"type": "RuntimeDefault"}}
    # The operator adds an init container whose image runs as root: only a user named here lets it pass runAsNonRoot.
    return security | ({"runAsUser": config.run_as_user, "runAsGroup": 0} if config.run_as_user >= 0 else {})
