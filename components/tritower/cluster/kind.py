"""What is special to one kind of resource that runs a job; all else the launcher does for every kind alike."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tritower.cluster import state
from tritower.cluster.api import Refused, custom
from tritower.cluster.config import ClusterConfig
from tritower.cluster.state import Object, Seen, Trouble
from tritower.errors import TritowerError
from tritower.jobs import Job

Right = tuple[str, str, tuple[str, ...]]
"""API group, resource, verbs."""


@dataclass(frozen=True)
class Resource:
    """A kind of custom resource."""

    group: str
    version: str
    plural: str
    kind: str

    def path(self, namespace: str, name: str = "") -> str:
        """Where the API server has all of them, or one."""
        return custom(self.group, self.version, namespace, self.plural, name)


class Kind(Protocol):
    """One kind of resource. It holds nothing of a job; what a job needs beside `jobs.Job` is given when it is made."""

    resource: Resource
    """What the launcher creates, looks at and deletes."""

    operator: str
    """Who looks after it, in words, such as `the training operator`."""

    look: str
    """The line of kubectl that shows the operator's pods."""

    install: str
    """The line of kubectl that installs it."""

    rights: tuple[Right, ...] = ()
    """What the launcher may do beside create, get and delete of the resource, and the reading of pods and events."""

    unmade: tuple[str, ...] = ()
    """Reasons of events that say that a pod cannot be made."""

    def manifest(self, job: Job, config: ClusterConfig, *, name: str, run: str, agent: tuple[str, ...]) -> dict[str, Any]:
        """The custom resource; `agent` are the options of the agent in its pods."""

    def beside(self, job: Job, config: ClusterConfig, *, name: str, run: str) -> list[dict[str, Any]]:
        """Objects that must be there before it is made; they go with it."""
        return []

    def too_early(self, error: Refused) -> bool:
        """Whether a refusal of the resource passes: what is beside it is not known everywhere yet."""
        return False

    def size(self, job: Job, config: ClusterConfig) -> str:
        """How large it is, in words."""
        return f"{self.wanted(job, config)} pod(s) of {job.processes} process(es)"

    def wanted(self, job: Job, config: ClusterConfig) -> int:
        """How many of the pods that are watched there must be, at least."""
        return config.nodes or job.nodes

    def selector(self, name: str) -> str:
        """The labels of its pods."""

    def own(self, pods: list[dict[str, Any]], job: Object) -> list[dict[str, Any]]:
        """Those of the pods that are this job's and count now, not those of another job that had its name."""
        uid = job["metadata"]["uid"]
        return [pod for pod in pods if any(one["uid"] == uid for one in pod["metadata"].get("ownerReferences", []))]

    def parts(self, name: str) -> list[tuple[Resource, str]]:
        """Further resources that tell how it stands, with the labels that select them."""
        return []

    def told_by(self, name: str) -> tuple[str, ...]:
        """The names of the objects whose events tell of it."""
        return (name,)

    def telling(self, seen: Seen) -> tuple[str, ...]:
        """The names of its parts whose events tell of it now."""
        return ()

    def watched(self, seen: Seen) -> list[dict[str, Any]]:
        """The pods that must run now, and whose troubles are its own."""
        return seen.pods

    def told(self, seen: Seen, wanted: int) -> list[str]:
        """What there is to tell; a line is told when it was not among those of the look before."""
        return [state.summary(seen.pods, wanted)]

    def logged(self, seen: Seen) -> Mapping[str, Object]:
        """The pods whose logs the step prints, each under what its lines begin with: an empty text for the one of rank 0."""

    def place(self, pod: Object) -> str:
        """What stays the same of a pod when it is made anew."""
        return str(pod["metadata"]["name"])

    def ended(self, job: Object) -> str:
        """`Succeeded`, `Failed`, or an empty text."""
        return next((word for word in ("Succeeded", "Failed") if state.condition(job, word)), "")

    def queued(self, job: Object) -> bool:
        """Whether it is suspended: a queue has not admitted it yet."""
        return bool(state.condition(job, "Suspended"))

    def troubles(self, seen: Seen, config: ClusterConfig) -> Iterable[Trouble]:
        """What is wrong with it that its pods do not show."""
        return ()

    def verdict(self, seen: Seen) -> TritowerError | None:
        """Why it has failed although it says that it succeeded."""
        return None

    def failure(self, seen: Seen) -> TritowerError:
        """Why it failed."""
        return state.failure(seen.job, seen.pods)
