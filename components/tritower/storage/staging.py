"""Run one step whose artifacts are in an object store: fetch its inputs, run it, send its outputs.

    python -m tritower.storage.staging sh -c ... --executor_input '{...}' ...

KFP's launcher does this in a pod; here it is done wherever a step runs by itself, in a subprocess or in a container that sees
nothing but the network. The step works in a scratch folder, whose paths stand in its executor input instead of the
locations. The executor output, sent last, names the locations again: it is there only when everything else is.
"""

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from tritower import child, logs, processes, storage
from tritower.errors import TritowerError

logger = logging.getLogger(__name__)
_OPTION = "--executor_input"


def run(command: list[str], scratch: Path) -> None:
    """Run a step's command with its artifacts in `scratch`; nothing is sent when it fails.

    Args:
        command: a command of KFP's, with the executor input (JSON) after `--executor_input`.
        scratch: an empty folder.

    Raises:
        StorageError: an input is not there, or the store fails.
        TritowerError: what the step raised.
    """
    at = command.index(_OPTION) + 1
    given = json.loads(command[at])
    outputs = given["outputs"]
    places = {artifact["uri"]: scratch / "outputs" / name for name, artifact in _artifacts(outputs) if _remote(artifact["uri"])}
    result, result_uri = scratch / "executor_output.json", outputs["outputFile"]
    with logs.phase(logger, "fetch inputs") as counts:
        counts["bytes"] = sum(
            _fetch(artifact, scratch / "inputs" / name) for name, artifact in _artifacts(given.get("inputs", {}))
        )
    for _, artifact in _artifacts(outputs):
        artifact["uri"] = str(places.get(artifact["uri"], artifact["uri"]))
    for name, parameter in outputs.get("parameters", {}).items():
        parameter["outputFile"] = str(scratch / "parameters" / name)
    outputs["outputFile"] = str(result)
    with processes.started(processes.program(*command[:at], json.dumps(given), *command[at + 1 :])) as step:
        if step.popen.wait():
            raise step.failure()
    with logs.phase(logger, "send outputs") as counts:
        counts["bytes"] = 0
        for uri, place in places.items():
            if place.exists():
                counts["bytes"] += _size(place)
                storage.upload(place, uri)
    storage.write_json(result, _named(storage.read_json(result), {str(place): uri for uri, place in places.items()}))
    storage.upload(result, result_uri)


def _artifacts(part: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(name, artifact) of one side of an executor input; lists of artifacts get numbered names."""
    return [
        (name if not i else f"{name}-{i}", artifact)
        for name, listed in part.get("artifacts", {}).items()
        for i, artifact in enumerate(listed["artifacts"])
    ]


def _remote(uri: str) -> bool:
    return bool(uri) and not storage.is_local(uri)


def _fetch(artifact: dict[str, Any], place: Path) -> int:
    """Fetch an input and write its place into the artifact; its bytes. What is on this machine stays where it is."""
    if not _remote(artifact["uri"]):
        return 0
    storage.fetch(artifact["uri"], place)
    artifact["uri"] = str(place)
    return _size(place)


def _size(place: Path) -> int:
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _named(result: dict[str, Any], locations: dict[str, str]) -> dict[str, Any]:
    """An executor output with locations in place of scratch paths."""
    for _, artifact in _artifacts(result):
        artifact["uri"] = locations.get(artifact["uri"], artifact["uri"])
    return result


def main() -> int:
    """Command line: everything after the module's name is the step's command."""
    logs.setup()
    with tempfile.TemporaryDirectory(prefix="step-") as scratch:
        try:
            run(sys.argv[1:], Path(scratch))
        except TritowerError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            child.report(error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
