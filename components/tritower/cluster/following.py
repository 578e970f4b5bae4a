"""One job, looked at every few seconds until it has ended or must be given up.

It asks for the job and its pods instead of watching them: a watch ends silently, expires and is to be begun again, and would
save two small requests.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from tritower.cluster import preflight, state
from tritower.cluster.api import Api, Refused, core
from tritower.cluster.config import ClusterConfig
from tritower.cluster.pod_log import PodLog
from tritower.errors import JobFailed

logger = logging.getLogger(__name__)
_OPERATOR = "kubectl get pods -A -l control-plane=kubeflow-training-operator"


class Following:
    """What is known of a job.

    Args:
        server: the API server.
        path: the job.
        name: its name.
        config: limits and intervals.
        nodes: how many pods it has.
    """

    def __init__(self, server: Api, path: str, name: str, config: ClusterConfig, nodes: int) -> None:
        self.server, self.path, self.name, self.config, self.nodes = server, path, name, config, nodes
        self.job: dict[str, Any] = {}
        self.pods: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.seen = False
        self._since: dict[tuple[str, str], float] = {}
        self._began = self._waiting = time.monotonic()
        self._uids: dict[str, list[str]] = {}
        self._told = ""

    def ended(self, uid: str, log: PodLog, look: Callable[[], None] | None) -> bool:
        """Follow to the end; False when the job is gone.

        Raises:
            TritowerError: it failed, or must be given up.
        """
        self._since, self._waiting = {}, time.monotonic()
        while self._found(uid):
            first = state.first_pod(self.pods)
            if first:
                log.of(first)
            end = state.ended(self.job)
            if end == "Succeeded":
                return True
            if end == "Failed":
                raise state.failure(self.job, self.pods)
            self._check()
            if look:
                look()
            time.sleep(self.config.poll_s)
        return False

    def look_again(self) -> None:
        """Ask for everything once more."""
        if self._found(self.job["metadata"]["uid"]):
            self.events = self._events()

    def quiet(self, within_s: float) -> bool:
        """Whether all pods have ended within some seconds after the job's end."""
        deadline = time.monotonic() + within_s
        while any(pod.get("status", {}).get("phase") in ("Running", "Pending") for pod in self.pods):
            if time.monotonic() > deadline:
                return False
            time.sleep(self.config.poll_s)
            self._found(self.job["metadata"]["uid"])
        return True

    def _found(self, uid: str) -> bool:
        try:
            self.job = self.server.get(self.path)
        except Refused as error:
            if error.status == 404:
                return False
            raise
        self.seen = True
        if self.job["metadata"]["uid"] != uid:
            raise JobFailed("another job took this one's place", where=self.name, remedy="Start the step again.")
        space = self.config.namespace
        found = self.server.get(core(space, "pods"), labelSelector=state.SELECTOR.format(name=self.name))["items"]
        self.pods = [pod for pod in found if any(one["uid"] == uid for one in pod["metadata"].get("ownerReferences", []))]
        words = state.summary(self.pods, self.nodes)
        if words != self._told:
            logger.info("%s: %s", self.name, words)
            self._told = words
        return True

    def _check(self) -> None:
        """Give the job up when something has been wrong for too long."""
        now = time.monotonic()
        if now - self._began > self.config.deadline_s:
            raise JobFailed(
                f"the job has not ended within {self.config.deadline_s:g} s", where=self.name, remedy="Raise deadline_s."
            )
        if state.queued(self.job) or state.running(self.pods, self.nodes):
            self._waiting = now
        self.events = self._events() if len(self.pods) < self.nodes else []
        troubles = {one.key: one for one in state.troubles(self.pods, self.events, self.config, self.nodes, self._largest())}
        self._since = {key: self._since.get(key, now) for key in troubles}
        for key, one in troubles.items():
            if self._since[key] == now and one.limit_s:
                logger.warning("%s: %s", self.name, one.error)
            if now - self._since[key] >= one.limit_s:
                raise one.error
        self._count_pods()
        if now - self._waiting > self.config.start_timeout_s:
            raise next((one.error for one in troubles.values()), self._late())

    def _count_pods(self) -> None:
        """A pod that was deleted is made anew under its name, which no limit of the operator's counts."""
        for pod in self.pods:
            uids = self._uids.setdefault(pod["metadata"]["name"], [])
            if pod["metadata"]["uid"] not in uids:
                uids.append(pod["metadata"]["uid"])
                if len(uids) > 1:
                    logger.warning("%s: the pod %s was deleted and is made anew", self.name, pod["metadata"]["name"])
            if len(uids) + state.restarts(pod) > self.config.restarts + 1:
                problem = f"its pod was made anew {len(uids) - 1} time(s) and failed {state.restarts(pod)} time(s)"
                raise JobFailed(problem, where=f"pod {pod['metadata']['name']}", remedy="Raise restarts, or look at its node.")

    def _late(self) -> JobFailed:
        limit = f"{self.config.start_timeout_s:g} s"
        if not self.pods and not self.job.get("status", {}).get("conditions"):
            problem = f"nobody has looked at the job within {limit}: is the training operator there?"
            return JobFailed(problem, where=self.name, remedy=_OPERATOR)
        problem = f"not all pods run after {limit}: {state.summary(self.pods, self.nodes)}"
        return JobFailed(problem, where=self.name, remedy="Look at its pods, or raise start_timeout_s.")

    def _events(self) -> list[dict[str, Any]]:
        """The job's events, the latest first."""
        selector = f"involvedObject.name={self.name}"
        found = self.server.get(core(self.config.namespace, "events"), fieldSelector=selector)["items"]
        own = [one for one in found if one.get("involvedObject", {}).get("uid") in (None, self.job["metadata"]["uid"])]
        return sorted(own, key=lambda one: str(one.get("lastTimestamp") or one.get("eventTime") or ""), reverse=True)

    def _largest(self) -> dict[str, str]:
        """For the pods that no node takes: which node has most of what they ask for."""
        resource = self.config.gpu_resource
        if not any("Insufficient" in str(pod.get("status", {}).get("conditions")) for pod in self.pods):
            return {}
        if not hasattr(self, "_nodes"):
            self._nodes = preflight.nodes(self.server)
        found = {one: preflight.largest(self._nodes, one, {}) for one in (resource, "cpu", "memory")}
        return {one: f"the largest, {name}, has {size:,.10g} of {one}" for one, (name, size) in found.items() if name}
