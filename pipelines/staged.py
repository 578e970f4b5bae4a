"""A pipeline root in an object store, for `kfp.local`, which knows local folders only.

As on a cluster, each step fetches its input artifacts from the store and sends its outputs there (`tritower.storage.staging`,
in the step's own subprocess or container), and artifacts are handed on by location. What stays on this machine is what
`kfp.local` needs to follow the run: each step's executor output (a few lines of JSON), the logs and the index of the cache.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tritower import storage
from tritower.storage import remote

_OPTION = "--executor_input"


def folder(root: str, parent: Path) -> Path:
    """The folder on this machine that belongs to a pipeline root in a store."""
    name = re.sub(r"\W+", "-", root).strip("-")[:60]
    return parent / f"{name}-{hashlib.sha256(root.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def steps(root: str, artifacts: Path) -> Iterator[None]:
    """While the block runs, what `kfp.local` believes to be under `artifacts` is under the location `root`."""
    from kfp.local import docker_task_handler, subprocess_task_handler

    handlers: list[Any] = [subprocess_task_handler.SubprocessTaskHandler, docker_task_handler.DockerTaskHandler]
    originals = [handler.run for handler in handlers]
    volumes = docker_task_handler.DockerTaskHandler.get_volumes_to_mount
    for handler, original in zip(handlers, originals, strict=True):
        handler.run = _staged(original, root, artifacts)
    docker_task_handler.DockerTaskHandler.get_volumes_to_mount = lambda *_: {}
    try:
        yield
    finally:
        docker_task_handler.DockerTaskHandler.get_volumes_to_mount = volumes
        for handler, original in zip(handlers, originals, strict=True):
            handler.run = original


def _staged(original: Any, root: str, artifacts: Path) -> Any:
    def run(handler: Any) -> Any:
        command = list(handler.full_command)
        at = command.index(_OPTION) + 1
        wanted = json.loads(command[at])
        result = wanted["outputs"]["outputFile"]
        wanted["outputs"] = _moved(wanted["outputs"], str(artifacts), root)
        command[at] = json.dumps(wanted)
        handler.full_command = ["python3", "-m", "tritower.child", "tritower.storage.staging", *command]
        status = original(handler)
        if status.name == "SUCCESS":
            storage.fetch(wanted["outputs"]["outputFile"], result)
        return status

    return run


def _moved(value: Any, old: str, new: str) -> Any:
    """A JSON value whose texts that are paths under `old` are under `new`."""
    if isinstance(value, dict):
        return {key: _moved(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, old, new) for item in value]
    return new + value.removeprefix(old) if isinstance(value, str) and value.startswith(f"{old}/") else value


def container_arguments(root: str, network: str) -> dict[str, Any]:
    """What containers need to reach the store: a network, where it is and the credentials, the file of a private CA."""
    from docker.types import Mount

    variables = remote.environment(root)
    files = [variables[name] for name in ("TRITOWER_S3_CA_FILE", "AWS_CA_BUNDLE") if name in variables]
    mounts = [Mount(target=file, source=file, type="bind", read_only=True) for file in sorted(set(files))]
    return {"network_mode": network, "environment": variables, "mounts": mounts}
