"""Numbered tables into the dataset's files, split by time."""

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tritower.engines.protocol import Engine
from tritower.errors import DataError
from tritower.ingest import rows, tables
from tritower.ingest.config import IngestConfig
from tritower.schema import (
    DATASET_IMPRESSIONS,
    DATASET_JOBS,
    DATASET_QUARANTINE,
    DATASET_REQUESTS,
    DATASET_TEXTS,
    DATASET_USERS,
    RAW_TABLES,
    SPLITS,
    Table,
)

_PART_ROWS = 4_000_000


def write(engine: Engine, folder: Path, config: IngestConfig) -> dict[str, Any]:
    """Write every table but the quarantine; return row counts by table, and counts and time range by split.

    Raises:
        DataError: the requests are too few, or too close in time, to be split.
    """
    tables.split_requests(engine, *_bounds(engine, config))
    engine.map_batches("users_filled", tables.USERS_QUERY, _fill_lists, _engine_schema(DATASET_USERS))
    counts = {
        name: engine.write(query, folder / f"{name}.parquet", table.arrow(), order_by=order)
        for name, query, table, order in (
            ("jobs", tables.JOBS_QUERY, DATASET_JOBS, "job"),
            ("users", "SELECT * FROM users_filled", DATASET_USERS, "t.user"),
            ("texts", tables.TEXTS_QUERY, DATASET_TEXTS, "text"),
            ("requests", "SELECT * FROM s_requests", DATASET_REQUESTS, "request"),
        )
    }
    engine.keep("document_of_job", "SELECT j.job, d.text AS document_text FROM n_jobs j JOIN n_texts d ON j.document = d.value")
    splits: dict[str, Any] = {}
    start = 0
    for split in SPLITS:
        splits[split] = _write_split(engine, folder, split, start)
        start += splits[split]["impressions"]
    return {"tables": counts | {"impressions": start}, "splits": splits}


def _write_split(engine: Engine, folder: Path, split: str, start: int) -> dict[str, Any]:
    written = engine.write(
        tables.impressions_query(split),
        folder / "impressions" / split,
        DATASET_IMPRESSIONS.arrow(),
        order_by=tables.IMPRESSIONS_ORDER,
        number="row",
        number_from=start,
        part_rows=_PART_ROWS,
    )
    found = engine.rows(f"SELECT count(*) AS n, min(ts) AS low, max(ts) AS high FROM s_requests WHERE split = '{split}'")[0]
    times = {"from": tables.iso(found["low"]), "to": tables.iso(found["high"])}
    return {"requests": found["n"], "impressions": written} | times


def _sourced(batches: Iterator[pa.RecordBatch], *, files: dict[str, list[str]]) -> Iterator[pa.RecordBatch]:
    """Turn `seq` back into file and row number."""
    for batch in batches:
        names, seqs = batch["table_name"].to_pylist(), batch["seq"].to_pylist()
        source = [files[name][seq >> rows.FILE_BITS] for name, seq in zip(names, seqs, strict=True)]
        row = pc.bit_wise_and(batch["seq"], (1 << rows.FILE_BITS) - 1)
        yield pa.RecordBatch.from_arrays(
            [batch["table_name"], pa.array(source, pa.string()), row, batch["reason"], batch["detail"], batch["record"]],
            schema=DATASET_QUARANTINE.arrow(),
        )


def write_quarantine(engine: Engine, folder: Path, files: dict[str, list[str]]) -> None:
    """Write every refused row (`q_<table>`) with its file and row number; `files` are a table's files by number."""
    parts = [f"SELECT '{name}' AS table_name, seq, reason, detail, record FROM q_{name}" for name in RAW_TABLES]
    kernel = functools.partial(_sourced, files=files)
    engine.map_batches("quarantine", " UNION ALL ".join(parts), kernel, DATASET_QUARANTINE.arrow())
    path = folder / "quarantine.parquet"
    order = "t.table, source, source_row"
    engine.write("SELECT q.* FROM quarantine q", path, DATASET_QUARANTINE.arrow(), order_by=order)


def _engine_schema(table: Table) -> pa.Schema:
    return pa.schema([pa.field(f.name, pa.int64() if pa.types.is_timestamp(f.type) else f.type) for f in table.arrow()])


def _fill_lists(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Users without a profile get empty lists."""
    schema = _engine_schema(DATASET_USERS)
    for batch in batches:
        columns = [batch[field.name].cast(field.type) for field in schema]
        for index, field in enumerate(schema):
            if field.name.endswith("_texts"):
                columns[index] = pa.array([value or [] for value in columns[index].to_pylist()], field.type)
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _bounds(engine: Engine, config: IngestConfig) -> tuple[int, int]:
    """The times from which validation and test begin; requests of one time stay together."""
    span = engine.rows("SELECT count(*) AS total, min(ts) AS first FROM n_requests")[0]
    total = span["total"]
    bounds = [int(total * (1 - config.test_share - config.validation_share)), int(total * (1 - config.test_share))]
    found = engine.rows(f"SELECT ts FROM n_requests WHERE request IN ({bounds[0]}, {bounds[1]}) ORDER BY request")
    times = [span["first"], *(row["ts"] for row in found)]
    if len(times) < 3 or not times[0] < times[1] < times[2]:
        raise DataError(
            f"{total} requests cannot be split by time", where="impressions", remedy="Give more data, over a longer time."
        )
    return times[1], times[2]


def fingerprint(folder: Path) -> str:
    """SHA-256 over the names and bytes of the tables."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.parquet")):
        if ".scratch" in file.parts:
            continue
        digest.update(str(file.relative_to(folder)).encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
