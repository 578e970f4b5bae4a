"""The log of what was served: Parquet by hour, one row per job of an answer (`schema.SERVED`).

    served/hour=2026-11-27T06/part-<first row's time>-<writer>.parquet

A file takes its name when it is whole. It is finished after `rows` rows, after `age_s` seconds, when an answer of another hour
or with other features comes, and at the end. A process that is killed loses the rows that it had not finished: at most `age_s`
seconds of them. Serving never waits for the log: what does not fit into the queue is left out, and counted.
"""

import contextlib
import datetime as dt
import logging
import os
import queue
import re
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tritower import schema, storage
from tritower.assignment import Assignment
from tritower.config import check
from tritower.errors import StorageError
from tritower.serving.messages import Answer, Question

_log = logging.getLogger(__name__)
_SCHEMA = schema.SERVED.arrow()
NAMES = b"features"
HOUR_US = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class ServedConfig:
    """How what was served is logged."""

    rows: int = 50_000
    """Rows of a file, 1 or more. With 70 features a row takes some 120 bytes, and 2 KB in memory until it is written."""
    age_s: float = 300.0
    """Seconds after which a file is finished: what a killed process may lose."""
    waiting: int = 10_000
    """Answers that may wait for the log; more are left out and counted."""
    features: bool = True
    """Log the features as well: nine tenths of the bytes."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        for name in ("rows", "waiting"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "of at least 1")
        check(self.age_s > 0, "age_s", self.age_s, "above 0")


@dataclass
class Figures:
    """Rows since the log was opened: `written`, `left_out` for want of room, `lost` as they could not be written."""

    written: int = 0
    left_out: int = 0
    lost: int = 0
    files: int = 0


@dataclass(frozen=True)
class _Item:
    question: Question
    answer: Answer
    given: Assignment | None


class ServedLog:
    """Writes what was served, in a thread of its own."""

    def __init__(self, location: storage.LocationLike, config: ServedConfig | None = None) -> None:
        """Args: location: folder of this machine or of a store; any number of processes may write to one."""
        self.location, self.config, self.figures = location, config or ServedConfig(), Figures()
        self._writer = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._queue: queue.Queue[_Item | None] = queue.Queue(self.config.waiting)
        self._columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA.names}
        self._features: tuple[str, ...] = ()
        self._hour, self._since = -1, time.monotonic()
        self._thread = threading.Thread(target=self._run, name="served log", daemon=True)
        self._thread.start()

    def put(self, question: Question, answer: Answer, given: Assignment | None = None) -> None:
        """Log an answer; never waits.

        Args:
            question: what was asked.
            answer: as it was sent.
            given: the arm of whoever asked, where an experiment runs.
        """
        try:
            self._queue.put_nowait(_Item(question, answer, given))
        except queue.Full:
            self.figures.left_out += len(answer.jobs)

    def close(self) -> None:
        """Write what waits, and end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            left_s = self._since + self.config.age_s - time.monotonic()
            with contextlib.suppress(queue.Empty):
                item = self._queue.get(timeout=max(0.01, min(left_s, 5.0)))
                if item is None:
                    self._finish()
                    return
                if item.answer.jobs:
                    self._take(item)
            if time.monotonic() - self._since >= self.config.age_s or len(self._columns["score"]) >= self.config.rows:
                self._finish()

    def _take(self, item: _Item) -> None:
        hour = item.answer.ts // HOUR_US
        if hour != self._hour or item.answer.features != self._features:
            self._finish()
            self._hour, self._features = hour, item.answer.features
        if not self._columns["score"]:
            self._since = time.monotonic()
        for name, values in rows(item.question, item.answer, item.given, with_features=self.config.features).items():
            self._columns[name] += values

    def _finish(self) -> None:
        """Give the file its name."""
        count, self._since = len(self._columns["score"]), time.monotonic()
        if not count:
            return
        moment = dt.datetime.fromtimestamp(self._hour * 3_600, dt.UTC)
        first = min(self._columns["ts"])
        name = f"hour={moment:%Y-%m-%dT%H}/part-{first}-{self._writer}-{self.figures.files}.parquet"
        columns, self._columns = self._columns, {name: [] for name in _SCHEMA.names}
        try:
            write(f"{str(self.location).rstrip('/')}/{name}", columns, self._features)
        except OSError as error:
            self.figures.lost += count
            _log.error("%d rows of what was served are lost: %s", count, error)
            return
        self.figures.files += 1
        self.figures.written += count


def rows(question: Question, answer: Answer, given: Assignment | None, *, with_features: bool = True) -> dict[str, list[Any]]:
    """The columns of `schema.SERVED` of one answer; times in microseconds since 1970."""
    jobs, count, draft = answer.jobs, len(answer.jobs), answer.interleaved
    is_shuffled = any(job.propensity < 1 for job in jobs)
    order = sorted(range(count), key=lambda i: (-jobs[i].score, i))
    rank = {at: number + 1 for number, at in enumerate(order)}
    same: dict[str, Any] = {
        "request_id": answer.request_id, "ts": answer.ts, "user_id": question.user_id, "query": question.query,
        "city": question.city, "region": question.region, "country": question.country, "randomised": answer.randomised,
        "shuffled": is_shuffled, "experiment": given.experiment if given else "", "salt": given.salt if given else "",
        "unit": given.unit if given else "", "arm": given.arm if given else "", "why": given.why if given else "",
        "interleaving": draft.salt if draft else "", "failed": draft.failed if draft else "",
        "other_bundle": draft.other.bundle if draft and draft.other else "",
    }  # fmt: skip
    both = {"a": answer.versions, "b": draft.other if draft and draft.other else answer.versions}
    by_job = [both[source] for source in (draft.sources if draft else ("a",) * count)]
    own: dict[str, list[Any]] = {
        "job_id": [job.job_id for job in jobs], "position": [job.rank for job in jobs],
        "model_rank": list(draft.ranks) if draft else [rank[i] if is_shuffled else jobs[i].rank for i in range(count)],
        "team": list(draft.teams) if draft else [""] * count,
        "bundle_name": [one.name for one in by_job], "bundle": [one.bundle for one in by_job],
        "model": [one.model for one in by_job], "encoder": [one.encoder for one in by_job],
        "catalogue": [one.catalogue for one in by_job], "state": [one.state for one in by_job],
        "score": [job.score for job in jobs], "propensity": [job.propensity for job in jobs],
        "features": [job.features if with_features else None for job in jobs],
    }  # fmt: skip
    return {name: own[name] if name in own else [same[name]] * count for name in _SCHEMA.names}


def write(location: str, columns: Mapping[str, Sequence[Any]], features: Sequence[str]) -> None:
    """Write one file, which takes its name when it is whole.

    Raises:
        StorageError: it cannot be written.
    """
    table = pa.table({name: pa.array(columns[name], _SCHEMA.field(name).type) for name in _SCHEMA.names}, schema=_SCHEMA)
    table = table.replace_schema_metadata({NAMES: "\n".join(features)})
    write_table(location, table)


def write_table(location: str, table: pa.Table) -> None:
    """Write one Parquet file, which takes its name when it is whole."""
    place = storage.Location.parse(location)
    if place.is_local:
        with storage.atomic_file(place.local) as temporary:
            _write(table, temporary)
        return
    with tempfile.TemporaryDirectory() as scratch:
        _write(table, Path(scratch) / "part.parquet")
        storage.upload(Path(scratch) / "part.parquet", place)


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def files(location: storage.LocationLike) -> list[str]:
    """The files of a served log in the order of their hours; none where there is none.

    Raises:
        StorageError: the store cannot be reached.
    """
    try:
        return [name for name in storage.list_files(location) if name.endswith(".parquet")]
    except StorageError as error:
        if error.problem == "nothing is there":
            return []
        raise


def remove(name: str) -> None:
    """Remove a file of the log, and its hour's folder where that is left empty."""
    if not storage.is_local(name):
        storage.remove(name)
        return
    path = storage.local_path(name)
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds other files
        path.parent.rmdir()


def hour_of(name: str) -> int | None:
    """The hour whose rows a file of the log holds, in microseconds since 1970; None where the name does not say."""
    found = re.search(r"hour=(\d{4}-\d{2}-\d{2}T\d{2})/", name)
    if not found:
        return None
    moment = dt.datetime.strptime(found[1], "%Y-%m-%dT%H").replace(tzinfo=dt.UTC)
    return int(moment.timestamp()) * 1_000_000
