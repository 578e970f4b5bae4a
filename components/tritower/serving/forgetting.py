"""A person taken out of what a server keeps: the state and the catalogue of a bundle, the journal, the log of what was served.

`forget` says what it removed, and what it cannot reach. A state is thinned in the same way of those who have not come for long
(`retention.py`).
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Set
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tritower import storage
from tritower.errors import ConfigError, StorageError
from tritower.recommend.clicks import Clicks
from tritower.serving import bundle, journal, place, records, resident, segments, served
from tritower.storage import manifest

BEYOND_REACH = (
    "counts by job, company, occupation and query, in which this person's events are summed up with everybody's",
    "hashes of search ids in the state, which tell searches that were counted; no id can be read from them",
    "what running servers hold in memory: it goes when they load the new bundle, or start again",
    "datasets, features and models made before, and the raw logs they were made of",
    "earlier versions of objects, in a bucket that keeps them (versioning, soft delete)",
    "backups, other copies of the bundle, states that pipeline runs have kept, and logs of proxies",
)


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What was removed: people's clicks and searches from the state, profiles from the catalogue, events, rows."""

    clicks: int = 0
    searches: int = 0
    retrieval_clicks: int = 0
    waiting_events: int = 0
    profiles: int = 0
    journal_events: int = 0
    served_rows: int = 0

    def lines(self) -> list[str]:
        """In words."""
        words = {
            "clicks": "remembered clicks, from the state", "searches": "remembered searches, from the state",
            "retrieval_clicks": "clicks, from the lists that retrieval reads",
            "waiting_events": "events of the last instant, from the state", "profiles": "profiles, from the catalogue",
            "journal_events": "events, from the journal", "served_rows": "rows, from the log of what was served",
        }  # fmt: skip
        return [f"{value:,} {words[name]}" for name, value in asdict(self).items()]


def forget(
    user_id: str, *, folder: str | Path = "", journal_at: storage.LocationLike = "", served_at: storage.LocationLike = ""
) -> Removed:
    """Remove a person.

    Args:
        user_id: who.
        folder: a bundle, or a state of the features, on this machine.
        journal_at: the journal; no server may be writing it.
        served_at: the log of what was served.

    Raises:
        ConfigError: no person or no place is given.
        StorageError: a place cannot be read or written, or a server is writing the journal.
        ArtifactError: the bundle or the journal is damaged.
    """
    if not user_id or not (folder or journal_at or served_at):
        raise ConfigError("it is not said whom to forget, or where", where="forget", remedy="Name a person and a place.")
    found = asdict(Removed())
    # The journal first: a server that starts meanwhile would count from it again what the state has lost.
    if journal_at:
        found["journal_events"] = _from_journal(journal_at, user_id)
    if folder:
        found |= asdict(thin(Path(folder), {user_id}, profiles=True)) | {"journal_events": found["journal_events"]}
    if served_at:
        found["served_rows"] = _from_served(served_at, user_id)
    return Removed(**found)


def thin(folder: Path, users: Set[str], *, profiles: bool) -> Removed:
    """Replace a bundle or a state by one without the histories, and the profiles, of some people.

    Raises:
        StorageError: there is neither, or the place cannot be written.
        ArtifactError: it is damaged.
    """
    is_bundle = (folder / bundle.MANIFEST).exists()
    if not is_bundle and not (folder / "state.json").exists():
        remedy = "Name the folder that `bundle` wrote, or a state's, on this machine."
        raise StorageError("this is neither a bundle nor a state", where=str(folder), remedy=remedy)
    if is_bundle:
        bundle.read(folder)
    else:
        manifest.check(folder)
    with storage.atomic_directory(folder) as fresh:
        _linked(folder, fresh)
        found = _thinned_state(fresh / "state" if is_bundle else fresh, users)
        if is_bundle:
            more = {"retrieval_clicks": _without_clicks(fresh / "clicks", users)}
            more["profiles"] = _without_profiles(fresh / "dataset", users) if profiles else 0
            found = Removed(**asdict(found) | more)
            for part in (fresh / "state", fresh / "dataset"):
                if (part / storage.MARK).exists():
                    (part / storage.MARK).unlink()
                    manifest.write(part)
            if (fresh / resident.PART).is_dir():
                resident.write(fresh)
            bundle.write(fresh)
    return found


def _linked(source: Path, target: Path) -> None:
    """All files of a folder in another one, without their bytes where the file system can; its own manifest is made anew."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copyfile(one, other)

    def own_manifest(place: str, names: list[str]) -> list[str]:
        return [storage.MARK] if Path(place) == source and storage.MARK in names else []

    shutil.copytree(source, target, copy_function=link, dirs_exist_ok=True, ignore=own_manifest)


def _replaced(path: Path, table: pa.Table) -> None:
    """A file anew: what is linked to the old one stays as it is."""
    path.unlink()
    pq.write_table(table, path, compression="zstd")


def _thinned_state(folder: Path, users: Set[str]) -> Removed:
    gone = pa.array(sorted(users), pa.string())
    counts = {}
    kept: dict[str, pa.Table] = {}
    for name in ("clicks", "searches", "queue"):
        table = pq.read_table(folder / f"{name}.parquet")
        is_gone = pc.is_in(table["user_id"], value_set=gone)
        leaving, kept[name] = table.filter(is_gone), table.filter(pc.invert(is_gone))
        counts[name] = len(leaving) if name == "queue" else int(pc.sum(pc.list_value_length(leaving["items"])).as_py() or 0)
        if len(leaving):
            _replaced(folder / f"{name}.parquet", kept[name])
    texts = pq.read_table(folder / "texts.parquet")
    jobs = pq.read_table(folder / "jobs.parquet", columns=["document"])
    words: Iterable[pa.ChunkedArray] = (pc.list_flatten(kept["searches"]["items"]), kept["queue"]["query"], jobs["document"])
    needed = pa.concat_arrays([chunk for column in words for chunk in pa.chunked_array(column).chunks])
    is_needed = pc.is_in(texts["text"], value_set=needed.unique())
    if not pc.all(is_needed).as_py():
        vectors = np.load(folder / "vectors.npy")
        (folder / "vectors.npy").unlink()
        np.save(folder / "vectors.npy", vectors[is_needed.to_numpy()])
        _replaced(folder / "texts.parquet", texts.filter(is_needed))
    return Removed(clicks=counts["clicks"], searches=counts["searches"], waiting_events=counts["queue"])


def _without_clicks(folder: Path, users: Set[str]) -> int:
    """Of the lists that retrieval reads; those by query do not say who clicked."""
    if not folder.is_dir():
        return 0
    found = Clicks.open(folder)
    count = sum(found.forget(user) for user in sorted(users))
    if count:
        made_of = {name: value for name, value in storage.read_json(folder / "clicks.json").items() if name != "version"}
        found.save(folder, made_of)
    return count


def _without_profiles(dataset: Path, users: Set[str]) -> int:
    """Blank people's rows: their numbers stay, for the row of a table is a user's number."""
    path = dataset / "users.parquet"
    table = pq.read_table(path)
    is_gone = pc.is_in(table["user_id"], value_set=pa.array(sorted(users), pa.string()))
    count = int(pc.sum(is_gone).as_py() or 0)
    if count:
        number = pc.binary_join_element_wise("forgotten", pa.array(range(len(table))).cast(pa.string()), " ")
        columns = []
        for field in table.schema:
            column = table[field.name]
            if field.name == "user_id":
                column = pc.if_else(is_gone, number, column)
            elif pa.types.is_list(field.type) or field.name in ("city", "region", "country"):
                blank = pa.scalar([] if pa.types.is_list(field.type) else None, field.type)
                column = _filled(column, is_gone, blank)
            columns.append(column)
        _replaced(path, pa.table(columns, schema=table.schema))
    return count


def _filled(column: pa.ChunkedArray, is_gone: pa.ChunkedArray, blank: pa.Scalar) -> pa.Array:
    """A column with the blank where a row is gone; `if_else` knows no lists."""
    both = pa.concat_arrays([*column.chunks, pa.array([blank.as_py()], column.type)])
    row = np.where(np.asarray(is_gone.to_numpy()), len(column), np.arange(len(column)))
    return both.take(pa.array(row))


def _from_journal(location: storage.LocationLike, user_id: str) -> int:
    """Write the segments anew that hold a person's events; records keep their numbers."""
    count = 0
    with place.held(location):
        names = segments.names(location)
        for name in names:
            content, removed = records.MAGIC, 0
            for frame in journal.sealed(location, name, is_last=name == names[-1]):
                record = frame.record()
                kept = [i for i, event in enumerate(record.events) if event["user_id"] != user_id]
                removed += len(record.events) - len(kept)
                content += records.Record(
                    number=record.number, taken=record.taken, keys=tuple(record.keys[i] for i in kept),
                    events=tuple(record.events[i] for i in kept),
                ).encode()  # fmt: skip
            if removed:
                segments.replace(location, name, content)
            count += removed
        segments.remove_cut(location)
    return count


def _from_served(location: storage.LocationLike, user_id: str) -> int:
    count = 0
    for name in served.files(location):
        with tempfile.TemporaryDirectory() as scratch:
            here = storage.local_path(name) if storage.is_local(name) else storage.fetch(name, Path(scratch) / "part.parquet")
            table = pq.ParquetFile(here).read()
        is_gone = pc.or_(pc.equal(table["user_id"], user_id), pc.equal(table["unit"], user_id))
        removed = int(pc.sum(is_gone).as_py() or 0)
        if removed == len(table):
            served.remove(name)
        elif removed:
            served.write_table(name, table.filter(pc.invert(is_gone)))
        count += removed
    return count
