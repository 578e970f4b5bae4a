"""What runs left under a root that nobody needs any more: find it, say it, remove it.

Only what runs of our pipelines made is looked at, by its name below the root; anybody else's files are never touched:

    [artifacts/]<pipeline>-<time>/           a run of `kfp.local`
    [v2/artifacts/]<pipeline>/<run id>/      a run of a Kubeflow backend
    checkpoints/<name>/                      what an interrupted training would go on from

A run goes when it is old enough, when enough newer ones of its pipeline stay, and when neither a pointer (`champion.json`) nor
the results of a run that stays name anything in it. A run that is under way is too young. Killed on the way, the next call goes
on: a folder of this machine is there or gone for its readers; of a run in a store a part is left, as old as the run was.
"""

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from tritower import storage
from tritower.champion import kept
from tritower.errors import ConfigError, of_system

from pipelines import steps

_GONE, _NOTES, _CHECKPOINTS = ".removed", "runs", "checkpoints"
_DAY_S = 86_400.0
_UNITS = {"d": 1, "w": 7}


@dataclass(frozen=True, kw_only=True)
class Left:
    """What a run, or an interrupted training, left: one folder below the root."""

    kind: str
    """The pipeline, or `checkpoints`."""

    folder: str
    """Path below the root."""

    files: int
    bytes: int

    newest_s: float
    """When its newest file was written, seconds since 1970."""

    kept_for: str = ""
    """Why it stays; empty where it may go."""


@dataclass(frozen=True)
class Named:
    """A location that must stay, and who says so."""

    location: str
    by: str


def plan(root: str, *, older_s: float, keep: int, named: Iterable[Named] = (), now_s: float | None = None) -> list[Left]:
    """Everything that runs left under a root, oldest first, with the reason why it stays where it does.

    Args:
        root: of the runs: a folder, or a location in a store.
        older_s: what is younger stays, in seconds; at least a day.
        keep: so many of the newest runs of each pipeline stay, at least 1.
        named: locations that stay.
        now_s: the time, seconds since 1970; None for the clock's.

    Raises:
        ConfigError: a number is out of range.
        StorageError: nothing is there, or it cannot be read.
    """
    if keep < 1:
        raise ConfigError(f"{keep} runs are to stay", where="--keep", remedy="Give 1 or more.")
    if older_s < _DAY_S:
        raise ConfigError("runs under way could be removed", where="--older", remedy="Give a day or more, such as 30d.")
    found = sorted(_found(root), key=lambda one: (one.newest_s, one.folder))
    limit_s = (time.time() if now_s is None else now_s) - older_s
    named = list(named)
    newest: dict[str, int] = {}
    planned = []
    for one in reversed(found):
        newest[one.kind] = newest.get(one.kind, 0) + 1
        if by := named_by(root, one.folder, named):
            why = f"named by {by}"
        elif one.newest_s > limit_s:
            why = "young"
        elif one.kind != _CHECKPOINTS and newest[one.kind] <= keep:
            why = f"one of the newest {keep}"
        else:
            why = ""
        planned.append(replace(one, kept_for=why))
    return planned[::-1]


def pointers(root: str, others: Iterable[str] = ()) -> list[str]:
    """Roots of the pointers below a root of runs, and of others that must be there.

    Raises:
        ConfigError: there is no pointer at one of the others.
        StorageError: the root cannot be read.
    """
    files = (place for place, _, _ in _files(root) if place.rpartition("/")[2] == kept.FILE)
    own = [f"{root.rstrip('/')}/{place}".removesuffix(f"/{kept.FILE}") for place in files]
    for other in others:
        if storage.read_small(kept.file(other)) is None:
            remedy = "Give the root that training and batch have as `model_champion`."
            raise ConfigError("there is no pointer", where=kept.file(other), remedy=remedy)
    return list({_plain(kept.file(place)): place for place in [*own, *others]}.values())


def in_use(pointers: Iterable[str]) -> list[Named]:
    """What the pointers under some roots name.

    Raises:
        ArtifactError: a pointer is damaged.
        StorageError: one cannot be read.
    """
    named = []
    for place in pointers:
        found = kept.read(place)
        for what, one in (("the champion", found.champion), ("the champion before", found.previous)):
            if one:
                by = f"{what}, version {one.version} ({kept.file(place)})"
                named += [Named(one.ranker_model, by), Named(one.encoder, by)]
        if found.state:
            named.append(Named(found.state.location, f"the state ({kept.file(place)})"))
    return named


def named_by(root: str, folder: str, named: Iterable[Named]) -> str:
    """Who names something in a folder below the root, first of all; empty where nobody does."""
    here = _plain(f"{root.rstrip('/')}/{folder}")
    places = ((_plain(one.location), one.by) for one in named)
    return next((by for place, by in places if place == here or place.startswith(f"{here}/")), "")


def results(folder: Path, *, keep: int) -> list[Named]:
    """The results of the newest runs on this machine: a step that was taken from the cache left its part in an older run.

    Args:
        folder: where `noted` left word of each run.
        keep: so many runs of each pipeline count.
    """
    found: dict[str, int] = {}
    named = []
    for path in sorted((folder / _NOTES).glob("*.json"), reverse=True):
        note = storage.read_json(path)
        found[note["pipeline"]] = found.get(note["pipeline"], 0) + 1
        if found[note["pipeline"]] <= keep:
            named += [Named(location, f"the results of the run of {note['at']}") for location in note["results"]]
    return named


def noted(folder: Path, pipeline: str, locations: Iterable[str]) -> None:
    """Leave word of the results of a run on this machine, for `results`."""
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    storage.write_json(folder / _NOTES / f"{at}.json", {"pipeline": pipeline, "at": at, "results": sorted(locations)})


def remove(root: str, one: Left) -> None:
    """Remove what a run left.

    Raises:
        StorageError: it cannot be removed.
    """
    if not storage.is_local(root):
        storage.remove(f"{root.rstrip('/')}/{one.folder}")
        return
    folder = storage.local_path(root) / one.folder
    aside = folder.with_name(f".{folder.name}{_GONE}")
    try:
        folder.rename(aside)  # readers find all of it or nothing
        shutil.rmtree(aside)
    except OSError as error:
        raise of_system(error, where=str(folder), verb="removed") from error


def finish(root: str) -> None:
    """Remove what a call that was killed had begun to remove on this machine.

    Raises:
        StorageError: it cannot be removed.
    """
    if not storage.is_local(root):
        return
    top = storage.local_path(root)
    for folder, folders, _ in os.walk(top):
        for name in [name for name in folders if name.startswith(".") and name.endswith(_GONE)]:
            aside = Path(folder, name)
            was = (aside.parent / name[1:].removesuffix(_GONE)).relative_to(top).as_posix()
            if _RUN.fullmatch(was):
                try:
                    shutil.rmtree(aside)
                except OSError as error:
                    raise of_system(error, where=str(aside), verb="removed") from error


def seconds(text: str) -> float:
    """A time such as 30d or 4w in seconds.

    Raises:
        ConfigError: it is not so written.
    """
    found = re.fullmatch(r"(\d{1,5})([dw])", text)
    if not found:
        raise ConfigError(f"{text!r} is no time", where="--older", remedy="Write days or weeks: 30d, 4w.")
    return int(found[1]) * _UNITS[found[2]] * _DAY_S


_PIPELINES = "|".join(sorted({name for step in steps.STEPS.values() for name in step.pipelines}))
_RUN = re.compile(
    rf"(?:(?:artifacts/)?(?P<local>{_PIPELINES})-\d{{4}}(?:-\d\d){{5}}-\d{{6}}"
    rf"|(?:v2/artifacts/)?(?P<backend>{_PIPELINES})/[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}"
    rf"|(?P<checkpoints>{_CHECKPOINTS})/[^/.][^/]*)"
)
_BELOW = re.compile(f"({_RUN.pattern})/")


def _found(root: str) -> Iterator[Left]:
    runs: dict[str, list[tuple[int, float]]] = {}
    kinds = {}
    for place, size, written_s in _files(root):
        if match := _BELOW.match(place):
            runs.setdefault(match[1], []).append((size, written_s))
            kinds[match[1]] = next(name for name in match.groups()[1:] if name)
    for folder, files in runs.items():
        yield Left(
            kind=kinds[folder], folder=folder, files=len(files), bytes=sum(size for size, _ in files),
            newest_s=max(written_s for _, written_s in files),
        )  # fmt: skip


def _files(root: str) -> Iterator[tuple[str, int, float]]:
    """Path below the root, bytes and time of every file; links are neither followed nor counted."""
    place = storage.Location.parse(root)
    if not place.is_local:
        for name, info in storage.listing(root):
            yield name[len(str(place).rstrip("/")) + 1 :], info.size, info.mtime_ns / 1e9
        return
    for folder, folders, names in os.walk(place.local):
        folders[:] = [name for name in folders if not name.endswith(_GONE)]
        for path in (Path(folder, name) for name in names):
            if not path.is_symlink():
                about = path.stat()
                yield path.relative_to(place.local).as_posix(), about.st_size, about.st_mtime


def _plain(location: str) -> str:
    """A location without its spelling: a store is one by any of its schemes, a path of this machine is whole."""
    place = storage.Location.parse(location)
    return f"{place.scheme}:{place.local.resolve()}" if place.is_local else f"store:{place.path}"
