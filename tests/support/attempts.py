"""A step as a pod of a backend runs it: KFP's own executor, locations of a store as URIs, and a disk that nobody else has.

The launcher's part is played here: inputs are copied from the store to the paths that the executor derives from their URIs.
On a cluster these paths begin with /minio, here with a folder: another folder is another pod.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tritower import storage

from tests.support import family

_ENTRY = """
import sys
from kfp.dsl.types import artifact_types
artifact_types._MINIO_LOCAL_MOUNT_PREFIX = sys.argv.pop(1)
from kfp.dsl import executor_main
try:
    executor_main.executor_main()
finally:
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")), flush=True)
"""


@dataclass
class Step:
    """A task of a run: every pod that is started for it gets the same executor input."""

    component: Any
    """What `@component` made."""

    root: str
    """Where its outputs belong: minio://bucket/..."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    """Input artifact -> minio://bucket/..."""

    parameters: Mapping[str, Any] = field(default_factory=dict)

    def uri(self, output: str) -> str:
        """The location of an output artifact."""
        return f"{self.root}/{output}"

    def kept(self) -> list[str]:
        """The objects that stand beside the outputs, without the mark of a step that has begun."""
        return [name for name in storage.names(self.root) if "/." in name and not name.endswith("/begun")]

    def start(self, disk: Path, **environment: str) -> "Pod":
        """Start a pod with this disk, which must be empty."""
        disk.mkdir(parents=True)
        for uri in self.inputs.values():
            storage.fetch(uri, disk / uri.removeprefix("minio://"))
        container = self.component.component_spec.implementation.container
        module = disk / "ephemeral_component.py"
        module.write_text(container.command[-1])
        words = ["--component_module_path", str(module), "--executor_input", json.dumps(self._input(disk)), *container.args[2:]]
        own = {"_KFP_RUNTIME": "true", "TMPDIR": str(disk / "tmp"), "OMP_NUM_THREADS": "1", **family.mark()}
        (disk / "tmp").mkdir()
        log = disk / "log"
        with log.open("wb") as file:
            command = [sys.executable, "-c", _ENTRY, f"{disk}/", *words]
            popen = subprocess.Popen(
                command, env=os.environ | own | environment, stdout=file, stderr=file, start_new_session=True, cwd=disk
            )
        return Pod(popen, disk, {family.VARIABLE: own[family.VARIABLE]})

    def _input(self, disk: Path) -> dict[str, Any]:
        def artifact(name: str, uri: str) -> dict[str, Any]:
            return {"artifacts": [{"name": name, "type": {"instanceSchema": ""}, "uri": uri, "metadata": {}}]}

        outputs = self.component.component_spec.outputs or {}
        names = [name for name, one in outputs.items() if "system." in one.type]
        parameters = {name: {"outputFile": str(disk / "parameters" / name)} for name in outputs.keys() - set(names)}
        return {
            "inputs": {
                "artifacts": {name: artifact(name, uri) for name, uri in self.inputs.items()},
                "parameterValues": dict(self.parameters),
            },
            "outputs": {
                "artifacts": {name: artifact(name, self.uri(name)) for name in names},
                "parameters": parameters,
                "outputFile": str(disk / "executor_output.json"),
            },
        }


@dataclass
class Pod:
    """A pod that was started."""

    popen: "subprocess.Popen[bytes]"
    disk: Path
    mark: dict[str, str]

    def __enter__(self) -> "Pod":
        return self

    def __exit__(self, *_: object) -> None:
        family.end(self.mark)
        self.popen.wait()

    def path(self, uri: str) -> Path:
        """Where an artifact is on this disk."""
        return self.disk / uri.removeprefix("minio://")

    def log(self) -> str:
        """What its processes printed."""
        return (self.disk / "log").read_text(errors="replace")

    @property
    def peak_mib(self) -> float:
        """MiB of memory that the step's own process held at most, once it has ended by itself."""
        return int(re.findall(r"VmHWM:\s+(\d+) kB", self.log())[-1]) / 1024

    def end(self, number: int) -> None:
        """Send a signal to the step's own process, as the kubelet does; whatever it started must go with it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.popen.pid, number)
        self.popen.wait()
        family.assert_gone(self.mark)

    def succeeds(self, timeout_s: float = 200) -> "Pod":
        """Wait for its end, which must be a good one."""
        assert self.popen.wait(timeout_s) == 0, self.log()
        return self
