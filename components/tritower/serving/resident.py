"""The part `resident` of a bundle: what every process of a server would otherwise make of the other parts and hold for itself.

resident.json   {"version", "made_of": {part: sha256}}
features/       tables and state of the features, as arrays (`features.resident`)
catalogue/      what answers show of the jobs, as Arrow columns, and a hash table of the job ids

It follows from the other parts, so a bundle may lack it: then each process makes its own. A part of another version is passed
over, too; one that was made of other parts is refused.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tritower import storage
from tritower.errors import ArtifactError
from tritower.features import resident as features
from tritower.features.online import OnlineFeatures
from tritower.lookup import Lookup, Slots
from tritower.mapped import opened, read_strings, written
from tritower.serving import bundle
from tritower.serving.bundle import Bundle

PART = "resident"
VERSION = 1
SHOWN = ["title", "company", "city", "region", "country", "posted_at"]
_MADE_OF = ("state", "dataset", "entities")
_FILE = "resident.json"


def write(folder: Path) -> None:
    """Write the part, in place of one that is there.

    Args:
        folder: of a bundle, with all other parts.
    """
    shutil.rmtree(folder / PART, ignore_errors=True)
    has_entities = (folder / "entities").is_dir()
    of = OnlineFeatures.open(
        folder / "state", folder / "dataset", folder / "embeddings", folder / "entities" if has_entities else None,
        embed=_nothing_to_embed, recognise=_nothing_to_recognise,
    )  # fmt: skip
    (folder / PART / "catalogue").mkdir(parents=True)
    of.keep(folder / PART / "features")
    jobs = pq.read_table(folder / "dataset" / "jobs.parquet", columns=["job_id", *SHOWN]).combine_chunks()
    for name in SHOWN:
        written(folder / PART / "catalogue", name, jobs[name].combine_chunks())
    written(folder / PART / "catalogue", "slots", Lookup(jobs["job_id"].combine_chunks()).slots)
    made_of = {name: bundle.part_hash(folder / name) for name in _MADE_OF if (folder / name).is_dir()}
    storage.write_json(folder / PART / _FILE, {"version": VERSION, "made_of": made_of})


def found(whole: Bundle) -> Path | None:
    """The part of a bundle; None where it has none that this version reads.

    Raises:
        ArtifactError: it was made of other parts.
    """
    folder = whole.path(PART)
    if folder is None:
        return None
    facts = storage.read_json(folder / _FILE)
    if facts.get("version") != VERSION or not features.is_readable(folder / "features"):
        return None
    there = {name: whole.parts[name].sha256 for name in _MADE_OF if name in whole.parts}
    if differ := sorted(
        name for name in there.keys() | facts["made_of"].keys() if there.get(name) != facts["made_of"].get(name)
    ):
        problem = f"the part {PART!r} was made of another {differ[0]!r}"
        raise ArtifactError(problem, where=str(folder), remedy=bundle.AGAIN)
    return folder


def shown(folder: Path) -> tuple[pa.Table, Slots]:
    """What answers show of the jobs, and the slots of their ids; mapped."""
    columns = {name: read_strings(folder / "catalogue", name) for name in SHOWN}
    return pa.table(columns), opened(folder / "catalogue", "slots")


def _nothing_to_embed(texts: Sequence[str]) -> npt.NDArray[np.floating]:
    raise AssertionError(texts)


def _nothing_to_recognise(texts: Sequence[str]) -> pa.Table:
    raise AssertionError(texts)
