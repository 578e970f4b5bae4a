"""A set of pods, looked at until all of it serves or it must be given up.

What an InferenceService says is not asked: its Ready stays True through a good and a bad update, and a pod that never gets
ready does not show in it for 600 s. The Deployment and the pods are asked, by a clock of our own.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritower.cluster import pod_log, state
from tritower.cluster.api import Api, Refused, core, custom
from tritower.cluster.config import ClusterConfig
from tritower.cluster.state import Trouble
from tritower.deploy.config import DeployConfig
from tritower.deploy.manifests import SET, VERSION, Object, Set, short
from tritower.errors import JobFailed, TritowerError

logger = logging.getLogger(__name__)
_LAST_LINES, _LONGEST = 3, 300


@dataclass(frozen=True)
class Standing:
    """How a set stands: `ready` of `wanted` pods; `done` when it is all of it and nothing else."""

    ready: int
    wanted: int
    done: bool


def standing(one: Set, deployment: Mapping[str, Any]) -> Standing:
    """By its Deployment, whose template must be of this very version."""
    meta, spec, status = deployment["metadata"], deployment["spec"], deployment.get("status") or {}
    wanted, ready = int(spec.get("replicas", 1)), int(status.get("availableReplicas", 0))
    labels = spec["template"]["metadata"].get("labels") or {}
    ours = labels.get(SET) == one.name and labels.get(VERSION) == short(one.version)
    seen = int(status.get("observedGeneration", 0)) >= meta["generation"]
    whole = status.get("updatedReplicas", 0) == status.get("replicas", 0) == ready == wanted > 0
    return Standing(ready, wanted, ours and seen and whole)


def fetching(pods: Sequence[Object], restarts: int) -> Iterator[Trouble]:
    """What runs before the server, such as KServe's storage initializer, and fails: it shows in nothing else of the pod.

    Args:
        pods: of a set.
        restarts: failures, after the first, until it has failed.
    """
    for pod in pods:
        for one in pod.get("status", {}).get("initContainerStatuses", []):
            count = int(one.get("restartCount", 0))
            if count <= restarts:
                continue
            ended = one.get("lastState", {}).get("terminated") or one.get("state", {}).get("terminated") or {}
            said = " / ".join(str(ended.get("message", "")).strip().splitlines()[-_LAST_LINES:])[-_LONGEST:]
            problem = f"{one['name']} failed {count} time(s): exit code {ended.get('exitCode')}" + (f", {said}" if said else "")
            name, remedy = str(pod["metadata"]["name"]), "Look at its log, and at the service account's Secret for the store."
            yield state.trouble((one["name"], name), problem, f"pod {name}", remedy, 0.0)


def is_its(pod: Object, deployment: Mapping[str, Any]) -> bool:
    """Not of an earlier try with the same name, whose pods are still ending: what they failed of says nothing of this one."""
    meta = pod["metadata"]
    return "deletionTimestamp" not in meta and meta["creationTimestamp"] >= deployment["metadata"]["creationTimestamp"]


class Waiting:
    """Looks at one set.

    Args:
        server: the API server.
        config: with its namespace.
        one: the set.
    """

    def __init__(self, server: Api, config: DeployConfig, one: Set) -> None:
        self._server, self._config, self._one = server, config, one
        self._limits = ClusterConfig(
            namespace=config.namespace, patience_s=config.patience_s, start_timeout_s=config.start_timeout_s,
            restarts=config.restarts,
        )  # fmt: skip
        self._since: dict[tuple[str, str], float] = {}
        self._told = ""
        self.pods: list[Object] = []

    def until_ready(self, count: int = 0) -> None:
        """Wait until all its pods are ready, as many as `count` at least.

        Raises:
            JobFailed: they cannot be, or are not in time; with the pods' reasons.
        """
        began, uid = time.monotonic(), ""
        while True:
            found = self.deployment()
            if found and found["metadata"].get("uid") != (uid or found["metadata"]["uid"]):
                raise JobFailed("somebody made the set anew while it started", where=self._one.name, remedy="Deploy again.")
            if uid and not found:
                raise JobFailed("the set was deleted while it started", where=self._one.name, remedy="Deploy again.")
            uid = found["metadata"]["uid"] if found else ""
            at = standing(self._one, found) if found else Standing(0, self._one.replicas, False)
            self._tell(at)
            if at.done and at.wanted >= count:
                return
            self._check(time.monotonic() - began, at, found)
            time.sleep(self._config.poll_s)

    def deployment(self) -> Object | None:
        """Its Deployment; None where there is none."""
        try:
            return self._server.get(custom("apps", "v1", self._config.namespace, "deployments", self._one.deployment))
        except Refused as error:
            if error.status != 404:
                raise
            return None

    def _check(self, waited_s: float, at: Standing, deployment: Object | None) -> None:
        found = self._server.get(core(self._config.namespace, "pods"), labelSelector=f"{SET}={self._one.name}")["items"]
        self.pods = [pod for pod in found if deployment and is_its(pod, deployment)]
        troubles = {one.key: one for one in self._troubles()}
        now = time.monotonic()
        self._since = {key: self._since.get(key, now) for key in troubles}
        for key, one in troubles.items():
            if self._since[key] == now and one.limit_s:
                logger.warning("%s: %s", self._one.name, one.error)
            if now - self._since[key] >= one.limit_s:
                raise self._explained(one.error)
        if waited_s > self._config.start_timeout_s:
            raise next((one.error for one in troubles.values()), self._late(at))

    def _troubles(self) -> Iterator[Trouble]:
        yield from state.troubles(self.pods, self._limits, {})
        yield from fetching(self.pods, self._config.restarts)
        if len(self.pods) < self._one.replicas:
            yield from state.unmade(self._events(), ("FailedCreate",), self._limits)

    def _events(self) -> list[Object]:
        """Why pods could not be made, the latest first."""
        found = self._server.get(core(self._config.namespace, "events"), fieldSelector="reason=FailedCreate")["items"]
        own = [one for one in found if str(one["involvedObject"]["name"]).startswith(self._one.deployment)]
        return sorted(own, key=lambda one: str(one.get("lastTimestamp") or one.get("eventTime") or ""), reverse=True)

    def _late(self, at: Standing) -> JobFailed:
        limit = f"{self._config.start_timeout_s:g} s"
        if not self.pods:
            who = "KServe" if self._one.kind == "kserve" else "the cluster's controller manager"
            return JobFailed(f"nobody has made its pods within {limit}: is {who} there?", where=self._one.name,
                             remedy="Look at its status and its events.")  # fmt: skip
        problem = f"{at.ready} of {at.wanted} pods are ready after {limit}"
        error = JobFailed(problem, where=self._one.name, remedy="Look at the pods' logs, or raise start_timeout_s.")
        return self._explained(error)  # type: ignore[return-value]

    def _explained(self, error: TritowerError) -> TritowerError:
        """The error with the last lines of the pod that it is about, or of the first that is not ready."""
        unready = [pod for pod in self.pods if not state.condition(pod, "Ready")]
        named = [pod for pod in self.pods if pod["metadata"]["name"] in error.where] or unready
        for pod in named[:1]:
            lines = pod_log.whole(self._server, self._config.namespace, pod) or pod_log.whole(
                self._server, self._config.namespace, pod, previous=True
            )
            text = " / ".join(lines.decode(errors="replace").strip().splitlines()[-_LAST_LINES:])[-_LONGEST:]
            if text:
                problem, where = f"{error.problem}; its log ends: {text}", error.where
                if pod["metadata"]["name"] not in where:
                    where = f"{where}, pod {pod['metadata']['name']}"
                return type(error)(problem, where=where, remedy=error.remedy)
        return error

    def _tell(self, at: Standing) -> None:
        line = f"{at.ready} of {at.wanted} pods ready"
        if line != self._told:
            logger.info("%s: %s", self._one.name, line)
        self._told = line
