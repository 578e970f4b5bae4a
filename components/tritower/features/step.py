"""The feature step: dataset and embeddings in, features out, batch by batch in time order."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tritower import schema, storage
from tritower.config import to_dict
from tritower.features import lookup, source, state
from tritower.features.build import Builder, Computed
from tritower.features.config import FeaturesConfig
from tritower.features.entities import Entities
from tritower.features.timeline import Rows
from tritower.features.writer import Writer
from tritower.logs import phase, progress

logger = logging.getLogger(__name__)
Batches = Iterator[tuple[str, pa.RecordBatch, Computed]]


def run(
    *,
    dataset: str | Path,
    embeddings: str | Path,
    features: str | Path,
    config: FeaturesConfig,
    candidates: str | Path | None = None,
    entities: str | Path | None = None,
    previous: str | Path | None = None,
) -> dict[str, float]:
    """Compute the features of every impression, or of every candidate, into `features`.

    Args:
        dataset: written by ingest.
        embeddings: written by the encoder for this dataset.
        features: folder to write.
        config: knobs.
        candidates: rows to featurise instead of the impressions, at their own times, against the events of the dataset.
        entities: written by the entities step for this dataset; without it there are no entity features.
        previous: features of an earlier run with the same knobs, to continue from its state. Rows that it has counted
            are skipped, so the dataset may hold everything or only what is new.

    Returns:
        Counts: rows, features, missing share (0 to 1), rows skipped.
    """
    with phase(logger, "read lookup tables") as counts:
        builder, seen = _builder(Path(dataset), Path(embeddings), config, candidates, entities, previous)
        counts["jobs"], counts["texts"] = len(builder.tables.jobs), len(builder.tables.texts)
    described = builder.layout.features
    log = _Log(Path(dataset), config.batch_rows, builder.tables, seen)
    with storage.atomic_directory(features) as out, phase(logger, "features") as counts:
        with Writer(out, builder.layout.names, with_history=config.history_texts > 0) as writer:
            for split, keys, computed in (
                _candidates(builder, log, Path(candidates)) if candidates else _impressions(builder, log)
            ):
                writer.write(split, keys, computed)
            for split in ["candidates"] if candidates else schema.SPLITS:
                writer.empty(split)
        about = {"version": 1, "config": to_dict(config), "features": [f.to_dict() for f in described]}
        storage.write_json(out / "features.json", about)
        if not candidates:
            state.save(out / "state", builder, config)
        counts["rows"] = writer.rows
    missing = writer.missing / max(writer.rows * len(described), 1)
    numbers = {"rows": writer.rows, "features": len(described), "missing_share": missing, "rows_skipped": log.skipped}
    return {name: float(value) for name, value in numbers.items()}


def _builder(
    dataset: Path,
    embeddings: Path,
    config: FeaturesConfig,
    candidates: str | Path | None,
    entities: str | Path | None,
    previous: str | Path | None,
) -> tuple[Builder, state.Saved | None]:
    tables = lookup.read(dataset, embeddings, Path(candidates) / "requests.parquet" if candidates else None)
    seen = state.Saved(Path(previous) / "state", config) if previous else None
    tables = state.extend(tables, seen) if seen else tables
    found = Entities.read(entities, dataset, len(tables.texts), len(tables.jobs)) if entities else None
    builder = Builder(tables, config, found)
    if seen:
        state.restore(builder, seen)
    return builder, seen


class _Log:
    """The impressions of a dataset in time order, without those that a state has counted already."""

    def __init__(self, dataset: Path, batch_rows: int, tables: lookup.Lookup, seen: state.Saved | None) -> None:
        self.dataset = dataset
        self.batch_rows = batch_rows
        self.skipped = 0
        self.views_only = source.shows_views_only(dataset)
        self._seen = seen
        self._ids = lookup.RequestIds(dataset / "requests.parquet") if seen else None

    def batches(self, split: str) -> Iterator[pa.RecordBatch]:
        """Those of a split."""
        for batch in progress(
            source.batches(self.dataset / "impressions" / split, self.batch_rows), name=split, unit="batches"
        ):
            fresh = self._fresh(batch)
            self.skipped += batch.num_rows - fresh.num_rows
            if fresh.num_rows:
                yield fresh

    def rows(self, batch: pa.RecordBatch, *, wanted: bool) -> Rows:
        """A batch of events."""
        return source.rows(batch, counts=True, wanted=wanted, views_only=self.views_only)

    def _fresh(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if not self._seen or not self._ids:
            return batch
        ts = source.times(batch, "ts")
        if ts[0] > self._seen.last_ts:
            return batch
        same = np.flatnonzero(ts == self._seen.last_ts)
        counted = ts < self._seen.last_ts
        counted[same] = self._seen.counted(self._ids.of(batch.column("request").to_numpy()[same]))
        return batch.filter(pa.array(~counted))


def _impressions(builder: Builder, log: _Log) -> Batches:
    for split in schema.SPLITS:
        for batch in log.batches(split):
            yield split, batch.select(source.KEYS), builder.features(log.rows(batch, wanted=True))


def _candidates(builder: Builder, log: _Log, candidates: Path) -> Batches:
    """Candidates in time order between the events of the log; events change the state and are not written."""
    waiting = source.Queue(source.batches(candidates / "candidates", log.batch_rows))
    for split in schema.SPLITS:
        for batch in log.batches(split):
            events = log.rows(batch, wanted=False)
            while len(events) and (now := waiting.until(int(events.ts[-1]))) is not None:
                rows = source.rows(now, counts=False, wanted=True)
                earlier = int(np.searchsorted(events.ts, rows.ts[-1], side="right"))
                yield "candidates", now.select(source.KEYS), builder.between(events.take(slice(0, earlier)), rows)
                events = events.take(slice(earlier, None))
            builder.count(events)
    while (now := waiting.until(None)) is not None:
        yield "candidates", now.select(source.KEYS), builder.features(source.rows(now, counts=False, wanted=True))
