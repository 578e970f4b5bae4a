"""The node's part: every pod has a thread that places it, runs its containers as processes, tells its state, and ends it."""

import contextlib
import itertools
import os
import re
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import kinds, scheduler, trials
from tests.support.apiserver.containers import Container
from tests.support.apiserver.store import now, record

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]
_LOOK_S = 0.03
_INIT_TIMEOUT_S = 300.0
_ADDRESSES = itertools.count()
_WAITS_FOR = re.compile(r"until getent hosts ([\w.-]+)|until nslookup ([\w.-]+)")


class _Ended(Exception):
    """The pod is being deleted, or the server ends. Args: grace_s: seconds of the cluster that its processes have."""

    def __init__(self, grace_s: float) -> None:
        super().__init__(grace_s)
        self.grace_s = grace_s


class Kubelet:
    """All pods of all nodes."""

    def __init__(self, cluster: "Cluster") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pods-"))
        self.is_closing = False
        self._cluster, self._runners = cluster, dict[str, "Runner"]()

    def address(self) -> str:
        """One that no other pod of this machine has, whichever process of a test run made it."""
        number = next(_ADDRESSES)
        return f"127.{2 + os.getpid() % 250}.{number // 250 % 250}.{number % 250 + 1}"

    def runner(self, uid: str) -> "Runner | None":
        return self._runners.get(uid)

    def step(self) -> None:
        """Take up pods that are new; each is tried on the nodes once before the next one is, as in the real queue."""
        for pod in self._cluster.store.all(kinds.POD):
            uid = pod["metadata"]["uid"]
            if uid not in self._runners and not self.is_closing:
                self._runners[uid] = Runner(self._cluster, pod)
                self._runners[uid].place()
                self._runners[uid].start()

    def close(self) -> None:
        """End every process, and wait for it."""
        self.is_closing = True
        for runner in self._runners.values():
            runner.join()
        shutil.rmtree(self.folder, ignore_errors=True)


class Runner(threading.Thread):
    """A pod's life."""

    def __init__(self, cluster: "Cluster", pod: Object) -> None:
        super().__init__(daemon=True, name=pod["metadata"]["name"])
        self.pod, self.evicted = pod, ""
        self._cluster, self._store, self.home = cluster, cluster.store, cluster.kubelet.folder / pod["metadata"]["uid"]
        self.home.mkdir()
        spec = pod["spec"]
        first = "PodInitializing" if spec.get("initContainers") else "ContainerCreating"
        self.inits = [
            Container(cluster, pod, one, self.home, waits="PodInitializing") for one in spec.get("initContainers", [])
        ]
        own = [one for one in spec["containers"] if one["name"] != trials.COLLECTOR]
        self.containers = [Container(cluster, pod, one, self.home, waits=first) for one in own]
        for one in spec["containers"]:
            if one["name"] == trials.COLLECTOR:
                self.containers.append(trials.Collector(cluster, pod, one, self.home, waits=first, main=self.containers[0]))
        self._policy = spec["restartPolicy"]
        self._base: Object = {}
        self._unplaced = ""
        """Why no node has taken it, as it was told last."""

    def container(self, name: str) -> Container:
        return next(one for one in [*self.inits, *self.containers] if one.name == name)

    def run(self) -> None:
        try:
            while not self._base:
                self._look()
                time.sleep(0.1)
                self.place()
            self._tell("Pending")
            if self._initialise():
                for container in self.containers:
                    container.may_start = True
                self._supervise()
            self._wait(lambda: False)
        except _Ended as end:
            self._end(end.grace_s)

    def place(self) -> None:
        """Find it a node, or tell why there is none."""
        with self._store.changed:
            node, why = scheduler.place(self._cluster, self.pod)
            if node:
                scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now()}
                self._change(lambda pod: pod["spec"].update(nodeName=node), {"phase": "Pending", "conditions": [scheduled]})
        if not node:
            if why != self._unplaced:
                self._unplaced = why
                self._event("FailedScheduling", why, type_="Warning", source="default-scheduler")
                condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
                self._change(None, {"phase": "Pending", "conditions": [condition | {"lastTransitionTime": now()}]})
            return
        meta = self.pod["metadata"]
        self._event(
            "Scheduled", f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}", source="default-scheduler"
        )
        self._base = {"startTime": now(), "podIP": self._cluster.kubelet.address()}

    def _initialise(self) -> bool:
        """Run the init containers, one after the other. False when one has failed for good."""
        for container in self.inits:
            found = _WAITS_FOR.search(" ".join(container.spec.get("command", [])))
            while True:
                code = self._await_name(container, found[1] or found[2]) if found else self._run_init(container)
                self._tell("Pending")
                if code == 0:
                    break
                if self._policy == "Never":
                    self._tell("Failed")
                    return False
                container.restarts += 1
        return True

    def _run_init(self, container: Container) -> int:
        container.may_start = True
        policy = "Never" if self._policy == "Never" else "OnFailure"
        while not container.has_ended:
            self._look()
            container.step(policy)
            self._tell("Pending")
            time.sleep(_LOOK_S)
        return container.exit_code or 0

    def _await_name(self, container: Container, name: str) -> int:
        """The operator's own init container waits for the Master's name: there once its Service is and its pod runs."""
        began = now()
        container.state = {"running": {"startedAt": began}}
        self._tell("Pending")
        end = time.monotonic() + _INIT_TIMEOUT_S / self._cluster.speed
        home = self.pod["metadata"]["namespace"]

        def resolves() -> bool:
            pod = self._store.get(kinds.POD, home, name)
            return bool(self._store.get(kinds.SERVICE, home, name) and pod and pod["status"]["phase"] == "Running")

        is_there = self._wait(resolves, end)
        reason = {"exitCode": 0, "reason": "Completed"} if is_there else {"exitCode": 124, "reason": "Error"}
        container.state = {"terminated": reason | {"startedAt": began, "finishedAt": now()}}
        return 0 if is_there else 124

    def _supervise(self) -> None:
        """Until all containers have ended for good."""
        lag_s = 1.0 / self._cluster.speed
        while not all(container.has_ended for container in self.containers):
            self._look()
            for container in self.containers:
                container.step(self._policy)
                container.probe(str(self._base["podIP"]))
            never_ran = any(not one.attempts and "waiting" in one.state for one in self.containers)
            all_lost = all(not one.attempts for one in self.containers)
            self._tell("Pending" if never_ran or all_lost else "Running")
            time.sleep(_LOOK_S)
        # The phase follows the containers by a second.
        self._wait(lambda: False, time.monotonic() + lag_s)
        self._tell(self._last_phase())

    def _last_phase(self) -> str:
        return "Failed" if any(container.exit_code for container in self.containers) else "Succeeded"

    def _end(self, grace_s: float) -> None:
        """The pod is deleted: its processes get their time, then the object goes."""
        if not self._base:
            self._store.remove(kinds.POD, self.pod)
            return
        asked = self._cluster.rounds
        running = [one for one in [*self.inits, *self.containers] if "running" in one.state]
        for container in running:
            self._event("Killing", f"Stopping container {container.name}")
            grace_s = self._before_stop(container, grace_s)
            container.stop(grace_s / self._cluster.speed)
        for container in self.containers:
            container.lose("ContainerStatusUnknown", "The container could not be located when the pod was terminated")
        self._be_seen(asked)
        with contextlib.suppress(_Ended):
            self._tell(self._last_phase(), last=True)
        # For a moment the log cannot be read, nor is the pod gone.
        if not self._cluster.kubelet.is_closing:
            time.sleep(0.5 / self._cluster.speed)
        self._be_seen(self._cluster.rounds)
        self._store.remove(kinds.POD, self.pod)
        shutil.rmtree(self.home, ignore_errors=True)

    def _be_seen(self, since: int) -> None:
        """Wait until the operators have seen what the pod was like in a round, as the real ones do within milliseconds."""
        while not (self._cluster.looked(since) or self._cluster.kubelet.is_closing):
            time.sleep(0.005)

    def _before_stop(self, container: Container, grace_s: float) -> float:
        """Its preStop sleep; what is left of the grace."""
        hook = (container.spec.get("lifecycle") or {}).get("preStop") or {}
        pause_s = min(float((hook.get("sleep") or {}).get("seconds", 0)), grace_s)
        end = time.monotonic() + pause_s / self._cluster.speed
        while time.monotonic() < end and not self._cluster.kubelet.is_closing:
            time.sleep(_LOOK_S)
        return grace_s - pause_s

    def _wait(self, condition: Any, end: float | None = None) -> bool:
        """Until the condition holds or `end` (monotonic) has come; never without both."""
        while end is None or time.monotonic() < end:
            self._look()
            if condition():
                return True
            time.sleep(_LOOK_S)
        return False

    def _look(self) -> None:
        """Raises: _Ended: when the pod is asked to end; also after an eviction by the node."""
        if self._cluster.kubelet.is_closing:
            raise _Ended(0)
        pod = self._store.get(kinds.POD, self.pod["metadata"]["namespace"], self.pod["metadata"]["name"])
        if pod is None or pod["metadata"]["uid"] != self.pod["metadata"]["uid"]:
            raise _Ended(0)
        if "deletionTimestamp" in pod["metadata"]:
            raise _Ended(pod["metadata"]["deletionGracePeriodSeconds"])
        if self.evicted and pod["status"]["phase"] != "Failed":
            for container in self.containers:
                container.stop(0)
            self._change(None, {"phase": "Failed", "reason": "Evicted", "message": self.evicted} | self._statuses())
            self._event("Evicted", self.evicted, type_="Warning")
            self._wait(lambda: False)

    def _tell(self, phase: str, *, last: bool = False) -> None:
        if not last and not self.evicted:
            self._look()
        self._change(None, {"phase": phase} | self._base | self._statuses() | self._readiness(phase))
        for container in [*self.inits, *self.containers]:
            container.told()

    def _readiness(self, phase: str) -> Object:
        """The condition Ready, of pods that serve."""
        if not any(one["kind"] == "ReplicaSet" for one in self.pod["metadata"].get("ownerReferences") or []):
            return {}
        is_ready = phase == "Running" and all(one.status()["ready"] for one in self.containers)
        return {"conditions": [{"type": "Ready", "status": "True" if is_ready else "False"}]}

    def _statuses(self) -> Object:
        found: Object = {"containerStatuses": [container.status() for container in self.containers]}
        return found | ({"initContainerStatuses": [one.status() for one in self.inits]} if self.inits else {})

    def _change(self, change: Any, status: Object) -> None:
        def write(pod: Object) -> None:
            if change:
                change(pod)
            old = {one["type"]: one for one in pod.setdefault("status", {}).get("conditions", [])}
            new = {one["type"]: one for one in status.get("conditions", [])}
            pod["status"] = {**pod["status"], **status, "conditions": [*(old | new).values()]}

        self._store.edit(kinds.POD, self.pod, write)

    def _event(self, reason: str, message: str, *, type_: str = "Normal", source: str = "kubelet") -> None:
        record(self._store, self.pod, reason, message, type_=type_, source=source)
