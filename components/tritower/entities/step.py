"""The `entities` step: dataset/texts.parquet in, entities/entities.parquet out, every unique text once."""

import collections
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tritower import logs, schema, storage
from tritower.config import to_dict
from tritower.entities import generic, lexicon, model
from tritower.entities.combine import Combined, with_values
from tritower.entities.config import EntitiesConfig
from tritower.entities.gazetteer import Gazetteer
from tritower.entities.spans import LABELS, Span

_LOG = logging.getLogger(__name__)
Finder = Callable[[Sequence[str]], Iterator[list[Span]]]


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
    source = pq.ParquetFile(Path(dataset) / "texts.parquet")
    with logs.phase(_LOG, "load the recogniser"):
        find = finder(config, _employers(dataset) if config.companies else ())
    tally: collections.Counter[str] = collections.Counter()
    with storage.atomic_directory(entities) as folder:
        with logs.phase(_LOG, "find entities") as counts:
            with pq.ParquetWriter(folder / "entities.parquet", schema.ENTITIES.arrow(), compression="zstd") as writer:
                for batch in logs.progress(source.iter_batches(config.rows_per_batch), name="entities", unit="batches"):
                    writer.write_table(_table(batch, find, tally))
            counts.update(texts=tally["texts"], entities=tally["entities"])
        numbers = _numbers(tally)
        storage.write_json(folder / "entities.json", {"version": 1, "config": to_dict(config), "counts": numbers})
    return numbers


def finder(config: EntitiesConfig, employers: Sequence[str] = ()) -> Finder:
    """The recogniser that a config asks for: texts in, the spans of each out."""
    if config.method == "spacy":
        return generic.Generic(config.spacy_model).find
    words = lexicon.default()
    gazetteer = Gazetteer(words, lexicon.companies(words, employers))
    if config.method == "gazetteer":
        return gazetteer.find
    recogniser = model.read(config.ner_model or None)
    if config.method == "ner":
        return lambda texts: (
            with_values(text, spans, gazetteer) for text, spans in zip(texts, recogniser.find(texts), strict=True)
        )
    return Combined(gazetteer, recogniser).find


def _employers(dataset: str | Path) -> list[str]:
    column = pq.read_table(Path(dataset) / "jobs.parquet", columns=["company"])["company"]
    names: list[str] = column.unique().drop_null().to_pylist()
    return sorted(names)


def _table(batch: pa.RecordBatch, find: Finder, tally: collections.Counter[str]) -> pa.Table:
    rows: dict[str, list[object]] = {name: [] for name in schema.ENTITIES.names()}
    columns = (batch.column(name).to_pylist() for name in ("text", "value", "is_query", "is_title"))
    texts, values, are_queries, are_titles = columns
    for text, value, is_query, is_title, spans in zip(texts, values, are_queries, are_titles, find(values), strict=True):
        found = sorted({(span.start, span.end, span.label, span.value) for span in spans})
        for start, end, label, meaning in found:
            for name, cell in zip(rows, (text, label, meaning, start, end), strict=True):
                rows[name].append(cell)
            tally[label] += 1
        tally["texts"] += 1
        tally["entities"] += len(found)
        tally["titles"] += is_title
        tally["titles_found"] += is_title and bool(found)
        tally["queries"] += is_query and bool(value)
        tally["queries_found"] += is_query and bool(found)
    return pa.table(rows, schema=schema.ENTITIES.arrow())


def _numbers(tally: collections.Counter[str]) -> dict[str, float]:
    return {
        "texts": tally["texts"],
        "entities": tally["entities"],
        "titles_covered": tally["titles_found"] / max(1, tally["titles"]),
        "queries_covered": tally["queries_found"] / max(1, tally["queries"]),
        **{label.lower(): tally[label] for label in LABELS},
    }
