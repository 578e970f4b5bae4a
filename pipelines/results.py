"""The results of a run in a folder of the user's: only what tritower wrote there, and nobody changed since, is ever replaced.

Folders know by their manifest what is theirs; of files, `.tritower-results.json` beside them keeps the hashes. New results are
copied beside the old ones first; then all of them take their names, or none does.

A link to a folder in the folder's place is followed. A link in the place of a result is the user's: it is refused.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tritower import storage
from tritower.errors import ArtifactError, StorageError
from tritower.storage import atomic, manifest

NOTE = ".tritower-results.json"
_LOCATION = re.compile(r"(?:s3|minio|gs|https?|file):/", re.IGNORECASE)
_REMEDY = "Move it away, or name another folder by --out."


def check(out: Path, names: Iterable[str]) -> None:
    """Make the folder where there is none, and see that results may be written there.

    Args:
        out: the folder.
        names: the results, below it.

    Raises:
        StorageError: the folder cannot be written, or something in it would be overwritten that is not ours.
    """
    if _LOCATION.match(str(out)):
        raise StorageError("results go to a folder on this machine", where="--out", remedy="Name one; upload them from there.")
    folder = Path(os.path.realpath(out))
    if folder.exists() and not folder.is_dir():
        raise StorageError("there is a file in the folder's place", where=str(out), remedy=_REMEDY)
    with atomic.errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic.partial(folder / "results"):
            pass
        ours = _ours(folder)
        for name in names:
            if problem := _problem(folder / name, ours.get(name, [])):
                raise StorageError(problem, where=str(out / name), remedy=_REMEDY)


def deliver(out: Path, locations: Mapping[str, str]) -> list[Path]:
    """Copy artifacts to the folder: all of them, or the old ones stay.

    Args:
        out: the folder.
        locations: name of the result -> path or location of the artifact.

    Returns:
        The results, in the same order.

    Raises:
        StorageError: an artifact cannot be read, the disk is full, or something there is not ours.
        ArtifactError: an artifact is not what was written.
    """
    folder = Path(os.path.realpath(out))
    with atomic.errors(folder), atomic.partial(folder / "results") as stage:
        for name, location in locations.items():
            storage.fetch(location, stage / name)
        new = {name: [manifest.digest(stage / name)] for name in locations if (stage / name).is_file()}
        with atomic.locked(folder):
            check(out, locations)
            # Both are ours until the change is over: a kill in the middle makes nobody's files of them.
            old = _ours(folder)
            storage.write_json(folder / NOTE, old | {name: old.get(name, []) + hashes for name, hashes in new.items()})
            with _all_or_none() as swapped:
                for name in locations:
                    atomic.swap(stage / name, folder / name)
                    swapped.append((stage / name, folder / name))
            storage.write_json(folder / NOTE, old | new)
    return [out / name for name in locations]


@contextlib.contextmanager
def replaced(out: Path, name: str) -> Iterator[Path]:
    """Yield the name of a file that takes the place of a result when the block ends without an error, and is ours as well."""
    folder = Path(os.path.realpath(out))
    with storage.atomic_file(folder / name) as temporary:
        yield temporary
        ours = _ours(folder)
        storage.write_json(folder / NOTE, ours | {name: [*ours.get(name, []), manifest.digest(temporary)]})


@contextlib.contextmanager
def _all_or_none() -> Iterator[list[tuple[Path, Path]]]:
    """Take back every exchange (temporary name, name) of the list when the block fails."""
    swapped: list[tuple[Path, Path]] = []
    try:
        yield swapped
    except BaseException:
        for new, final in reversed(swapped):
            if new.exists():
                atomic.swap(new, final)
            else:
                final.rename(new)
        raise


def _ours(folder: Path) -> dict[str, list[str]]:
    """Name -> hashes of the files that tritower wrote there; nothing where the note is missing or damaged."""
    try:
        noted = storage.read_json(folder / NOTE)
        return {str(name): [str(one) for one in hashes] for name, hashes in noted.items()}
    except (StorageError, AttributeError, TypeError):
        return {}


def _problem(place: Path, hashes: list[str]) -> str:
    """Why what is at a result's place may not be replaced; empty where it may."""
    if place.is_symlink():
        return "there is a symbolic link in the result's place"
    if not place.exists():
        return ""
    if place.is_dir():
        return _folder_problem(place)
    return "" if manifest.digest(place) in hashes else "there is a file that tritower did not write, or that was changed since"


def _folder_problem(place: Path) -> str:
    if not (place / manifest.MARK).exists():
        return "there is a folder that tritower did not write" if any(place.iterdir()) else ""
    try:
        if manifest.read(place) is not None:
            manifest.check(place)
    except ArtifactError as error:
        return f"the folder was changed since tritower wrote it: {error.problem}: {error.where}"
    return ""
