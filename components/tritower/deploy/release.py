"""What is to serve: a bundle at its location, read as far as a deployer must know it."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritower import storage
from tritower.errors import ArtifactError, ConfigError

MANIFEST, QUESTIONS = "bundle.json", "questions/questions.json"
_ANY = ({"query": "", "k": 3},)


@dataclass(frozen=True, kw_only=True)
class Release:
    """A version.

    Attributes:
        bundle: location that every pod can open.
        version: the bundle's hash, by which its server calls itself.
        questions: searches that it must answer, as POST /rank takes them.
    """

    bundle: str
    version: str
    questions: Sequence[Mapping[str, Any]] = _ANY


def read(bundle: str, questions: Sequence[Mapping[str, Any]] = ()) -> Release:
    """The release of a bundle.

    Args:
        bundle: its location.
        questions: in place of the bundle's own.

    Raises:
        ConfigError: the location is a path of this machine.
        StorageError: there is none.
        ArtifactError: its manifest is damaged.
    """
    if storage.is_local(bundle):
        raise ConfigError("the bundle is at a path of this machine: no pod can open it", where=bundle,
                          remedy="Keep it in an object store.")  # fmt: skip
    place = bundle.rstrip("/")
    with tempfile.TemporaryDirectory(prefix="bundle-") as scratch:
        manifest = storage.read_json(storage.fetch(f"{place}/{MANIFEST}", Path(scratch) / MANIFEST))
        found = list(questions)
        if not found and "questions" in manifest.get("parts", {}):
            found = storage.read_json(storage.fetch(f"{place}/{QUESTIONS}", Path(scratch) / "questions.json"))
    return Release(bundle=place, version=version(manifest, f"{place}/{MANIFEST}"), questions=tuple(found) or _ANY)


def version(manifest: Mapping[str, Any], where: str = MANIFEST) -> str:
    """The bundle's hash: over its parts' names and hashes, as `serving.bundle` has it."""
    try:
        parts = {name: str(one["sha256"]) for name, one in manifest["parts"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        remedy = "Make the bundle again (python -m tritower.serving bundle)."
        raise ArtifactError(f"the manifest is damaged: {error!r}", where=where, remedy=remedy) from None
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
