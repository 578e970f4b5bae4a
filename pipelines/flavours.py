"""What differs between the backends a pipeline is compiled for.

`kfp`: Kubeflow Pipelines on any Kubernetes cluster. What only Kubernetes knows, such as Secrets, goes into a second YAML
document. `vertex`: Vertex AI Pipelines, which refuses a second document; there the run's service account opens the stores.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Literal

from kfp import dsl, kubernetes

from pipelines.steps import SIZES, Step

Flavour = Literal["kfp", "vertex"]
FLAVOURS: tuple[Flavour, ...] = ("kfp", "vertex")
STORE_SECRET = "tritower-store"  # noqa: S105 - a Secret's name, not a secret
_STORE_KEYS = {
    "endpoint": "TRITOWER_S3_ENDPOINT",
    "region": "AWS_REGION",
    "accesskey": "AWS_ACCESS_KEY_ID",
    "secretkey": "AWS_SECRET_ACCESS_KEY",
}

_RETRIES = 2

_current: ContextVar[tuple[Flavour, str]] = ContextVar("flavour", default=("kfp", "small"))


@contextlib.contextmanager
def compiling_for(flavour: Flavour, size: str = "small") -> Iterator[None]:
    """Within the block, pipelines are built for this backend, with a line of `SIZES`."""
    token = _current.set((flavour, size))
    try:
        yield
    finally:
        _current.reset(token)


def understood(component: Any) -> Any:
    """A component as the backend takes it: Vertex knows no TaskConfig, and a component finds it empty there."""
    if _current.get()[0] == "kfp":
        return component
    plain = copy.copy(component)
    inputs = {name: one for name, one in (component.component_spec.inputs or {}).items() if one.type != "TaskConfig"}
    plain.component_spec = dataclasses.replace(component.component_spec, inputs=inputs, task_config_passthroughs=None)
    return plain


def equipped(task: dsl.PipelineTask, step: Step) -> dsl.PipelineTask:
    """Give a step's task what it needs to run on the backend: a share of a node, retries, a deadline, the store's keys.

    Kubeflow: retries are of what was killed, where the cluster says so (manifests/kfp); the time for them counts from the first
    start and ends a running attempt, too, so that it is the step's deadline. The address and the keys of the object store come
    from the Secret `tritower-store` (keys endpoint, region, accesskey, secretkey, all optional) of the run's namespace. Without
    the Secret the pod's own identity counts.

    Vertex: it retries errors as well, so that a step is tried again only where the work done is kept. `backoff_max_duration` is
    the longest pause there, and nothing sets a deadline. Limits choose the machine; its default is as good as `small`.
    """
    flavour, size = _current.get()
    need = SIZES[size][step.is_heavy]
    if flavour == "vertex":
        if size != "small":
            task.set_cpu_limit(need.cpu_limit).set_memory_limit(need.memory_limit.removesuffix("i"))
        return task.set_retry(num_retries=1, backoff_duration="60s") if step.resumes else task
    task.set_cpu_request(need.cpu).set_cpu_limit(need.cpu_limit)
    task.set_memory_request(need.memory).set_memory_limit(need.memory_limit)
    task.set_retry(num_retries=_RETRIES, backoff_duration="30s", backoff_max_duration=f"{need.deadline_h * 3600}s")
    if step.opens_store or step.resumes:
        kubernetes.use_secret_as_env(task, STORE_SECRET, _STORE_KEYS, optional=True)
    return task
