"""The feature step: dataset and embeddings in, features out, batch by batch in time order.

An engine reads, filters and orders the rows and runs the kernel of the features that need no history. The pass over time runs
here, whatever the engine: each row waits for all rows before it.
"""

import contextlib
import functools
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tritower import schema, storage, threads
from tritower.config import to_dict
from tritower.engines.batches import BatchKernel
from tritower.engines.protocol import Engine, open_engine, scratch_place
from tritower.errors import DataError
from tritower.features import catalogue, source, state, static
from tritower.features.config import FeaturesConfig
from tritower.features.counted import Counted
from tritower.features.entities import Entities
from tritower.features.feature_state import Computed, FeatureState
from tritower.features.requests import Requests
from tritower.features.tables import FeatureTables
from tritower.features.timeline import Rows
from tritower.features.writer import Writer
from tritower.logs import moment, phase, progress
from tritower.storage import manifest

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
    state_to: str | Path | None = None,
    store: str = "",
) -> dict[str, float]:
    """Compute the features of every impression, or of every candidate, into `features`.

    Args:
        dataset: written by ingest.
        embeddings: written by the encoder for this dataset.
        features: folder to write.
        config: knobs.
        candidates: rows to featurise instead of the impressions, at their own times, against the events of the dataset.
        entities: written by the entities step for this dataset; without it there are no entity features.
        previous: location of the state of an earlier run with the same knobs, or of that run's features, to continue from.
            Rows that it has counted are skipped, so the dataset may hold everything or only what is new.
        state_to: folder for the state after the last event of the dataset; None for `features`/state.
        store: location of the features in the run's store, where Spark's executors keep their tables in other pods.

    Returns:
        Counts: rows, features, missing share (0 to 1); rows skipped, which an earlier run has counted, and rows late, which
        lie before the state's last row and were never counted.

    Raises:
        DataError: the state reaches beyond the dataset, has counted all of it, or too many rows came late.
        ArtifactError: the state is of another version or has other knobs.
    """
    threads.cap_libraries()
    manifest.check(dataset, embeddings, *(location for location in (candidates, entities) if location))
    with storage.atomic_directory(features) as out, _open_engine(config, out, store) as engine:
        with phase(logger, "read tables") as counts, _earlier(previous) as earlier:
            seen = state.Saved(earlier, config) if earlier else None
            feature_state = _feature_state(Path(dataset), Path(embeddings), config, candidates, entities, seen)
            counts["jobs"], counts["texts"] = len(feature_state.tables.jobs), len(feature_state.tables.texts)
        log = _Log(engine, dataset, config, feature_state.tables.requests, seen)
        log.check(str(previous), config, is_history=candidates is not None)
        static_features = _static(engine, config, feature_state, log.location, embeddings, entities, candidates)
        passing, rest = _passes(engine, feature_state, log, candidates, static_features)
        with phase(logger, "features") as counts:
            with Writer(out, feature_state.layout.names) as writer:
                _write(writer, passing)
                # Before the candidates that lie after all events: the state is that of the log.
                with storage.atomic_directory(state_to or out / "state") as folder:
                    state.save(folder, feature_state, config, log.counted(config))
                _write(writer, rest)
                for split in ["candidates"] if candidates else schema.SPLITS:
                    writer.empty(split)
            counts["rows"] = writer.rows
        described = feature_state.layout.features
        about = {"version": 1, "config": to_dict(config), "features": [f.to_dict() for f in described]}
        storage.write_json(out / "features.json", about)
        engine.close()
        shutil.rmtree(out / ".scratch", ignore_errors=True)
    share = writer.missing / max(writer.rows * len(described), 1)
    numbers = {"rows": writer.rows, "features": len(described), "missing_share": share, "rows_skipped": log.skipped}
    return {name: float(value) for name, value in (numbers | {"rows_late": log.late}).items()}


def _write(writer: Writer, batches: Batches) -> None:
    for split, keys, computed in batches:
        writer.write(split, keys, computed)


def _open_engine(config: FeaturesConfig, out: Path, store: str) -> Engine:
    scratch = scratch_place(config.scratch, out, store, config.engine, config.spark)
    # DuckDB only reads ahead of the pass; a second thread would decode what then waits for its turn in memory.
    threads = config.threads or (1 if config.engine == "duckdb" else 0)
    return open_engine(config.engine, memory_limit=config.memory_limit, threads=threads, scratch=scratch, spark=config.spark)


def _earlier(previous: str | Path | None) -> contextlib.AbstractContextManager[Path | None]:
    return state.fetched(previous) if previous else contextlib.nullcontext()


def _feature_state(
    dataset: Path,
    embeddings: Path,
    config: FeaturesConfig,
    candidates: str | Path | None,
    entities: str | Path | None,
    seen: state.Saved | None,
) -> FeatureState:
    tables = FeatureTables.read(dataset, embeddings, Path(candidates) / "requests.parquet" if candidates else None)
    tables = state.extend(tables, seen) if seen else tables
    found = Entities.read(entities, dataset, len(tables.texts), len(tables.jobs)) if entities else None
    feature_state = FeatureState(tables, config, found)
    if seen:
        state.restore(feature_state, seen)
    return feature_state


def _static(
    engine: Engine,
    config: FeaturesConfig,
    feature_state: FeatureState,
    dataset: str,
    embeddings: str | Path,
    entities: str | Path | None,
    candidates: str | Path | None,
) -> tuple[BatchKernel, pa.Schema]:
    """The kernel of the features that need no history, and what it yields; in this process it shares the pass's tables."""
    tables: static.Static | static.Places
    if config.engine == "duckdb":
        tables = feature_state.static
    else:
        tables = static.Places(
            dataset=dataset,
            embeddings=engine.shared(embeddings),
            entities=engine.shared(entities) if entities else "",
            requests=engine.shared(candidates) if candidates else dataset,
        )
    layout = catalogue.static_layout(with_entities=entities is not None)
    return functools.partial(static.compute, tables=tables), static.schema(layout)


def _passes(
    engine: Engine,
    feature_state: FeatureState,
    log: "_Log",
    candidates: str | Path | None,
    static_features: tuple[BatchKernel, pa.Schema],
) -> tuple[Batches, Batches]:
    """The rows wanted that lie among the events of the log, and those after all of them."""
    if not candidates:
        return _impressions(feature_state, log, static_features), iter(())
    table = source.Table(engine, "candidates", f"{engine.shared(candidates)}/candidates")
    waiting = source.Queue(table.batches(*static_features))
    return _candidates(feature_state, log, waiting), _later_candidates(feature_state, waiting)


class _Log:
    """The impressions of a dataset in time order, without those that a state has counted already."""

    def __init__(
        self, engine: Engine, dataset: str | Path, config: FeaturesConfig, requests: Requests, seen: state.Saved | None
    ) -> None:
        self.location = engine.shared(dataset)
        self.skipped = self.late = 0
        self._views_only = source.shows_views_only(Path(dataset))
        self._requests, self._seen = requests, seen
        since = seen.last_ts if seen else None
        self._tables = {
            split: source.Table(engine, f"impressions_{split}", f"{self.location}/impressions/{split}", since)
            for split in schema.SPLITS
        }

    def check(self, previous: str, config: FeaturesConfig, *, is_history: bool) -> None:
        """Tell the rows before the state's last one apart: counted by an earlier run, or late; stop where that cannot be right.

        Args:
            previous: the state's location, for messages.
            config: the knobs.
            is_history: the rows are the history of candidates; it may be that none is new.

        Raises:
            DataError: the state is younger than the dataset, has counted all of it, or too many rows came late.
        """
        if not self._seen:
            return
        now, tables = self._seen.last_ts, list(self._tables.values())
        ends = max((ts for table in tables if (ts := table.last_ts()) is not None), default=now)
        if ends < now:
            raise DataError(
                f"the state reaches to {moment(now)}, the dataset only to {moment(ends)}: it would see the future",
                where=previous,
                remedy="Continue from the state of the run before this dataset, or from none.",
            )
        before, at_last = (
            [np.concatenate(column) for column in zip(*(table.searches(which) for table in tables), strict=True)]
            for which in (f"i.ts < {now}", f"i.ts = {now}")
        )
        rows_R = np.bincount(before[0], before[1]).astype(np.int64)
        self.late = self._seen.searches_counted.late(self._requests.path, rows_R, now)
        self.skipped = int(before[1].sum()) - self.late
        counted_before = self._seen.counted(self._requests.ids(at_last[0]))
        fresh = sum(table.count() for table in tables) - int(before[1].sum()) - int(at_last[1][counted_before].sum())
        if self.late:
            logger.warning(
                "%d rows came late: they lie before %s, where the state ends, and no run has counted them; they are left out",
                self.late, moment(now),
            )  # fmt: skip
        if self.late > config.max_late_share * (self.late + fresh):
            raise DataError(
                f"{self.late:,} rows came late: they lie before {moment(now)}, where the state ends, and no run has counted "
                f"them; {fresh:,} are new, and at most {config.max_late_share:.1%} may be late",
                where=previous,
                remedy="Build from the start without a state, continue from an older one, or raise the knob max_late_share.",
            )
        if not fresh and not is_history:
            raise DataError(
                f"the state has counted every row of the dataset: both end {moment(now)}",
                where=previous,
                remedy="Give a dataset with later rows, or continue from the state of the run before.",
            )

    def batches(
        self, split: str, kernel: BatchKernel | None = None, schema: pa.Schema = source.SCHEMA
    ) -> Iterator[pa.RecordBatch]:
        """Those of a split, with what a kernel adds."""
        for batch in progress(self._tables[split].batches(kernel, schema), name=split, unit="batches"):
            fresh = self._fresh(batch)
            self.skipped += batch.num_rows - fresh.num_rows
            if fresh.num_rows:
                yield fresh

    def counted(self, config: FeaturesConfig) -> Counted:
        """The searches counted by the end, by this run or an earlier one."""
        known = self._seen.searches_counted if self._seen else Counted.empty()
        since = self._seen.last_ts if self._seen else 0
        return known.with_new(self._requests.path, since_us=since, remembered_days=config.remembered_days)

    def rows(self, batch: pa.RecordBatch, *, wanted: bool) -> Rows:
        """A batch of events."""
        return source.rows(batch, counts=True, wanted=wanted, views_only=self._views_only)

    def _fresh(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Without the rows of the state's last instant that it has counted; earlier ones were not read."""
        if not self._seen:
            return batch
        at_last = np.flatnonzero(source.times(batch, "ts") == self._seen.last_ts)
        if not len(at_last):
            return batch
        requests, where = np.unique(batch.column("request").to_numpy()[at_last], return_inverse=True)
        fresh = np.ones(batch.num_rows, np.bool_)
        fresh[at_last] = ~self._seen.counted(self._requests.ids(requests))[where]
        return batch.filter(pa.array(fresh))


def _impressions(feature_state: FeatureState, log: _Log, static_features: tuple[BatchKernel, pa.Schema]) -> Batches:
    for split in schema.SPLITS:
        for batch in log.batches(split, *static_features):
            yield split, source.keys(batch), feature_state.features(log.rows(batch, wanted=True), batch)


def _candidates(feature_state: FeatureState, log: _Log, waiting: source.Queue) -> Batches:
    """Candidates in time order between the events of the log; events change the state and are not written."""
    for split in schema.SPLITS:
        for batch in log.batches(split):
            events = log.rows(batch, wanted=False)
            while len(events) and (now := waiting.until(int(events.ts[-1]))) is not None:
                rows = source.rows(now, counts=False, wanted=True)
                earlier = int(np.searchsorted(events.ts, rows.ts[-1], side="right"))
                computed = feature_state.between(events.take(slice(0, earlier)), rows, now)
                yield "candidates", source.keys(now), computed
                events = events.take(slice(earlier, None))
            feature_state.count(events)


def _later_candidates(feature_state: FeatureState, waiting: source.Queue) -> Batches:
    """Those after the last event."""
    while (now := waiting.until(None)) is not None:
        yield "candidates", source.keys(now), feature_state.features(source.rows(now, counts=False, wanted=True), now)
