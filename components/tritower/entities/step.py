"""The `entities` step: dataset/texts.parquet in, entities/entities.parquet out, every unique text once."""

import collections
import functools
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tritower import logs, optional, schema, storage, threads
from tritower.config import to_dict
from tritower.entities.config import EntitiesConfig
from tritower.entities.spans import LABELS
from tritower.storage import manifest

_LOG = logging.getLogger(__name__)
BATCH_ROWS = 65_536
"""Texts read and recognised at a time, which bounds the memory."""


def run(*, dataset: str | Path, entities: str | Path, config: EntitiesConfig) -> dict[str, float]:
    """Recognise the entities of every text of a dataset.

    Args:
        dataset: folder written by `ingest`; read are texts.parquet and, for the employers, jobs.parquet.
        entities: folder to write: entities.parquet (`schema.ENTITIES`, sorted by text, start, end, label) and entities.json.
        config: the knobs.

    Returns:
        Counts: `texts`, `entities`, `titles_covered` and `queries_covered` (share of the job titles and of the non-empty
        queries with at least one entity, 0 to 1), and the number of entities of each label.
    """
    threads.cap_libraries()
    manifest.check(dataset)
    source = pq.ParquetFile(Path(dataset) / "texts.parquet")
    with logs.phase(_LOG, "load the recogniser"):
        with optional.hidden(*config.needless):
            from tritower.entities.recognise import finder, table
        find = finder(config, _employers(dataset) if config.companies else ())
    tally: collections.Counter[str] = collections.Counter()
    with storage.atomic_directory(entities) as folder:
        with logs.phase(_LOG, "find entities") as counts:
            with pq.ParquetWriter(folder / "entities.parquet", schema.ENTITIES.arrow(), compression="zstd") as writer:
                for batch in logs.progress(source.iter_batches(BATCH_ROWS), name="entities", unit="batches"):
                    batch = batch.filter(_short(batch))
                    rows = table(batch, find)
                    writer.write_table(rows)
                    _count(batch, rows, tally)
            counts.update(texts=tally["texts"], entities=tally["entities"])
        numbers = _numbers(tally)
        storage.write_json(folder / "entities.json", {"version": 1, "config": to_dict(config), "counts": numbers})
    return numbers


def _short(batch: pa.RecordBatch) -> pa.Array:
    """Which texts are more than a job's description, whose entities no feature reads."""
    flags = (batch.column(name) for name in ("is_query", "is_title", "is_document", "is_profile"))
    return functools.reduce(pc.or_, flags)


def _employers(dataset: str | Path) -> list[str]:
    column = pq.read_table(Path(dataset) / "jobs.parquet", columns=["company"])["company"]
    names: list[str] = column.unique().drop_null().to_pylist()
    return sorted(names)


def _count(batch: pa.RecordBatch, rows: pa.Table, tally: collections.Counter[str]) -> None:
    """Add a batch of texts and its entities to the tally."""
    found = pc.is_in(batch.column("text"), value_set=rows["text"].combine_chunks())
    title = batch.column("is_title")
    query = pc.and_(batch.column("is_query"), pc.not_equal(batch.column("value"), ""))
    more = {"titles": title, "titles_found": pc.and_(title, found), "queries": query, "queries_found": pc.and_(query, found)}
    tally.update({name: pc.sum(mask).as_py() or 0 for name, mask in more.items()})
    tally.update({"texts": len(batch), "entities": len(rows)})
    tally.update({row["values"]: row["counts"] for row in rows["label"].combine_chunks().value_counts().to_pylist()})


def _numbers(tally: collections.Counter[str]) -> dict[str, float]:
    return {
        "texts": tally["texts"],
        "entities": tally["entities"],
        "titles_covered": tally["titles_found"] / max(1, tally["titles"]),
        "queries_covered": tally["queries_found"] / max(1, tally["queries"]),
        **{label.lower(): tally[label] for label in LABELS},
    }
