"""One job, looked at every few seconds until it has ended or must be given up.

It asks for the job and its pods instead of watching them: a watch ends silently, expires and is to be begun again, and would
save two small requests.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tritower.cluster import preflight, state
from tritower.cluster.api import Api, Refused, core
from tritower.cluster.config import ClusterConfig
from tritower.cluster.kind import Kind
from tritower.cluster.pod_log import Logs
from tritower.cluster.state import Seen, Trouble
from tritower.errors import JobFailed

logger = logging.getLogger(__name__)


class Following:
    """What is known of a job.

    Args:
        server: the API server.
        kind: of the job.
        name: its name.
        config: limits and intervals.
        wanted: how many pods it has, at least.
    """

    def __init__(self, server: Api, kind: Kind, name: str, config: ClusterConfig, wanted: int) -> None:
        self.server, self.kind, self.name, self.config, self.wanted = server, kind, name, config, wanted
        self.path = kind.resource.path(config.namespace, name)
        self.seen = Seen()
        self._since: dict[tuple[str, str], float] = {}
        self._began = self._waiting = time.monotonic()
        self._uids: dict[str, list[str]] = {}
        self._told: list[str] = []

    def ended(self, uid: str, log: Logs, look: Callable[[], None] | None) -> bool:
        """Follow to the end; False when the job is gone.

        Raises:
            TritowerError: it failed, or must be given up.
        """
        self._since, self._waiting = {}, time.monotonic()
        while self._found(uid):
            log.of(self.kind.logged(self.seen))
            end = self.kind.ended(self.seen.job)
            if end == "Succeeded":
                if wrong := self.kind.verdict(self.seen):
                    raise wrong
                return True
            if end == "Failed":
                raise self.kind.failure(self.seen)
            self._check()
            if look:
                look()
            time.sleep(self.config.poll_s)
        return False

    def look_again(self) -> None:
        """Ask for everything once more."""
        if self._found(self.seen.job["metadata"]["uid"]):
            self.seen.events = self._events()

    def quiet(self, within_s: float) -> bool:
        """Whether all pods have ended within some seconds after the job's end."""
        deadline = time.monotonic() + within_s
        while any(pod.get("status", {}).get("phase") in ("Running", "Pending") for pod in self.kind.watched(self.seen)):
            if time.monotonic() > deadline:
                return False
            time.sleep(self.config.poll_s)
            self._found(self.seen.job["metadata"]["uid"])
        return True

    def _found(self, uid: str) -> bool:
        job = self._job()
        if job is None:
            return False
        if job["metadata"]["uid"] != uid:
            raise JobFailed("another job took this one's place", where=self.name, remedy="Start the step again.")
        self.seen.job = job
        space = self.config.namespace
        found = self.server.get(core(space, "pods"), labelSelector=self.kind.selector(self.name))["items"]
        self.seen.pods = self.kind.own(found, job)
        self.seen.parts = [
            one
            for resource, selector in self.kind.parts(self.name)
            for one in self.server.get(resource.path(space), labelSelector=selector)["items"]
        ]
        lines = self.kind.told(self.seen, self.wanted)
        for line in lines:
            if line not in self._told:
                logger.info("%s: %s", self.name, line)
        self._told = lines
        return True

    def _job(self) -> dict[str, Any] | None:
        """The job; None when it is gone. A server that knows nothing of the kind says nothing about the job."""
        limit = time.monotonic() + self.config.patience_s
        while True:
            try:
                return self.server.get(self.path)
            except Refused as error:
                if error.status == 404 and not error.unknown:
                    return None
                if not error.unknown or time.monotonic() > limit:
                    raise
                logger.warning("%s: %s", self.name, error)
            time.sleep(self.config.poll_s)

    def _check(self) -> None:
        """Give the job up when something has been wrong for too long."""
        now = time.monotonic()
        if now - self._began > self.config.deadline_s:
            raise JobFailed(
                f"the job has not ended within {self.config.deadline_s:g} s", where=self.name, remedy="Raise deadline_s."
            )
        if self.kind.queued(self.seen.job):
            self._waiting, self._uids = now, {}  # pods that are made anew after it are no failure
        elif state.running(self.kind.watched(self.seen), self.wanted):
            self._waiting = now
        troubles = {one.key: one for one in self._troubles()}
        self._since = {key: self._since.get(key, now) for key in troubles}
        for key, one in troubles.items():
            if self._since[key] == now and one.limit_s and one.told:
                logger.warning("%s: %s", self.name, one.error)
            if now - self._since[key] >= one.limit_s:
                raise one.error
        self._count_pods()
        if now - self._waiting > self.config.start_timeout_s:
            raise next((one.error for one in troubles.values()), self._late())

    def _troubles(self) -> Iterator[Trouble]:
        pods = self.kind.watched(self.seen)
        self.seen.events = self._events() if len(pods) < self.wanted else []
        yield from state.troubles(pods, self.config, self._largest())
        yield from state.unmade(self.seen.events, self.kind.unmade, self.config)
        yield from self.kind.troubles(self.seen, self.config)
        if pods and all(state.phase(pod) in ("Succeeded", "Failed") for pod in pods):
            problem = f"its pods have ended, but the job has not: is {self.kind.operator} there?"
            error = JobFailed(problem, where=self.name, remedy=self.kind.look)
            yield Trouble(("unseen", ""), error, self.config.start_timeout_s, told=False)  # for a moment, every job is so

    def _count_pods(self) -> None:
        """A pod that was deleted is made anew in its place, which no limit of the operator's counts."""
        for pod in self.kind.watched(self.seen):
            uids = self._uids.setdefault(self.kind.place(pod), [])
            if pod["metadata"]["uid"] not in uids:
                uids.append(pod["metadata"]["uid"])
                if len(uids) > 1:
                    logger.warning("%s: the pod %s was deleted and is made anew", self.name, pod["metadata"]["name"])
            if len(uids) + state.restarts(pod) > self.config.restarts + 1:
                problem = f"its pod was made anew {len(uids) - 1} time(s) and failed {state.restarts(pod)} time(s)"
                raise JobFailed(problem, where=f"pod {pod['metadata']['name']}", remedy="Raise restarts, or look at its node.")

    def _late(self) -> JobFailed:
        limit = f"{self.config.start_timeout_s:g} s"
        if not self.seen.pods and not self.seen.job.get("status", {}).get("conditions"):
            problem = f"nobody has looked at the job within {limit}: is {self.kind.operator} there?"
            return JobFailed(problem, where=self.name, remedy=self.kind.look)
        problem = f"not all pods run after {limit}: {state.summary(self.seen.pods, self.wanted)}"
        return JobFailed(problem, where=self.name, remedy="Look at its pods, or raise start_timeout_s.")

    def _events(self) -> list[dict[str, Any]]:
        """The events that tell of the job, the latest first."""
        path, own = core(self.config.namespace, "events"), self.seen.job["metadata"]
        found = [
            one
            for name in (*self.kind.told_by(self.name), *self.kind.telling(self.seen))
            for one in self.server.get(path, fieldSelector=f"involvedObject.name={name}")["items"]
            # Those of another job that had the name are left out, and so are those of what that one made.
            if one["involvedObject"].get("uid") in (None, own["uid"])
            or (
                one["involvedObject"].get("kind") != self.kind.resource.kind
                and _time(one)[:19] >= own["creationTimestamp"][:19]
            )
        ]
        return sorted(found, key=_time, reverse=True)

    def _largest(self) -> dict[str, str]:
        """For the pods that no node takes: which node has most of what they ask for."""
        resource = self.config.gpu_resource
        if not any("Insufficient" in str(pod.get("status", {}).get("conditions")) for pod in self.seen.pods):
            return {}
        if not hasattr(self, "_nodes"):
            self._nodes = preflight.nodes(self.server)
        found = {one: preflight.largest(self._nodes, one, {}) for one in (resource, "cpu", "memory")}
        return {one: f"the largest, {name}, has {size:,.10g} of {one}" for one, (name, size) in found.items() if name}


def _time(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")
