"""What the pipeline gave the step's own pod, in Kubernetes' words, as far as it is for the pods of its job.

It comes from KFP as `dsl.TaskConfig`, and as `ClusterConfig.pod`. The other knobs win, then what the step asks for, then this.
"""

from typing import Any

from tritower.cluster.config import ClusterConfig, is_reserved

_OWN = ("cpu", "memory", "ephemeral-storage")


def whole(value: Any) -> Any:
    """The value with whole numbers as integers: KFP may hand each over as a float, and the API server refuses 60.0 seconds."""
    if isinstance(value, dict):
        return {key: whole(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def selector(config: ClusterConfig) -> dict[str, str]:
    """The labels that a pod's node must have."""
    kind = {config.gpu_label: config.gpu_type} if config.gpu_type else {}
    return {**config.pod.get("nodeSelector", {}), **config.node_selector, **kind}


def tolerations(config: ClusterConfig) -> list[dict[str, Any]]:
    """Those of both, each once."""
    found: list[dict[str, Any]] = []
    for one in (*config.pod.get("tolerations", ()), *config.tolerations):
        if whole(one) not in found:
            found.append(whole(one))
    return found


def devices(config: ClusterConfig) -> dict[str, str]:
    """Further resources, GPUs not among them."""
    known = (*_OWN, config.gpu_resource)
    return {key: str(whole(value)) for key, value in _limits(config).items() if key not in known} | config.devices


def gpus(config: ClusterConfig) -> int:
    """GPUs of a pod."""
    return int(_limits(config).get(config.gpu_resource, 0))


def amount(config: ClusterConfig, kind: str, resource: str) -> str:
    """A request or limit. Args: kind: `requests` or `limits`; of cores there is no limit for a job's pods."""
    return str(config.pod.get("resources", {}).get(kind, {}).get(resource, ""))


def plain(config: ClusterConfig) -> dict[str, str]:
    """Variables with a value, those that the operator sets left out."""
    return {one["name"]: str(one.get("value", "")) for one in _variables(config) if "valueFrom" not in one}


def referring(config: ClusterConfig) -> list[dict[str, Any]]:
    """Variables from Secrets, ConfigMaps and fields."""
    return [whole(one) for one in _variables(config) if "valueFrom" in one]


def _variables(config: ClusterConfig) -> list[dict[str, Any]]:
    return [one for one in config.pod.get("env", ()) if not is_reserved(one["name"])]


def _limits(config: ClusterConfig) -> dict[str, Any]:
    return dict(config.pod.get("resources", {}).get("limits", {}))
