"""The cache of a run on this machine: a finished step is taken from an earlier run when nothing that it depends on has changed.

`kfp.local` asks its cache for a key before each step, looks the key up, and stores the step's outputs when it ends. `StepCache`
stands in its place:

* The key also holds the version of the step's code and the content behind every location among its arguments: parameters,
  knobs, imported artifacts. Folders in which steps keep things (`KEPT`) are no input.
* An entry is one file, `cache/<key>.json`, written when the step ends, under a temporary name until it is on the disk.
  A kill or a loss of power costs the step that was running. Runs on one root at one time only add entries.
* An entry promises files: size, SHA-256, and a stamp (inode, times of modification and of change). Before it is used, each file
  must have its stamp, or else its size and hash: a deleted, emptied or altered artifact is a miss. Objects in a store are known
  by size and time of modification.
* An entry that cannot be read or does not hold is a miss with a line of warning; it is never deleted, the step that runs again
  replaces it. A store that does not answer therefore costs no entry.
"""

import contextlib
import hashlib
import json
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kfp import dsl
from kfp.local import cache as kfp_cache
from tritower import storage
from tritower.errors import StorageError, TritowerError
from tritower.storage import manifest

from pipelines import version

KEPT = frozenset({"scratch", "cache", "checkpoints", "tensorboard", "storage"})
"""Knobs that name a place where a step keeps something: no input, whatever it holds."""
_FORMAT = 1


@contextlib.contextmanager
def used(cache: "StepCache | None") -> Iterator[None]:
    """While the block runs, `kfp.local` asks this cache; None for none."""
    original = kfp_cache.get_local_cache
    kfp_cache.get_local_cache = lambda: cache
    try:
        yield
    finally:
        kfp_cache.get_local_cache = original


class StepCache(kfp_cache.LocalCache):  # type: ignore[misc]
    """See above.

    Args:
        root: folder of the entries.
        artifacts: path or location below which steps write their artifacts.
        versions: component name -> version of its code.
    """

    def __init__(self, root: Path, artifacts: str, versions: Mapping[str, str]) -> None:
        super().__init__(str(root))
        self._artifacts, self._versions = artifacts.rstrip("/"), versions
        self._steps: dict[str, dict[str, Any]] = {}

    def compute_key(self, component_name: str, *others: Any, **more: Any) -> str:
        """The key of a step with these arguments, as things are now."""
        arguments = more.get("arguments", others[2] if len(others) > 2 else {})
        name = component_name.removeprefix("comp-")
        try:
            inputs = {place: self._content(place) for place in sorted(set(self._places(arguments)))}
        except (OSError, StorageError) as error:
            _warn(name, f"its input cannot be read: {error}")
            inputs = {"unknown": uuid.uuid4().hex}
        about = {"component": name, "code": self._versions.get(name, ""), "inputs": inputs}
        asked = super().compute_key(component_name, *others, **more)
        key = hashlib.sha256(_text([asked, about]).encode()).hexdigest()
        self._steps[key] = about
        return key

    def get(self, key: str) -> dict[str, Any] | None:
        """The outputs of a finished step; None when there are none, or they are no longer what they were."""
        name = self._steps.get(key, {}).get("component", key[:12])
        try:
            entry = _read(Path(self._entry_path(key)))
            if entry is None:
                return None
            for uri, promised in entry["files"].items():
                if problem := _broken(uri, promised):
                    _warn(name, problem)
                    return None
            outputs: dict[str, Any] = self._deserialize_outputs(entry["outputs"])
        except TritowerError as error:
            _warn(name, str(error))
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _warn(name, f"the entry {self._entry_path(key)} is damaged ({type(error).__name__}: {error})")
            return None
        return outputs

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        """Store what a step made; the files and the entry are on the disk when this returns."""
        about = self._steps.get(key, {})
        try:
            files = {uri: promise for uri in _uris(outputs) if (promise := _promise(uri)) is not None}
            if len(files) < len(set(_uris(outputs))):
                return  # an output without a file: kfp would not take it from a cache either
            for uri in files:
                self._sync_names(uri)
            entry = {"format": _FORMAT, **about, "outputs": self._serialize_outputs(outputs), "files": files}
            entry = json.loads(_text(entry))
            storage.write_json(self._entry_path(key), entry | {"digest": _digest(entry)})
        except (OSError, ValueError) as error:
            _warn(about.get("component", key[:12]), f"it will have to run again next time: {error}", what="not stored")

    def _content(self, place: str) -> str:
        """Changes with what is at a location; what a step of ours wrote there is known by its manifest."""
        folder = storage.local_path(place) if storage.is_local(place) else None
        if folder and folder.is_dir() and not any(folder.iterdir()):
            return "empty"
        if folder and place.startswith(f"{self._artifacts}/") and (folder / manifest.MARK).is_file():
            return manifest.digest(folder / manifest.MARK)
        return version.of_location(place)

    def _places(self, value: Any, name: str = "") -> Iterator[str]:
        """Every location among a step's arguments that is an input and not an artifact of ours, which is known by its name."""
        if isinstance(value, dsl.Artifact):
            if value.uri and not value.uri.startswith(f"{self._artifacts}/"):
                yield value.uri
        elif isinstance(value, Mapping):
            for key, item in value.items():
                yield from self._places(item, str(key))
        elif isinstance(value, list | tuple):
            for item in value:
                yield from self._places(item, name)
        elif isinstance(value, str) and name.rpartition(".")[2] not in KEPT and _is_place(value):
            yield value

    def _sync_names(self, uri: str) -> None:
        """Put the names of the folders above an artifact on the disk."""
        if storage.is_local(uri):
            above = Path(uri).parent
            while str(above).startswith(self._artifacts):
                manifest.sync_folder(above)
                above = above.parent


def numbers(root: Path, key: str) -> list[dict[str, Any]]:
    """The metadata of the artifacts of an entry, by the first digits of its key."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        for place in root.glob(f"{key}*.json"):
            entry = json.loads(place.read_text(encoding="utf-8"))
            return [output["metadata"] for output in entry["outputs"].values() if isinstance(output, dict)]
    return []


def _is_place(text: str) -> bool:
    if "://" in text:
        return not any(character.isspace() for character in text)
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):
        return False


def _read(place: Path) -> dict[str, Any] | None:
    """A whole entry; None where there is none.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is torn, or of another format.
    """
    try:
        entry: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    digest = entry.pop("digest")
    if digest != _digest(entry) or entry["format"] != _FORMAT:
        raise ValueError("its digest does not fit")
    return entry


def _uris(outputs: Mapping[str, Any]) -> Iterator[str]:
    for output in outputs.values():
        for one in output if isinstance(output, list) else [output]:
            if isinstance(one, dsl.Artifact):
                yield one.uri


def _promise(uri: str) -> dict[str, dict[str, Any]] | None:
    """What is at an artifact: name -> size, hash and stamp of each file; None where nothing is."""
    if not storage.is_local(uri):
        return _objects(uri)
    place = Path(uri)
    if not place.exists():
        return None
    # A folder's manifest was made from the same bytes a moment ago, and put them on the disk.
    known = (manifest.read(place) or {}) if place.is_dir() else {}
    found = {}
    for name, file in _files(place).items():
        size = file.stat().st_size
        is_known = name in known and known[name]["bytes"] == size
        sha256 = known[name]["sha256"] if is_known else manifest.digest(file, sync=True)
        found[name] = {"bytes": size, "sha256": sha256, "stamp": _stamp(file)}
    return found


def _objects(uri: str) -> dict[str, dict[str, Any]]:
    listed = {name.removeprefix(uri).lstrip("/"): info for name, info in storage.listing(uri)}
    return {name: {"bytes": info.size, "stamp": str(info.mtime_ns)} for name, info in listed.items()}


def _broken(uri: str, promised: Mapping[str, Mapping[str, Any]]) -> str:
    """What is wrong with an artifact that an entry promises; empty where nothing is."""
    if not storage.is_local(uri):
        there = _objects(uri)
        differing = sorted(name for name in there.keys() | promised.keys() if there.get(name) != promised.get(name))
        return f"{uri}/{differing[0]} is not what the step wrote" if differing else ""
    place = Path(uri)
    if not place.exists():
        return f"{place} is gone"
    files = _files(place)
    for name in sorted(files.keys() | promised.keys()):
        shown = place / name if name else place
        if name not in files:
            return f"{shown} is gone"
        if name not in promised:
            return f"{shown} was added"
        if _stamp(files[name]) != promised[name]["stamp"] and (
            files[name].stat().st_size != promised[name]["bytes"] or manifest.digest(files[name]) != promised[name]["sha256"]
        ):
            return f"{shown} was altered"
    return ""


def _files(place: Path) -> dict[str, Path]:
    """The files of an artifact by name, the manifest among them; a file alone has no name."""
    if not place.is_dir():
        return {"": place}
    mark = place / manifest.MARK
    return manifest.files(place) | ({manifest.MARK: mark} if mark.exists() else {})


def _stamp(file: Path) -> str:
    """Changes with every write to a file, and with every copy of it: nobody but the system sets the time of change."""
    found = file.stat()
    return f"{found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}"


def _digest(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(entry).encode()).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True)


def _warn(step: str, problem: str, *, what: str = "not taken from the cache") -> None:
    line = " ".join(problem.split())
    print(f"Warning: {step} is {what}: {line}", file=sys.stderr, flush=True)
