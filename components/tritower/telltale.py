"""Columns of a features folder that tell the label by themselves.

The audit of features and the evaluation use it. In an honest log a single column separates clicked rows from others poorly.
A column that does it nearly perfectly was written with knowledge of the click, such as an id that only clicked rows have.

Legend: N rows.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tritower import schema, storage
from tritower.metrics import auc

KEYS = ("job", "user", "query_text", "document_text")
"""Columns beside the features: numbers in the order of the raw log's ids and texts. A position is none of them: it may tell
much of the clicks of an honest log."""
ROWS = 50_000
"""Rows looked at per split, spread over it: the standard error of an AUC with 5 % clicks is then .006."""
MIN_CLICKS = 30
"""Fewest clicked rows, and others, for a verdict: with fewer, one column in many separates them by chance."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A column that tells the label of a split, by its value or by whether it is missing; `auc` is .5 to 1."""

    column: str
    split: str
    missing: bool
    auc: float

    def __str__(self) -> str:
        """For a reader."""
        how = "whether it is missing" if self.missing else "its value alone"
        return f"{self.column} ({how} has AUC {self.auc:.4f} on the {self.split} rows)"


def columns(features: Path, names: Iterable[str], splits: Iterable[str], limit: float) -> list[Told]:
    """The columns of `names` and `KEYS` whose AUC is at least `limit`, highest first.

    Skips splits that do not exist or have fewer than `MIN_CLICKS` rows of one kind.
    """
    wanted, found = [*names, *KEYS], []
    for split in splits:
        table = sample(features / split, [*wanted, "clicked"]) if (features / split).is_dir() else None
        if table is None or not _enough(clicked_N := table.column("clicked").to_numpy(zero_copy_only=False)):
            continue
        for name in wanted:
            known_N, value_N = _known(table.column(name))
            told = {False: separation(value_N, clicked_N[known_N]) if _enough(clicked_N[known_N]) else 0.5}
            if name not in KEYS:
                told[True] = separation(known_N.astype(np.float32), clicked_N)
            found += [
                Told(column=name, split=split, missing=missing, auc=area) for missing, area in told.items() if area >= limit
            ]
    return sorted(found, key=lambda one: (-one.auc, one.column))


def separation(value_N: npt.NDArray[np.float32], clicked_N: npt.NDArray[np.bool_]) -> float:
    """AUC of a value, or of its negative if that is higher; ties count half."""
    area = auc.auc(value_N, clicked_N)
    return max(area, 1 - area)


def sample(folder: Path, columns: list[str]) -> pa.Table:
    """About `ROWS` rows of a split, some from each row group; all rows of a smaller split."""
    parts = storage.parquet_parts(folder)
    total = sum(pq.read_metadata(part).num_rows for part in parts)
    tables = list(_taken(parts, columns, every=max(1, total // ROWS)))
    return pa.concat_tables(tables) if tables else schema.FEATURE_KEYS.arrow().empty_table()


def _taken(parts: list[Path], columns: list[str], every: int) -> Iterator[pa.Table]:
    """The first `1 / every` of the rows of each row group."""
    for part in parts:
        with pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                size = -(-file.metadata.row_group(group).num_rows // every)
                if size:
                    batch = next(file.iter_batches(size, row_groups=[group], columns=columns))
                    yield pa.Table.from_batches([batch])


def _known(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Which rows have a value, and these values."""
    value_N = column.to_numpy(zero_copy_only=False).astype(np.float32)
    known_N = ~np.isnan(value_N)
    return known_N, value_N[known_N]


def _enough(clicked_N: npt.NDArray[np.bool_]) -> bool:
    clicks = int(clicked_N.sum())
    return min(clicks, len(clicked_N) - clicks) >= MIN_CLICKS
