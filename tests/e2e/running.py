"""Runs of the launched step on a real cluster, and what kubectl says of their jobs and pods."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class There:
    """A backend, the version published on it, the namespace of its pods, and a name that nobody else has."""

    api: Api
    version: versions.Version
    namespace: str
    name: str

    def start(self, config: dict[str, Any] | None = None, **cluster: Any) -> "Run":
        """A run of the launched ranker in two small pods."""
        arguments = {
            "features": os.environ["TRITOWER_E2E_FEATURES"],
            "embeddings": os.environ["TRITOWER_E2E_EMBEDDINGS"],
            "config": config or {},
            "cluster": {"nodes": 2, "cpu": "200m", "memory": "2Gi", **cluster},
        }
        return Run(self, runs.submit(self.api, self.version, arguments, experiment=self.name, name=self.name))


@dataclass(frozen=True)
class Run:
    """A run of it."""

    there: There
    id: str

    def kubectl(self, *words: str) -> str:
        command = ["kubectl", "--namespace", self.there.namespace, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert not done.returncode, done.stderr
        return done.stdout

    def listed(self, what: str, selector: str) -> list[dict[str, Any]]:
        return list(json.loads(self.kubectl("get", what, "--selector", selector, "--output", "json"))["items"])

    def jobs(self) -> list[dict[str, Any]]:
        return self.listed("pytorchjobs", f"tritower.dev/run={self.id}")

    def job(self) -> dict[str, Any]:
        (one,) = until(self.jobs, "a job")
        return one

    def pods(self) -> dict[str, dict[str, Any]]:
        """Role -> pod of the job."""
        (job,) = self.jobs() or [None]
        found = self.listed("pods", f"training.kubeflow.org/job-name={job['metadata']['name']}") if job else []
        return {pod["metadata"]["labels"]["training.kubeflow.org/replica-type"]: pod for pod in found}

    def launchers(self) -> list[str]:
        """Names of the step's pods, the latest last."""
        found = self.listed("pods", f"pipeline/runid={self.id}")
        found.sort(key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        return [pod["metadata"]["name"] for pod in found if "-container-impl-" in pod["metadata"]["name"]]

    def log(self) -> str:
        """What the step has printed so far; empty until it runs."""
        try:
            return self.kubectl("logs", self.launchers()[-1], "--container", "main")
        except (AssertionError, IndexError):
            return ""

    def stand_still(self) -> None:
        """Stop the step's process, which then hears no SIGTERM, as on a node that is gone."""
        self.kubectl("exec", self.launchers()[-1], "--container", "main", "--", "python3", "-c", _STAND_STILL)

    def trains(self) -> None:
        """Wait until it has trained for some steps, and kept them."""

        def there() -> bool:
            assert not runs.has_ended(runs.get(self.there.api, self.id)), self.log()
            return self.log().count("validation at step") > 20

        until(there, "a training on its way")

    def ended(self) -> str:
        """Wait for the end; its state."""
        return runs.check(self.there.api, runs.wait(self.there.api, self.id, poll_s=2.0))


def until(true: Callable[[], T], what: str, seconds: float = 300.0) -> T:
    """Wait for something, which is returned."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"no sign of {what} in {seconds:g} s"
        time.sleep(1.0)
    return found
