"""Reading what the encoder needs from a dataset (schema.py) and from a judged set of titles."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tritower import storage
from tritower.encoder.triplets import Shown
from tritower.errors import DataError

_KINDS = ["is_query", "is_title", "is_document", "is_profile", "is_description"]
_COLUMNS = ("request", "user", "query_text", "document_text", "position", "clicked")


def texts(dataset: Path) -> list[str]:
    """The value of each text, in the order of text numbers.

    Raises:
        DataError: there is no such table, or it is empty.
    """
    path = dataset / "texts.parquet"
    if not path.exists():
        raise DataError("the table of texts is missing", where=str(path), remedy="Run ingest first.")
    values = pq.read_table(path, columns=["value"]).column("value").to_pylist()
    if not values:
        raise DataError("the dataset holds no text", where=str(path), remedy="Was ingest given an empty log?")
    return [str(value) for value in values]


def only_descriptions(dataset: Path) -> npt.NDArray[np.bool_]:
    """Whether each text is a job's description and nothing else (T,)."""
    flags = pq.read_table(dataset / "texts.parquet", columns=_KINDS)
    is_kind = {name: flags.column(name).to_numpy() for name in _KINDS}
    only: npt.NDArray[np.bool_] = is_kind.pop("is_description") & ~np.logical_or.reduce(list(is_kind.values()))
    return only


def documents(dataset: Path) -> npt.NDArray[np.int64]:
    """The distinct text numbers of the jobs' documents, ascending."""
    column = pq.read_table(dataset / "jobs.parquet", columns=["document_text"]).column("document_text")
    return np.unique(column.to_numpy()).astype(np.int64)


def shown(dataset: Path, split: str, rows: int = 1 << 20, *, randomised: bool = False) -> Iterator[Shown]:
    """The impressions of a split in blocks of about `rows`, each of whole requests; only the randomised ones if asked for."""
    rest: pa.Table | None = None
    columns = [*_COLUMNS, "randomised"] if randomised else list(_COLUMNS)
    for path in storage.parquet_parts(dataset / "impressions" / split):
        for batch in pq.ParquetFile(path).iter_batches(rows, columns=columns):
            block = pa.Table.from_batches([batch])
            if randomised:
                block = block.filter(block.column("randomised"))
            block = pa.concat_tables([rest, block]) if rest is not None else block
            last = block.column("request")[-1] if len(block) else None
            whole = len(block) - int(pc.sum(pc.equal(block.column("request"), last)).as_py() or 0)
            rest = block.slice(whole)
            if whole:
                yield _arrays(block.slice(0, whole))
    if rest is not None and len(rest):
        yield _arrays(rest)


@dataclass(frozen=True)
class JudgedTitles:
    """Queries, titles, and which titles (column) are judged similar to a query (row)."""

    queries: list[str]
    titles: list[str]
    relevant_QM: npt.NDArray[np.bool_]


def judged_titles(folder: Path) -> JudgedTitles:
    """Read queries.tsv and corpus.tsv (id, title) and annotations.tsv (query id, 0, title id, 1: TREC judgements).

    Raises:
        DataError: a file is missing.
    """
    lines: dict[str, list[list[str]]] = {}
    for name in ("queries", "corpus", "annotations"):
        path = folder / f"{name}.tsv"
        if not path.exists():
            raise DataError("a file of the judged titles is missing", where=str(path), remedy="Mend `title_similarity`.")
        with path.open(encoding="utf-8", newline="") as file:
            lines[name] = [row for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    query_at = {row[0]: i for i, row in enumerate(lines["queries"])}
    title_at = {row[0]: i for i, row in enumerate(lines["corpus"])}
    relevant = np.zeros((len(query_at), len(title_at)), bool)
    for query, _, title, grade in lines["annotations"]:
        if int(grade) > 0 and query in query_at and title in title_at:
            relevant[query_at[query], title_at[title]] = True
    return JudgedTitles([row[1] for row in lines["queries"]], [row[1] for row in lines["corpus"]], relevant)


def _arrays(block: pa.Table) -> Shown:
    position = pc.fill_null(block.column("position"), pa.scalar(0, pa.int16()))
    columns = [position if name == "position" else block.column(name) for name in _COLUMNS]
    request, user, query, document, position_N, clicked = (column.to_numpy() for column in columns)
    wide = [column.astype(np.int64) for column in (request, user, query, document, position_N)]
    return Shown(wide[0], wide[1], wide[2], wide[3], wide[4], clicked.astype(bool))
