"""The feature step: dataset and embeddings in, features out, batch by batch in time order."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tritower import schema, storage
from tritower.features import lookup
from tritower.features.build import Builder
from tritower.features.config import FeaturesConfig
from tritower.features.entities import Entities
from tritower.features.timeline import NO_TIME, Rows
from tritower.logs import phase, progress

logger = logging.getLogger(__name__)
KEYS = schema.FEATURE_KEYS.names()
COLUMNS = [*KEYS, "clicked_at"]
PART_ROWS = 4_000_000


def run(
    *,
    dataset: str | Path,
    embeddings: str | Path,
    features: str | Path,
    config: FeaturesConfig,
    candidates: str | Path | None = None,
    entities: str | Path | None = None,
) -> dict[str, float]:
    """Compute the features of every impression, or of every candidate, into `features`.

    Args:
        dataset: written by ingest.
        embeddings: written by the encoder for this dataset.
        features: folder to write.
        config: knobs.
        candidates: rows to featurise instead of the impressions, at their own times, against the events of the dataset.
        entities: written by the entities step for this dataset; without it there are no entity features.

    Returns:
        Counts: rows, features, missing share.
    """
    dataset, candidates = Path(dataset), Path(candidates) if candidates else None
    with phase(logger, "read lookup tables") as counts:
        requests = candidates / "requests.parquet" if candidates else None
        tables = lookup.read(dataset, Path(embeddings), requests)
        found = Entities.read(entities, len(tables.texts)) if entities else None
        counts["jobs"], counts["texts"] = len(tables.jobs), len(tables.texts)
    builder = Builder(tables, config, found)
    described = builder.layout.features
    with storage.atomic_directory(features) as out, phase(logger, "features") as counts:
        with contextlib.ExitStack() as stack:
            writer = _Writer(out, stack, builder.layout.names)
            for split, keys, values_FN in (
                _candidates(builder, dataset, candidates, config) if candidates else _impressions(builder, dataset, config)
            ):
                writer.write(split, keys, values_FN)
        storage.write_json(out / "features.json", {"version": 1, "features": [f.to_dict() for f in described]})
        counts["rows"] = writer.rows
    missing = writer.missing / max(writer.rows * len(described), 1)
    return {"rows": float(writer.rows), "features": float(len(described)), "missing_share": float(missing)}


def _impressions(builder: Builder, dataset: Path, config: FeaturesConfig) -> Iterator[tuple[str, pa.RecordBatch, Any]]:
    for split in schema.SPLITS:
        for batch in progress(_batches(dataset / "impressions" / split, config.batch_rows), name=split, unit="batches"):
            rows = _rows(batch, counts=True, wanted=True)
            yield split, batch.select(KEYS), builder.features(rows)


def _candidates(
    builder: Builder, dataset: Path, candidates: Path, config: FeaturesConfig
) -> Iterator[tuple[str, pa.RecordBatch, Any]]:
    """Candidates in time order between the events of the dataset; events change the state and are not written."""
    waiting = list(_batches(candidates / "candidates", config.batch_rows))
    for split in schema.SPLITS:
        for batch in _batches(dataset / "impressions" / split, config.batch_rows):
            events = _rows(batch, counts=True, wanted=False)
            while waiting and (ready := _until(waiting[0], int(events.ts[-1]))):
                now, later = waiting[0].slice(0, ready), waiting[0].slice(ready)
                seen = _until(batch, int(_time(now, "ts")[-1])) - batch.num_rows + len(events)
                rows = _rows(now, counts=False, wanted=True)
                values_FN = builder.between(events.take(slice(0, seen)), rows)
                yield "candidates", now.select(KEYS), values_FN
                events = events.take(slice(seen, None))
                waiting = [later, *waiting[1:]] if later.num_rows else waiting[1:]
                if not len(events):
                    break
            builder.count(events)
    for batch in waiting:
        rows = _rows(batch, counts=False, wanted=True)
        yield "candidates", batch.select(KEYS), builder.features(rows)


def _until(batch: pa.RecordBatch, ts: int) -> int:
    """How many rows of a batch, in time order, are not later than `ts`."""
    return int(np.searchsorted(_time(batch, "ts"), ts, side="right"))


def _batches(folder: Path, batch_rows: int) -> Iterator[pa.RecordBatch]:
    for part in storage.parquet_parts(folder):
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches(batch_size=batch_rows, columns=COLUMNS)


def _rows(batch: pa.RecordBatch, *, counts: bool, wanted: bool) -> Rows:
    ts = _time(batch, "ts")
    clicked = batch.column("clicked").to_numpy(zero_copy_only=False)
    clicked_at = np.where(clicked, np.where(_time(batch, "clicked_at") == NO_TIME, ts, _time(batch, "clicked_at")), NO_TIME)
    return Rows(
        row=_column(batch, "row"),
        request=_column(batch, "request"),
        ts=ts,
        user=_column(batch, "user"),
        job=_column(batch, "job"),
        query=_column(batch, "query_text"),
        position=batch.column("position").fill_null(0).to_numpy().astype(np.int32),
        randomised=batch.column("randomised").to_numpy(zero_copy_only=False),
        clicked_at=clicked_at,
        counts=np.full(len(ts), counts),
        out=np.arange(len(ts)) if wanted else np.full(len(ts), -1),
    )


def _column(batch: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = batch.column(name).to_numpy()
    return values


def _time(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.int64]:
    times: npt.NDArray[np.int64] = batch.column(name).cast(pa.int64()).fill_null(int(NO_TIME)).to_numpy()
    return times


class _Writer:
    """Writes one Parquet file per split and `PART_ROWS` rows."""

    def __init__(self, out: Path, stack: contextlib.ExitStack, names: list[str]) -> None:
        self.out = out
        self.stack = stack
        self.open: dict[str, tuple[pq.ParquetWriter, int, int]] = {}
        self.rows = 0
        self.missing = 0
        self.schema = pa.schema([*schema.FEATURE_KEYS.arrow(), *(pa.field(name, pa.float32()) for name in names)])

    def write(self, split: str, keys: pa.RecordBatch, values_FN: npt.NDArray[np.float32]) -> None:
        columns = [pa.array(values_N, from_pandas=True) for values_N in values_FN]
        table = pa.Table.from_arrays([*keys.columns, *columns], schema=self.schema)
        self._writer(split, table.num_rows).write_table(table)
        self.rows += table.num_rows
        self.missing += sum(column.null_count for column in columns)

    def _writer(self, split: str, rows: int) -> pq.ParquetWriter:
        writer, part, filled = self.open.get(split, (None, -1, PART_ROWS))
        if filled + rows > PART_ROWS:
            if writer:
                writer.close()
            (self.out / split).mkdir(exist_ok=True)
            part, filled = part + 1, 0
            writer = self.stack.enter_context(
                pq.ParquetWriter(
                    self.out / split / f"part-{part:05d}.parquet", self.schema, compression="zstd", use_dictionary=False
                )
            )
        assert writer is not None
        self.open[split] = (writer, part, filled + rows)
        return writer
