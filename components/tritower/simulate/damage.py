"""Bad rows on request, each recorded, so that a reader of the log can be held to finding exactly these.

Kinds, drawn with equal probability for a damaged row:

    missing_job              job_id is null
    unknown_job              job_id is not in the jobs table
    missing_user             user_id is null
    wrong_ts                 ts lies two centuries ahead
    position_out_of_range    position is 0, and so unknown
    click_before_impression  clicked, and clicked_at a minute before ts
    click_time_without_click not clicked, and yet with clicked_at
    duplicate                an equal copy follows the row
    conflicting_duplicate    a copy without a click at the next position follows the row

A damaged row replaces the row it was made from, which then has no entry in the truth table; the two duplicate kinds add a
row instead, and the row they copy stays good. A row without a position is still a row.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tritower.simulate import chance

KINDS = (
    "missing_job", "unknown_job", "missing_user", "wrong_ts", "position_out_of_range", "click_before_impression",
    "click_time_without_click", "duplicate", "conflicting_duplicate",
)  # fmt: skip
_STILL_A_ROW = KINDS.index("position_out_of_range")
_COPIES = (KINDS.index("duplicate"), KINDS.index("conflicting_duplicate"))
_CENTURIES_US = 200 * 365 * 86_400_000_000
_MINUTE_US = 60_000_000


def draw(seed: int, cell: NDArray[np.int64], share: float) -> NDArray[np.int8]:
    """Kind of damage of each row (an index into KINDS), -1 for a good row; `cell` numbers rows over the whole log."""
    hit = chance.uniform(chance.key(seed, "damage"), cell) < share
    kind = (chance.uniform(chance.key(seed, "kind of damage"), cell) * len(KINDS)).astype(np.int8)
    return np.where(hit, kind, -1).astype(np.int8)


def in_truth(kind: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Rows that stay good: undamaged ones, those that are merely copied, and those that only lack their position."""
    return (kind < 0) | np.isin(kind, (*_COPIES, _STILL_A_ROW))


def apply(table: pa.Table, kind: NDArray[np.int8]) -> tuple[pa.Table, NDArray[np.int8]]:
    """The table with damaged rows and copies, and the kind of each of its rows, -1 for good ones.

    Args:
        table: impressions.
        kind: one per row, from `draw`.
    """
    copied = np.isin(kind, _COPIES)
    rows = np.repeat(np.arange(len(kind)), 1 + copied)
    is_copy = np.r_[False, rows[1:] == rows[:-1]]
    after = np.where(copied[rows] & ~is_copy, -1, kind[rows]).astype(np.int8)
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    columns = {name: column.take(pa.array(rows)) for name, column in columns.items()}
    _spoil(columns, after)
    fields = [field.with_nullable(True).with_type(columns[field.name].type) for field in table.schema]
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields)), after


def records(table: pa.Table, kind: NDArray[np.int8], file: str, first_row: int) -> list[dict[str, Any]]:
    """One entry per bad row: its file, 0-based row in the file, kind and the ids as written."""
    bad = np.flatnonzero(kind >= 0)
    ids = table.select(["request_id", "job_id"]).take(pa.array(bad)).to_pylist()
    return [
        {"file": file, "row": first_row + int(row), "kind": KINDS[kind[row]], **pair}
        for row, pair in zip(bad, ids, strict=True)
    ]


def _spoil(columns: dict[str, Any], kind: NDArray[np.int8]) -> None:
    def is_(name: str) -> NDArray[np.bool_]:
        return np.asarray(kind == KINDS.index(name))

    ts = columns["ts"].cast(pa.int64()).to_numpy()
    job = np.array(columns["job_id"].cast(pa.string()).to_pylist(), object)
    job[is_("unknown_job")] = "gone-" + job[is_("unknown_job")]
    user = np.array(columns["user_id"].cast(pa.string()).to_pylist(), object)
    clicked = columns["clicked"].to_numpy(zero_copy_only=False).copy()
    position = columns["position"].to_numpy().copy()
    clicked_at = columns["clicked_at"].cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False).copy()
    position[is_("position_out_of_range")] = 0
    early, stray, conflict = is_("click_before_impression"), is_("click_time_without_click"), is_("conflicting_duplicate")
    clicked[early], clicked[stray], clicked[conflict] = True, False, False
    position[conflict] += 1
    clicked_at[early] = ts[early] - _MINUTE_US
    clicked_at[stray] = ts[stray] + _MINUTE_US
    time = columns["ts"].type
    columns["job_id"] = pa.array(job, pa.string(), mask=is_("missing_job"))
    columns["user_id"] = pa.array(user, pa.string(), mask=is_("missing_user"))
    columns["ts"] = pa.array(np.where(is_("wrong_ts"), ts + _CENTURIES_US, ts), time)
    columns["clicked"], columns["position"] = pa.array(clicked), pa.array(position)
    columns["clicked_at"] = pa.array(clicked_at, time, mask=~(clicked | stray))
