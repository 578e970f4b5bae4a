"""Work on locations of any scheme: fetch inputs, do the work on local paths, send outputs.

`staged` does so for whoever asks. As a program it runs one step of KFP's whose artifacts are in an object store:

    python -m tritower.storage.staging sh -c ... --executor_input '{...}' ...

KFP's launcher does this in a pod; here it is done wherever a step runs by itself, in a subprocess or in a container that sees
nothing but the network. The step works in a scratch folder, whose paths stand in its executor input instead of the
locations. The executor output, sent last, names the locations again: it is there only when everything else is.
"""

import contextlib
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritower import child, logs, processes, storage
from tritower.errors import TritowerError
from tritower.processes import Node
from tritower.storage import keeping, manifest

logger = logging.getLogger(__name__)
LOCATION = "location"
"""Metadata of an input artifact of a step: where it was fetched from."""
_OPTION = "--executor_input"
_ALONE = Node()


@dataclass(frozen=True)
class Staged:
    """Local paths by name; `folder` is a temporary one that the processes of a node share."""

    folder: Path
    paths: Mapping[str, Path]

    def __getitem__(self, name: str) -> Path:
        """The path of an input or output."""
        return self.paths[name]


@contextlib.contextmanager
def staged(inputs: Mapping[str, str], outputs: Mapping[str, str], *, node: Node = _ALONE) -> Iterator[Staged]:
    """Local paths for locations while the block runs, the same in all processes of a node; once in a process of torchrun.

    What is on this machine is used where it is, what is in a store is fetched first; folders are held against their manifests.
    An output is sent when the block ends without an error, from the node where it was written.

    Args:
        inputs: name -> location of a file or folder; an empty location is none.
        outputs: name -> location, likewise.
        node: this process and its neighbours.

    Raises:
        StorageError: an input is not there, or the store fails.
        ArtifactError: an input is not what was written.
    """
    with node.folder("staged") as folder:
        remote = {
            name: folder / side / name
            for side, locations in (("inputs", inputs), ("outputs", outputs))
            for name, location in locations.items()
            if _remote(location)
        }

        def fetch() -> str:
            manifest.check(
                *(storage.local_path(location) for name, location in inputs.items() if location and name not in remote)
            )
            fetched = [name for name in inputs if name in remote]
            if fetched:
                with logs.phase(logger, "fetch inputs") as counts:
                    for name in fetched:
                        storage.fetch(inputs[name], remote[name])
                    counts["bytes"] = sum(_size(remote[name]) for name in fetched)
            return ""

        node.once("inputs", fetch)
        named = {name: location for name, location in {**inputs, **outputs}.items() if location}
        local = {name: storage.local_path(location) for name, location in named.items() if name not in remote}
        yield Staged(folder, local | remote)
        written = [name for name in outputs if name in remote and remote[name].exists()]
        if written and not node.local_rank:
            with logs.phase(logger, "send outputs") as counts:
                counts["bytes"] = sum(_size(remote[name]) for name in written)
                for name in written:
                    storage.upload(remote[name], outputs[name])


@contextlib.contextmanager
def sent(location: str) -> Iterator[Path]:
    """A path to write one file to, which is at `location` when the block has ended without an error."""
    with tempfile.TemporaryDirectory(prefix="sent-") as scratch:
        file = Path(scratch) / location.rpartition("/")[2]
        yield file
        if _remote(location):
            storage.upload(file, location)
        else:
            storage.fetch(file, storage.local_path(location))


def run(command: list[str]) -> None:
    """Run a step's command with its artifacts in a scratch folder; nothing is sent when it fails.

    Args:
        command: a command of KFP's, with the executor input (JSON) after `--executor_input`.

    Raises:
        StorageError: an input is not there, or the store fails.
        TritowerError: what the step raised.
    """
    at = command.index(_OPTION) + 1
    given = json.loads(command[at])
    outputs = given["outputs"]
    inputs = _artifacts(given.get("inputs", {}))
    made = {name: artifact for name, artifact in _artifacts(outputs).items() if _remote(artifact["uri"])}
    locations = {f"input-{name}": artifact["uri"] for name, artifact in inputs.items() if _remote(artifact["uri"])}
    wanted = {name: artifact["uri"] for name, artifact in made.items()}
    with tempfile.TemporaryDirectory(prefix="step-") as scratch:
        result, result_uri = Path(scratch) / "executor_output.json", outputs["outputFile"]
        with staged(locations, wanted) as places:
            for name, artifact in inputs.items():
                if f"input-{name}" in locations:
                    artifact["metadata"] = {**artifact.get("metadata", {}), LOCATION: artifact["uri"]}
                    artifact["uri"] = str(places[f"input-{name}"])
            for name, artifact in made.items():
                artifact["uri"] = str(places[name])
            for name, parameter in outputs.get("parameters", {}).items():
                parameter["outputFile"] = str(Path(scratch) / "parameters" / name)
            outputs["outputFile"] = str(result)
            named = {str(places[name]): uri for name, uri in wanted.items()}
            words = processes.program(*command[:at], json.dumps(given), *command[at + 1 :])
            with processes.started(words, environment={keeping.ARTIFACTS: json.dumps(named)}) as step:
                if step.popen.wait():
                    raise step.failure()
        storage.write_json(result, _named(storage.read_json(result), named))
        storage.upload(result, result_uri)


def _artifacts(part: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> artifact of one side of an executor input; lists of artifacts get numbered names."""
    return {
        name if not i else f"{name}-{i}": artifact
        for name, listed in part.get("artifacts", {}).items()
        for i, artifact in enumerate(listed["artifacts"])
    }


def _remote(uri: str) -> bool:
    return bool(uri) and not storage.is_local(uri)


def _size(place: Path) -> int:
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _named(result: dict[str, Any], locations: dict[str, str]) -> dict[str, Any]:
    """An executor output with locations in place of scratch paths."""
    for artifact in _artifacts(result).values():
        artifact["uri"] = locations.get(artifact["uri"], artifact["uri"])
    return result


def main() -> int:
    """Command line: everything after the module's name is the step's command."""
    logs.setup()
    try:
        run(sys.argv[1:])
    except TritowerError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        child.report(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
