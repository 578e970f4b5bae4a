"""What the job's namespace lets its pods be, and what the pipelines' namespace lacks, before a job is made.

The launcher's Role need not allow any of these looks. Where it may not look it says nothing, and what is wrong shows a minute
later in the job's events.
"""

import logging
from typing import Any

from tritower.cluster.api import Api, Refused, core
from tritower.cluster.config import ClusterConfig

logger = logging.getLogger(__name__)
ENFORCED = "pod-security.kubernetes.io/enforce"
"""Label of a namespace: privileged, baseline or restricted (https://kubernetes.io/docs/concepts/security/pod-security-standards)."""
_CAPABILITIES = {
    "restricted": {"NET_BIND_SERVICE"},
    "baseline": {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID",
        "SETPCAP", "SETUID", "SYS_CHROOT",
    },
}  # fmt: skip
"""Those that a pod may add."""
_VOLUMES = {
    "name", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
"""Those that `restricted` knows; `baseline` refuses hostPath only."""
PIPELINES = "kubeflow"
"""Where Kubeflow Pipelines' manifests put it."""
_CONTROLLER = "workflow-controller-configmap"


def missing(server: Api, config: ClusterConfig) -> list[tuple[str, str]]:
    """What would have every pod refused: (what, the line of kubectl)."""
    return [*_account(server, config), *_security(server, config)]


def warn(server: Api, config: ClusterConfig, *, resource: str, pods: int, in_a_pipeline: bool) -> None:
    """Log what may go wrong.

    Args:
        server: the API server.
        config: with its namespace.
        resource: the job's kind, such as PyTorchJob.
        pods: how many it has.
        in_a_pipeline: a step of Kubeflow Pipelines launches it.
    """
    level = _level(server, config.namespace)
    if level == "restricted" and resource in ("PyTorchJob", "Experiment") and pods > 1:
        logger.warning(
            "the namespace %s enforces pod security `restricted`: it refuses workers unless the training operator gives its"
            " init container a security context (manifests/README.md has the lines)", config.namespace,
        )  # fmt: skip
    controller = _seen(server, core(PIPELINES, "configmaps", _CONTROLLER)) if in_a_pipeline else None
    if controller and "143" not in controller.get("data", {}).get("workflowDefaults", ""):
        logger.warning(
            "this step would not run again if its node were drained (manifests/kfp): kubectl -n %s patch configmap %s"
            " --patch-file manifests/kfp/retries/retry-what-was-killed.yaml && kubectl -n %s rollout restart deployment"
            " workflow-controller", PIPELINES, _CONTROLLER, PIPELINES,
        )  # fmt: skip


def _account(server: Api, config: ClusterConfig) -> list[tuple[str, str]]:
    name, space = config.service_account, config.namespace
    if not name or _seen(server, core(space, "serviceaccounts", name)) is not None:
        return []
    shipped = f"kubectl apply -k manifests/base -n {space}"
    line = shipped if name == ClusterConfig().service_account else f"kubectl -n {space} create serviceaccount {name}"
    return [(f"the service account {name} of the pods is not there", line)]


def _security(server: Api, config: ClusterConfig) -> list[tuple[str, str]]:
    level = _level(server, config.namespace)
    if level not in _CAPABILITIES:
        return []
    kinds = {key for volume in config.pod.get("volumes", ()) for key in volume}
    refused = {
        "host_network": config.host_network,
        "capabilities": not set(config.capabilities) <= _CAPABILITIES[level],
        "pod.volumes": bool(kinds - _VOLUMES) if level == "restricted" else "hostPath" in kinds,
        "run_as_user": level == "restricted" and config.run_as_user == 0,
    }
    knobs = [name for name, is_so in refused.items() if is_so]
    if not knobs:
        return []
    line = f"kubectl label --overwrite namespace {config.namespace} {ENFORCED}=privileged, or leave the setting out"
    return [(f"the namespace enforces pod security `{level}`, which refuses {', '.join(knobs)}", line)]


def _level(server: Api, namespace: str) -> str:
    found = _seen(server, f"/api/v1/namespaces/{namespace}") or {}
    return str((found.get("metadata", {}).get("labels") or {}).get(ENFORCED, ""))


def _seen(server: Api, path: str) -> dict[str, Any] | None:
    """The object; an empty one where this process may not look, None where there is none."""
    try:
        return dict(server.get(path))
    except Refused as error:
        if error.status not in (403, 404):
            raise
        return None if error.status == 404 else {}
