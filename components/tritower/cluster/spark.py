"""A SparkApplication (sparkoperator.k8s.io/v1beta2) for a job that works with Spark."""

from dataclasses import dataclass
from typing import Any

from tritower.cluster import pods
from tritower.cluster.config import ClusterConfig
from tritower.config import check
from tritower.jobs import Job

GROUP, VERSION, PLURAL, KIND = "sparkoperator.k8s.io", "v1beta2", "sparkapplications", "SparkApplication"
_CHILD = "/opt/tritower/lib/python3.11/site-packages/tritower/child.py"
"""Runs a module in the image `spark`."""


@dataclass(frozen=True, kw_only=True)
class Executors:
    """The executors of an application; the driver is given what the job says."""

    count: int = 2
    """Pods, 1 or more."""

    cores: int = 1
    """Cores of each, 1 or more."""

    memory: str = "4g"
    """Heap of each, in Java's words."""

    spark_version: str = "4.0.0"
    """Version of Spark in the image."""

    def __post_init__(self) -> None:
        check(self.count >= 1, "count", self.count, "of at least 1")
        check(self.cores >= 1, "cores", self.cores, "of at least 1")


def manifest(job: Job, config: ClusterConfig, executors: Executors, *, name: str, run: str = "") -> dict[str, Any]:
    """The custom resource; the step's module runs in the driver.

    Args:
        job: what the driver runs.
        config: where and how.
        executors: how many, and how large.
        name: of at most 50 characters.
        run: the pipeline's run, for a label.
    """
    assert len(name) <= 50, name
    driver = {
        "cores": max(1, round(job.resources.cpus)),
        "memory": f"{job.resources.memory_mib or 4096}m",
        "serviceAccount": config.service_account,
        **_pod(job, config, name),
    }
    workers = {"instances": executors.count, "cores": executors.cores, "memory": executors.memory, **_pod(job, config, name)}
    spec: dict[str, Any] = {
        "type": "Python",
        "pythonVersion": "3",
        "mode": "cluster",
        "image": config.image,
        "imagePullPolicy": config.image_pull_policy,
        "sparkVersion": executors.spark_version,
        "mainApplicationFile": f"local://{_CHILD}",
        "arguments": [job.module, *job.words()],
        "restartPolicy": {"type": "Never"},
        "timeToLiveSeconds": config.keep_after_s,
        "driver": driver,
        "executor": workers,
        "volumes": pods.volumes(config),
    } | ({"imagePullSecrets": list(config.image_pull_secrets)} if config.image_pull_secrets else {})
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": pods.metadata(name, spec, job, config, run=run),
        "spec": spec,
    }


def _pod(job: Job, config: ClusterConfig, name: str) -> dict[str, Any]:
    template = pods.template(job, config, name=name, container="spark", command=[])
    annotations, labels, spec = template["metadata"]["annotations"], template["metadata"]["labels"], template["spec"]
    found = {"env": spec["containers"][0]["env"], "labels": labels, "annotations": annotations}
    security = {"podSecurityContext": spec["securityContext"], "securityContext": spec["containers"][0]["securityContext"]}
    same = {
        key: spec[key] for key in ("nodeSelector", "affinity", "tolerations", "priorityClassName", "hostNetwork") if key in spec
    }
    mounts = {"volumeMounts": spec["containers"][0].get("volumeMounts", [])}
    return found | security | {key: value for key, value in (mounts | same).items() if value}
