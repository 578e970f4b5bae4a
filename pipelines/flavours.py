"""What differs between the backends a pipeline is compiled for.

`kfp`: Kubeflow Pipelines on any Kubernetes cluster. What only Kubernetes knows, such as Secrets, goes into a second YAML
document. `vertex`: Vertex AI Pipelines, which refuses a second document; there the run's service account opens the stores.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal

from kfp import dsl, kubernetes

Flavour = Literal["kfp", "vertex"]
FLAVOURS: tuple[Flavour, ...] = ("kfp", "vertex")
STORE_SECRET = "tritower-store"  # noqa: S105 - a Secret's name, not a secret
_STORE_KEYS = {
    "endpoint": "TRITOWER_S3_ENDPOINT",
    "region": "AWS_REGION",
    "accesskey": "AWS_ACCESS_KEY_ID",
    "secretkey": "AWS_SECRET_ACCESS_KEY",
}

_current: ContextVar[Flavour] = ContextVar("flavour", default="kfp")


@contextlib.contextmanager
def compiling_for(flavour: Flavour) -> Iterator[None]:
    """Within the block, pipelines are built for this backend."""
    token = _current.set(flavour)
    try:
        yield
    finally:
        _current.reset(token)


def opens_store(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Give a step that reads locations of the user's the object store's address and keys.

    They come from the Secret `tritower-store` (keys endpoint, region, accesskey, secretkey, all optional) of the run's
    namespace. Without the Secret the pod's own identity counts.
    """
    if _current.get() == "kfp":
        kubernetes.use_secret_as_env(task, STORE_SECRET, _STORE_KEYS, optional=True)
    return task
