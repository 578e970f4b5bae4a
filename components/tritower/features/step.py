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
from tritower.config import to_dict
from tritower.features import lookup, source
from tritower.features.build import Builder
from tritower.features.config import FeaturesConfig
from tritower.features.entities import Entities
from tritower.logs import phase, progress

logger = logging.getLogger(__name__)
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
        about = {"version": 1, "config": to_dict(config), "features": [f.to_dict() for f in described]}
        storage.write_json(out / "features.json", about)
        counts["rows"] = writer.rows
    missing = writer.missing / max(writer.rows * len(described), 1)
    return {"rows": float(writer.rows), "features": float(len(described)), "missing_share": float(missing)}


def _impressions(builder: Builder, dataset: Path, config: FeaturesConfig) -> Iterator[tuple[str, pa.RecordBatch, Any]]:
    for split in schema.SPLITS:
        for batch in progress(source.batches(dataset / "impressions" / split, config.batch_rows), name=split, unit="batches"):
            rows = source.rows(batch, counts=True, wanted=True)
            yield split, batch.select(source.KEYS), builder.features(rows)


def _candidates(
    builder: Builder, dataset: Path, candidates: Path, config: FeaturesConfig
) -> Iterator[tuple[str, pa.RecordBatch, Any]]:
    """Candidates in time order between the events of the dataset; events change the state and are not written."""
    waiting = list(source.batches(candidates / "candidates", config.batch_rows))
    for split in schema.SPLITS:
        for batch in source.batches(dataset / "impressions" / split, config.batch_rows):
            events = source.rows(batch, counts=True, wanted=False)
            while waiting and (ready := _until(waiting[0], int(events.ts[-1]))):
                now, later = waiting[0].slice(0, ready), waiting[0].slice(ready)
                seen = _until(batch, int(source.times(now, "ts")[-1])) - batch.num_rows + len(events)
                rows = source.rows(now, counts=False, wanted=True)
                values_FN = builder.between(events.take(slice(0, seen)), rows)
                yield "candidates", now.select(source.KEYS), values_FN
                events = events.take(slice(seen, None))
                waiting = [later, *waiting[1:]] if later.num_rows else waiting[1:]
                if not len(events):
                    break
            builder.count(events)
    for batch in waiting:
        rows = source.rows(batch, counts=False, wanted=True)
        yield "candidates", batch.select(source.KEYS), builder.features(rows)


def _until(batch: pa.RecordBatch, ts: int) -> int:
    """How many rows of a batch, in time order, are not later than `ts`."""
    return int(np.searchsorted(source.times(batch, "ts"), ts, side="right"))


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
