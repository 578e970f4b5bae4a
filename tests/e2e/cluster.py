"""Runs on a real cluster, and what kubectl says of their jobs and pods."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipelines import runs, versions
from pipelines.api import Api

T = TypeVar("T")
LONG = {"training.epochs": 150, "training.patience": 10_000, "launch.checkpoint_every_s": 2.0, "launch.log_every_s": 1.0}
"""Knobs with which a small log is trained for a minute or two."""

_STAND_STILL = """
import os, pathlib, signal
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    words = (folder / "cmdline").read_bytes()
    if int(folder.name) != os.getpid() and b"kfp.dsl.executor_main" in words and b"python" in words.split(b"\\0")[0]:
        os.kill(int(folder.name), signal.SIGSTOP)
"""

_KILL = """
import os, pathlib, signal
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    if int(folder.name) not in (1, os.getpid()) and b"tritower" in (folder / "cmdline").read_bytes():
        os.kill(int(folder.name), signal.SIGKILL)
"""


def kubectl(*words: str, namespace: str, given: str = "") -> str:
    command = ["kubectl", "--namespace", namespace, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, input=given)
    assert not done.returncode, done.stderr
    return done.stdout


@dataclass(frozen=True)
class There:
    """A backend, the namespace of its pods, a name that nobody else has, and a location for what is read and left."""

    api: Api
    namespace: str
    name: str
    root: str

    def publish(self, file: Path) -> versions.Version:
        """A compiled pipeline under a name of these tests' own; nothing where it is there already."""
        return versions.publish(self.api, file, pipeline=f"{self.name}-{file.stem}", name="1.0")

    def submit(self, file: Path, arguments: Mapping[str, Any]) -> "Run":
        version = self.publish(file)
        return Run(self, runs.submit(self.api, version, arguments, experiment=self.name, name=file.stem))


@dataclass(frozen=True)
class Run:
    """A run on it."""

    there: There
    id: str

    def kubectl(self, *words: str) -> str:
        return kubectl(*words, namespace=self.there.namespace)

    def kubectl_json(self, *words: str) -> dict[str, Any]:
        return dict(json.loads(self.kubectl(*words, "--output", "json")))

    def listed(self, what: str, selector: str) -> list[dict[str, Any]]:
        return list(self.kubectl_json("get", what, "--selector", selector)["items"])

    def jobs(self, kind: str = "pytorchjobs") -> list[dict[str, Any]]:
        return self.listed(kind, f"tritower.dev/run={self.id}")

    def job(self) -> dict[str, Any]:
        (one,) = until(self.jobs, "a job")
        return one

    def pods(self) -> dict[str, dict[str, Any]]:
        """Role -> pod of the job."""
        (job,) = self.jobs() or [None]
        found = self.listed("pods", f"training.kubeflow.org/job-name={job['metadata']['name']}") if job else []
        return {pod["metadata"]["labels"]["training.kubeflow.org/replica-type"]: pod for pod in found}

    def steps(self) -> list[str]:
        """Names of the steps' pods, the latest last."""
        found = self.listed("pods", f"pipeline/runid={self.id}")
        found.sort(key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        return [pod["metadata"]["name"] for pod in found if "-container-impl-" in pod["metadata"]["name"]]

    def log(self) -> str:
        """What the latest step has printed so far; empty until it runs."""
        try:
            return self.kubectl("logs", self.steps()[-1], "--container", "main")
        except (AssertionError, IndexError):
            return ""

    def stand_still(self) -> None:
        """Stop the step's process, which then hears no SIGTERM, as on a node that is gone."""
        self.kubectl("exec", self.steps()[-1], "--container", "main", "--", "python3", "-c", _STAND_STILL)

    def kill_processes(self, pod: str) -> None:
        """SIGKILL for what the first process of a job's pod has started."""
        self.kubectl("exec", pod, "--", "python3", "-c", _KILL)

    def trains(self) -> None:
        """Wait until the ranker has trained for some steps, and kept them."""

        def there() -> bool:
            assert not runs.has_ended(runs.get(self.there.api, self.id)), self.log()
            return self.log().count("validation at step") > 20

        until(there, "a training on its way")

    def ended(self) -> str:
        """Wait for the end; its state."""
        return runs.check(self.there.api, runs.wait(self.there.api, self.id, poll_s=2.0))


@contextlib.contextmanager
def drained(there: There, pod: Mapping[str, Any]) -> Iterator[None]:
    """Drain a pod's node of this pod; the node takes pods again at the end."""
    node, labels = pod["spec"]["nodeName"], pod["metadata"]["labels"]
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    words = ("--pod-selector", selector, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s")
    try:
        kubectl("drain", node, *words, namespace=there.namespace)
        yield
    finally:
        kubectl("uncordon", node, namespace=there.namespace)


def until(true: Callable[[], T], what: str, seconds: float = 300.0) -> T:
    """Wait for something, which is returned."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"no sign of {what} in {seconds:g} s"
        time.sleep(1.0)
    return found


def words(job: Mapping[str, Any]) -> dict[str, str]:
    """Option -> value of a job's command, for those that name a location."""
    (container,) = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    command = [*container.get("command", []), *container.get("args", [])]
    return {option[2:]: value for option, _, value in (word.partition("=") for word in command) if "://" in value}
