"""Manifests of small PyTorchJobs for tests, and waiting for what becomes of them."""

import time
from collections.abc import Callable
from typing import Any

Object = dict[str, Any]


def job(
    name: str,
    master: list[str],
    *workers: list[str],
    restart: str = "Never",
    image: str = "example/python:1",
    resources: Object | None = None,
    **policy: Any,
) -> Object:
    """A PyTorchJob of a Master and as many Workers as commands (equal ones) are given. Args: policy: of its runPolicy."""

    def replica(command: list[str], count: int) -> Object:
        container = {"name": "pytorch", "image": image, "command": command} | ({"resources": resources} if resources else {})
        spec = {"terminationGracePeriodSeconds": 10, "containers": [container]}
        return {"replicas": count, "restartPolicy": restart, "template": {"spec": spec}}

    roles = {"Master": replica(master, 1)} | ({"Worker": replica(workers[0], len(workers))} if workers else {})
    spec = {"pytorchReplicaSpecs": roles} | ({"runPolicy": policy} if policy else {})
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": name}, "spec": spec}


def shell(text: str) -> list[str]:
    return ["sh", "-c", text]


def until(look: Callable[[], Any], seconds: float = 300.0) -> Any:
    """The first value that counts as true of `look()`; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)
    return found


def ended(status: Object) -> str:
    """Succeeded, Failed, or nothing."""
    return next(
        (c["type"] for c in status.get("conditions", []) if c["type"] in ("Succeeded", "Failed") and c["status"] == "True"), ""
    )
