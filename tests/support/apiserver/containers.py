"""A container of a pod: waits for its image and its settings, runs, ends, is started again after a back-off."""

import re
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import environment, probes, processes, quantities
from tests.support.apiserver.processes import Attempt
from tests.support.apiserver.store import now, record

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]

_PULL = {
    "missing": (
        'rpc error: code = NotFound desc = failed to pull and unpack image "{0}": failed to resolve reference "{0}": {0}: '
        "not found"
    ),
    "denied": (
        'failed to pull and unpack image "{0}": failed to resolve reference "{0}": pulling from host {1} failed with status '
        "code [manifests {2}]: 401 Unauthorized"
    ),
    "unreachable": (
        'failed to pull and unpack image "{1}/{0}": failed to resolve reference "{1}/{0}": failed to do request: Head '
        '"https://{1}/v2/{3}/manifests/{2}": dial tcp: lookup {1}: Temporary failure in name resolution'
    ),
}
_START_ERROR = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable "
    'to start container process: exec: "{0}": executable file not found in $PATH: unknown'
)
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S, _RESTART_S = 10.0, 300.0, 1.0


class Container:
    """One of a pod's containers. `state` and `last` are as a containerStatus has them."""

    def __init__(self, cluster: "Cluster", pod: Object, spec: Object, folder: Path, *, waits: str) -> None:
        self.spec, self.name, self.id = spec, spec["name"], uuid.uuid4().hex * 2
        self.attempts: list[Attempt] = []
        self.state: Object = {"waiting": {"reason": waits}}
        self.last: Object = {}
        self.restarts = 0
        self.may_start = self._has_run = False
        self._cluster, self._pod, self._folder = cluster, pod, folder
        self._due = 0.0
        self._told: tuple[Object, int] = ({}, 0)
        """The last state that was written, and the operators' round then."""
        self._tries = 0
        self.is_ready = "readinessProbe" not in spec
        """As its probe found it; without one it is ready while it runs."""
        self._probed, self._misses = 0.0, 0

    @property
    def has_ended(self) -> bool:
        return "terminated" in self.state and not self._due

    @property
    def exit_code(self) -> int | None:
        return self.state["terminated"]["exitCode"] if "terminated" in self.state else None

    def waiting_reason(self) -> str:
        """Why it has no log yet, empty when it has one."""
        return "" if self.attempts else str(self.state.get("waiting", {}).get("reason", ""))

    def step(self, policy: str) -> None:
        """Look after it once. On a busy machine, too, the operators see each of its states before the next one comes.

        Args:
            policy: the pod's restartPolicy.
        """
        if self._has_run and not self._is_seen():
            return
        if "running" in self.state:
            if self.attempts[-1].poll() is not None:
                self._end(self.attempts[-1], policy)
        elif self.may_start and time.monotonic() >= self._due and not self.has_ended:
            self._start(policy)
        elif self._due and "terminated" in self.state and self.restarts:
            self._wait_for_restart()

    def told(self) -> None:
        """Its state has been written into the pod's."""
        if self._told[0] is not self.state:
            self._told = self.state, self._cluster.rounds

    def _is_seen(self) -> bool:
        state, since = self._told
        return state is self.state and self._cluster.looked(since)

    def status(self) -> Object:
        """Its entry in containerStatuses."""
        is_up = "running" in self.state
        found = {
            "name": self.name,
            "state": self.state,
            "ready": is_up and self.is_ready,
            "restartCount": self.restarts,
            "started": is_up,
        }
        found |= {"image": self.spec["image"], "imageID": "", "lastState": self.last}
        return found | ({"containerID": f"containerd://{self.id}"} if self.attempts else {})

    def probe(self, address: str) -> None:
        """Ask its readiness probe when it is time to."""
        asked, now_s = self.spec.get("readinessProbe"), time.monotonic()
        if not asked:
            return
        if "running" not in self.state:
            self.is_ready, self._misses = False, 0
        elif now_s - self._probed >= asked.get("periodSeconds", 10) / self._cluster.speed:
            self._probed, well = now_s, probes.answers(asked, address)
            self._misses = 0 if well else self._misses + 1
            self.is_ready = well or (self.is_ready and self._misses < asked.get("failureThreshold", 3))

    def stop(self, grace_s: float) -> None:
        """SIGTERM, `grace_s` of this machine's seconds, SIGKILL. Then it is ended whatever its state was."""
        if "running" in self.state and not self.attempts:
            self.state = {"terminated": {"exitCode": 143, "reason": "Error", "finishedAt": now()}}
        if "running" in self.state:
            attempt = self.attempts[-1]
            end = time.monotonic() + grace_s
            attempt.ask()
            while attempt.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            if attempt.exit_code is None:
                attempt.kill()
                while attempt.poll() is None:
                    time.sleep(0.005)
            self._end(attempt, "Never")
        self._due = 0.0

    def lose(self, reason: str, message: str) -> None:
        """It was never started, and its pod ends."""
        if not self.attempts:
            self.state = {"terminated": {"exitCode": 137, "reason": reason, "message": message}}

    def _start(self, policy: str) -> None:
        if fault := self._image_fault():
            return self._wait(*fault)
        try:
            command, values = environment.started(self._cluster, self._pod, self.spec, self._folder)
        except environment.Missing as missing:
            self._event("Failed", f"Error: {missing}", type_="Warning")
            return self._wait("CreateContainerConfigError", str(missing), retry_s=10.0)
        memory = quantities.number(((self.spec.get("resources") or {}).get("limits") or {}).get("memory", 0))
        if self._has_run:
            self.last = self.state if "terminated" in self.state else self.last
            self.restarts += 1
            self.id = uuid.uuid4().hex * 2
        self._has_run = True
        try:
            self.attempts.append(Attempt(command, values, self._folder, memory))
        except processes.NotFound as missing:
            message = _START_ERROR.format(missing)
            self._event("Failed", f"Error: {message}", type_="Warning")
            self.state = {"terminated": {"exitCode": 128, "reason": "StartError", "message": message, "finishedAt": now()}}
            return self._restart(policy, 128)
        self._due = 0.0
        self.state = {"running": {"startedAt": now()}}
        return self._event("Started", f"Started container {self.name}")

    def _end(self, attempt: Attempt, policy: str) -> None:
        code = attempt.exit_code or 0
        reason = "OOMKilled" if attempt.is_oom else "Error" if code else "Completed"
        started = self.state["running"]["startedAt"]
        self.state = {"terminated": {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": now()}}
        (message,) = environment.termination_message(self.spec, self._folder).values()
        if Path(message).exists():
            self.state["terminated"]["message"] = Path(message).read_text(encoding="utf-8", errors="replace")[:4096]
            Path(message).unlink()
        self._restart(policy, code)

    def _restart(self, policy: str, code: int) -> None:
        if policy == "Always" or (policy == "OnFailure" and code):
            self._due = time.monotonic() + self._backoff_s()

    def _backoff_s(self) -> float:
        backoff = _RESTART_S if not self.restarts else min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (self.restarts - 1))
        return backoff / self._cluster.speed

    def _wait_for_restart(self) -> None:
        # Half the time it is shown as ended, then as waiting.
        if time.monotonic() < self._due - self._backoff_s() / 2:
            return
        seconds = int(self._backoff_s() * self._cluster.speed)
        pod = self._pod["metadata"]
        at = f"pod={pod['name']}_{pod['namespace']}({pod['uid']})"
        self.last = self.state
        self.state = {
            "waiting": {
                "reason": "CrashLoopBackOff",
                "message": f"back-off {seconds}s restarting failed container={self.name} {at}",
            }
        }
        self._event("BackOff", f"Back-off restarting failed container {self.name} in pod {at[4:]}", type_="Warning")

    def _image_fault(self) -> tuple[str, str] | None:
        image = self.spec["image"]
        name, _, tag = image.rpartition(":")
        if name != name.lower():
            bad = next(part for part in name.split("/")[::-1] if part != part.lower())
            why = f"invalid reference format: repository name ({bad}) must be lowercase"
            return (
                "InvalidImageName",
                f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": {why}',
            )
        fault = self._cluster.images.get(image)
        if not fault:
            return None
        host = name.partition("/")[0] if re.match(r"[^/]*[.:]", name) else "registry.example"
        message = _PULL[fault].format(image, host, tag, name)
        return "ErrImagePull", message

    def _wait(self, reason: str, message: str, *, retry_s: float = 12.0) -> None:
        """Wait, and try again; a pull's failure and its back-off take turns."""
        image = self.spec["image"]
        if reason == "ErrImagePull":
            if self._tries % 2 == 0:
                self._event("Pulling", f'Pulling image "{image}"')
                self._event("Failed", f'Failed to pull image "{image}": {message}', type_="Warning")
                self._event("Failed", "Error: ErrImagePull", type_="Warning")
            else:
                self._event("BackOff", f'Back-off pulling image "{image}"')
                reason, message = "ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {message}'
        self._tries += 1
        self.state = {"waiting": {"reason": reason, "message": message}}
        self._due = time.monotonic() + retry_s / self._cluster.speed

    def _event(self, reason: str, message: str, *, type_: str = "Normal") -> None:
        record(self._cluster.store, self._pod, reason, message, type_=type_, source="kubelet")
