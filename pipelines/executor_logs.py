"""The logs of steps that a backend's launcher kept in the object store, for when the pod is gone.

The launcher uploads each step's output, also of a step that failed, as the artifact `executor-logs` (`executor-logs-1` from the
second attempt on): `<pipeline root>/<pipeline>/<run id>/<task>/<id>/executor-logs`.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritower import storage
from tritower.errors import TritowerError

DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"
_NAME = "executor-logs"
_KEPT_BYTES = 1 << 20


def place(run: Mapping[str, Any], task: str) -> str:
    """Where the artifacts of a run's task are: under the run's own pipeline root, else the pipeline's, else the default."""
    given = run.get("pipeline_spec") or {}
    spec = given.get("pipeline_spec", given)
    root = (run.get("runtime_config") or {}).get("pipeline_root") or spec.get("defaultPipelineRoot") or DEFAULT_ROOT
    name = spec.get("pipelineInfo", {}).get("name", "")
    return f"{root.partition('?')[0].rstrip('/')}/{name}/{run['run_id']}/{task}"


def read(run: Mapping[str, Any], task: str) -> str:
    """The end of the log of a task's last attempt; empty where the store or its keys are not at hand, or it has none."""
    where = place(run, task)
    try:
        logs = [location for location in storage.list_files(where) if location.rpartition("/")[2].startswith(_NAME)]
        if not logs:
            return ""
        last = max(logs, key=lambda location: (len(location), location))
        with tempfile.TemporaryDirectory() as folder:
            path = storage.fetch(last, Path(folder) / "log")
            return path.read_bytes()[-_KEPT_BYTES:].decode("utf-8", errors="replace")
    except TritowerError:
        return ""
