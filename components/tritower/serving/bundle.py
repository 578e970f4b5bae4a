"""What a server loads: a folder of parts, and one manifest that says what each part is and which identities it claims.

bundle.json   {"format", "code_version", "parts": {name: {"sha256", "files": {file: {"bytes", "sha256"}}, "claims": {...}}}}
ranker/       the ranker without torch (`ranker.export`)
documents/    the document towers of the catalogue (`ranker.documents`)
encoder/      the text encoder without torch: graphs, tokeniser, encoder.json (`encoding.py`)
dataset/      the catalogue: jobs, users and texts as ingest numbers them, without descriptions and without the log
embeddings/   the vectors of these texts
entities/     the entities of these texts; absent where the model has no entity features
state/        the features' state after the last event
index/        the index that jobs are retrieved from (`recommend.index`)
clicks/       who clicked what after which query (`recommend.clicks`)
baseline/     a rival whose order can be shown beside the model's; optional
resident/     what follows from the others, as arrays that processes map and share (`resident.py`); optional

A claim is what a part's own files say of what it was made with: `model`, `encoder` and `dataset` are hashes. Two parts that
claim another value of the same kind were never made together, so such a bundle is refused.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritower import __version__, storage
from tritower.errors import ArtifactError, StorageError
from tritower.storage import manifest

FORMAT = 2
READS = (FORMAT - 1, FORMAT)
"""Formats that this version loads: its own and the one before, whose encoder has no graph in int8."""
MANIFEST = "bundle.json"
NEEDED = ("ranker", "documents", "encoder", "dataset", "embeddings", "index", "clicks", "state")
AGAIN = "Make the bundle again (python -m tritower.serving bundle), or copy it again."


def _model(facts: Mapping[str, Any]) -> dict[str, str]:
    return {"model": str(facts["model"])}


_CLAIMS: dict[str, tuple[str, Callable[[Mapping[str, Any]], dict[str, str]]]] = {
    "ranker": ("join.json", lambda facts: {**_model(facts), "encoder": str(facts["encoder"]["hash"])}),
    "documents": ("documents.json", lambda facts: {**_model(facts), "encoder": str(facts["encoder"])}),
    "encoder": ("encoder.json", lambda facts: {"encoder": str(facts["encoder"])}),
    "dataset": ("dataset.json", lambda facts: {"dataset": str(facts["fingerprint"])}),
    "embeddings": ("encoder.json", lambda facts: {"encoder": str(facts["hash"]), "dataset": str(facts["dataset"])}),
    "entities": ("entities.json", lambda facts: {"dataset": str(facts["dataset"])}),
    "index": ("index.json", lambda facts: {"dataset": str(facts["dataset"]), "encoder": str(facts["encoder"])}),
    "clicks": ("clicks.json", lambda facts: {"dataset": str(facts["dataset"]), "encoder": str(facts["encoder"])}),
    "state": ("state.json", lambda facts: {"encoder": str(facts["encoder"])}),
}
"""Part -> the file that tells its claims, and how to read them from it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One folder of the bundle.

    Attributes:
        sha256: over the names and hashes of its files.
        files: name -> bytes and sha256.
        claims: kind -> hash.
    """

    sha256: str
    files: Mapping[str, Mapping[str, Any]]
    claims: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that was read and found whole.

    Attributes:
        folder: where it lies.
        sha256: of all parts: the bundle's version.
        parts: by name.
    """

    folder: Path
    sha256: str
    parts: Mapping[str, Part]

    def path(self, part: str) -> Path | None:
        """The folder of a part; None where the bundle has no such part."""
        return self.folder / part if part in self.parts else None

    def needed(self, part: str) -> Path:
        """The folder of a part that every bundle has."""
        return self.folder / part

    def claimed(self, kind: str) -> str:
        """The hash of a kind, on which all parts agree; empty where none claims it."""
        return next((part.claims[kind] for part in self.parts.values() if kind in part.claims), "")


def write(folder: Path) -> Bundle:
    """Write the manifest of a folder that holds all parts.

    Raises:
        ArtifactError: a part is missing, or parts were not made with each other.
    """
    parts = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = _files(place)
        parts[place.name] = Part(sha256=_digest(files), files=files, claims=_claims(place))
    _check_together(parts, str(folder))
    facts = {name: {"sha256": one.sha256, "files": one.files, "claims": one.claims} for name, one in parts.items()}
    storage.write_json(folder / MANIFEST, {"format": FORMAT, "code_version": __version__, "parts": facts})
    return Bundle(folder=folder, sha256=_identity(parts), parts=parts)


def part_hash(place: Path) -> str:
    """What the manifest will say of a part."""
    return _digest(_files(place))


def _files(place: Path) -> dict[str, dict[str, Any]]:
    return {
        name: {"bytes": path.stat().st_size, "sha256": manifest.digest(path)} for name, path in manifest.files(place).items()
    }


def read(folder: Path) -> Bundle:
    """Read a bundle's manifest and check every byte of its parts.

    Raises:
        StorageError: there is no bundle, or this user may not read it.
        ArtifactError: its format is another, a part is missing, damaged or not made with the others; the message names it.
    """
    where = folder / MANIFEST
    if not where.exists():
        raise StorageError("this is no bundle: the manifest is missing", where=str(where), remedy=AGAIN)
    facts = storage.read_json(where)
    try:
        found = int(facts["format"])
        if found not in READS:
            raise ArtifactError(_other_format(found), where=str(where), remedy=AGAIN)
        parts = {
            name: Part(sha256=str(one["sha256"]), files=dict(one["files"]), claims=dict(one["claims"]))
            for name, one in facts["parts"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"the manifest is damaged: {error!r}", where=str(where), remedy=AGAIN) from None
    for name, part in parts.items():
        _check_part(folder / name, name, part)
    _check_together(parts, str(folder))
    return Bundle(folder=folder, sha256=_identity(parts), parts=parts)


def _other_format(found: int) -> str:
    newer = found > FORMAT
    which = f"newer than this server's, {FORMAT}" if newer else f"too old for this server, which reads {READS[0]} and {FORMAT}"
    return f"the bundle has format {found}, {which}"


def _check_part(place: Path, name: str, part: Part) -> None:
    """Compare the files of a part with the manifest, and its claims with its files."""
    if not place.is_dir():
        raise ArtifactError(f"the part {name!r} is missing", where=str(place), remedy=AGAIN)
    there = manifest.files(place)
    if differ := sorted(there.keys() ^ part.files.keys()):
        what = "misses the file" if differ[0] in part.files else "has a file of another origin"
        raise ArtifactError(f"the part {name!r} {what}", where=str(place / differ[0]), remedy=AGAIN)
    for file, facts in part.files.items():
        if there[file].stat().st_size != facts["bytes"] or manifest.digest(there[file]) != facts["sha256"]:
            problem = f"the part {name!r} is damaged: a file is not what was written"
            raise ArtifactError(problem, where=str(place / file), remedy=AGAIN)
    if _digest(part.files) != part.sha256 or _claims(place) != dict(part.claims):
        problem = f"the manifest is not that of the part {name!r}"
        raise ArtifactError(problem, where=str(place), remedy=AGAIN)


def _claims(place: Path) -> dict[str, str]:
    """What the part's own files say it was made with."""
    if place.name not in _CLAIMS:
        return {}
    file, read_it = _CLAIMS[place.name]
    facts = storage.read_json(place / file)
    try:
        return read_it(facts)
    except (KeyError, TypeError) as error:
        problem = f"the part {place.name!r} does not say what it was made with: {error!r} is missing"
        raise ArtifactError(problem, where=str(place / file), remedy=AGAIN) from None


def _check_together(parts: Mapping[str, Part], where: str) -> None:
    """Refuse a bundle that lacks a part, or whose parts were not made with each other."""
    for name in NEEDED:
        if name not in parts:
            raise ArtifactError(f"the part {name!r} is missing", where=where, remedy=AGAIN)
    first: dict[str, tuple[str, str]] = {}
    for name, part in parts.items():
        for kind, value in part.claims.items():
            other, theirs = first.setdefault(kind, (name, value))
            if theirs != value:
                problem = f"the parts {other!r} and {name!r} are of different runs: {kind} {theirs} and {value}"
                raise ArtifactError(problem, where=where, remedy="Make the bundle of the outputs of one training run.")


def _digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    return _hash({name: one["sha256"] for name, one in files.items()})


def _identity(parts: Mapping[str, Part]) -> str:
    return _hash({name: part.sha256 for name, part in parts.items()})


def _hash(value: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
