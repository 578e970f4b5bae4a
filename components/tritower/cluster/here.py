"""Where the launcher itself runs: its namespace, its pod, and the workflow that the pod belongs to."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tritower.cluster.api import Api, core, own_namespace
from tritower.cluster.config import ClusterConfig
from tritower.errors import ConfigError

_RUN = "pipeline/runid"
_CONTAINER = "main"


@dataclass(frozen=True)
class Here:
    """What is known of the launcher's own pod; nothing outside a pod."""

    namespace: str = ""
    pod: Mapping[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> str:
        """The pipeline's run."""
        return str(self.pod.get("metadata", {}).get("labels", {}).get(_RUN, ""))

    @property
    def owner(self) -> Mapping[str, Any] | None:
        """The workflow, which takes the job along when the run is deleted."""
        references = self.pod.get("metadata", {}).get("ownerReferences", [])
        return next((one for one in references if one["kind"] == "Workflow"), None)

    @property
    def image(self) -> str:
        """The image of the step's container."""
        containers = self.pod.get("spec", {}).get("containers", [])
        return next((str(one["image"]) for one in containers if one["name"] == _CONTAINER or len(containers) == 1), "")

    @property
    def account(self) -> str:
        """The service account."""
        return str(self.pod.get("spec", {}).get("serviceAccountName", ""))


def find(server: Api) -> Here:
    """Where this process runs. KFP names the pod in its environment."""
    namespace, name = own_namespace(), os.environ.get("KFP_POD_NAME", "")
    return Here(namespace, server.get(core(namespace, "pods", name)) if name and namespace else {})


def filled(config: ClusterConfig, here: Here) -> ClusterConfig:
    """The config with the launcher's own namespace and image where it names none.

    Raises:
        ConfigError: neither does.
    """
    found = replace(config, namespace=config.namespace or here.namespace, image=config.image or here.image)
    for knob in ("namespace", "image"):
        if not getattr(found, knob):
            raise ConfigError(f"no {knob} is named", where=knob, remedy="Name one: outside a pod there is no default.")
    return found
