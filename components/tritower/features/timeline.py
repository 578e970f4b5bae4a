"""Which events a row may know: the queue between what has happened and what has been counted.

An impression counts from its `ts` on and a click from `clicked_at` on, both for rows with a *later* time only; rows of the
same instant never see one another. The timeline therefore keeps two queues: impressions of the latest instant, and clicks
not yet past. Kernels walk a batch with one pointer into each queue and apply whatever lies strictly before the row's time;
`finish` keeps the rest for the next batch, or, through the saved state, for the next day.

Legend: N rows of a batch with the queue in front, C clicks in time order. Times are microseconds since 1970.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tritower.errors import DataError

NO_TIME = np.iinfo(np.int64).max
Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Impressions (or candidates) in time order, as plain arrays.

    `position` is 0 where unknown. `clicked_at` is `NO_TIME` where there is no click. `counts` is false for candidates, which
    read the state and never change it. `out` is the row of the output to fill, or -1.
    """

    row: Int64
    request: Int64
    ts: Int64
    user: Int32
    job: Int32
    query: Int32
    position: Int32
    randomised: Bool
    clicked_at: Int64
    counts: Bool
    out: Int64

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, index: Int64 | Bool | slice) -> "Rows":
        """The rows at `index`."""
        if isinstance(index, np.ndarray) and index.dtype == np.bool_ and not index.any():
            return Rows.empty()
        return Rows(**{name: getattr(self, name)[index] for name in _FIELDS})

    @staticmethod
    def concat(parts: "list[Rows]") -> "Rows":
        """The rows of `parts`, one after another."""
        parts = [part for part in parts if len(part)] or parts[:1]
        if len(parts) == 1:
            return parts[0]
        return Rows(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS})

    @staticmethod
    def empty() -> "Rows":
        """No rows."""
        return Rows(**{name: np.empty(0, kind) for name, kind in _FIELDS.items()})


_FIELDS = {
    "row": np.int64, "request": np.int64, "ts": np.int64, "user": np.int32, "job": np.int32, "query": np.int32,
    "position": np.int32, "randomised": np.bool_, "clicked_at": np.int64, "counts": np.bool_, "out": np.int64,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch as kernels take it: `rows[:first]` is the queue of impressions already read.

    `clicks` are the impressions clicked, the queue's and the batch's, in the order of `clicked_at`.
    """

    rows: Rows
    first: int
    clicks: Rows


class Timeline:
    """The two queues, batch after batch."""

    def __init__(self) -> None:
        self.impressions = Rows.empty()
        self.clicks = Rows.empty()
        self.last_ts = np.iinfo(np.int64).min

    def add_clicks(self, clicks: Rows) -> None:
        """Queue clicks whose impressions came before; one that is late counts as if it were of the last row's time."""
        late = np.maximum(clicks.clicked_at, self.last_ts)
        both = Rows.concat([self.clicks, replace(clicks, clicked_at=late)])
        self.clicks = both.take(np.argsort(both.clicked_at, kind="stable"))

    def start(self, rows: Rows) -> Batch:
        """Put the queues in front of the next rows.

        Raises:
            DataError: the rows are not in time order, or start before the previous batch ended.
        """
        if len(rows) and (rows.ts[0] < self.last_ts or (np.diff(rows.ts) < 0).any()):
            raise DataError(
                "impressions are not in time order",
                where=f"row {int(rows.row[0])} and following",
                remedy="Write the dataset sorted by (ts, request); features continue a state only with later rows.",
            )
        clicks = Rows.concat([self.clicks, rows.take(rows.counts & (rows.clicked_at != NO_TIME))])
        # Stable: clicks of one instant stay in the order of their impressions, the queue's before the batch's.
        clicks = clicks.take(np.argsort(clicks.clicked_at, kind="stable"))
        return Batch(rows=Rows.concat([self.impressions, rows]), first=len(self.impressions), clicks=clicks)

    def finish(self, batch: Batch) -> Bool:
        """Keep what no row of the batch could see yet; the mask of `batch.rows` that stays queued."""
        if len(batch.rows):
            self.last_ts = int(batch.rows.ts[-1])
        queued: Bool = (batch.rows.ts >= self.last_ts) & batch.rows.counts
        self.impressions = batch.rows.take(queued)
        self.clicks = batch.clicks.take(batch.clicks.clicked_at >= self.last_ts)
        return queued
