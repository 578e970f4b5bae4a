"""Feature rows as XGBoost takes them, one Parquet batch at a time.

Legend: N rows, F columns.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost as xgb

from tritower.errors import SchemaError

_TEXTS = ("query_text", "document_text", "description_text")
Derive = Callable[[npt.NDArray[np.integer], npt.NDArray[np.integer], npt.NDArray[np.integer]], npt.NDArray[np.float32]]
_KEYS = ("row", "request", "position", "clicked")
BATCH_ROWS = 131_072
"""Rows read at a time, which bounds the memory of reading and scoring; a row of 100 columns takes 400 bytes."""
_UNKNOWN = {"position": 0, "description_text": -1}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some rows: the columns trees see, and the keys beside them. Position 0 stands for a missing one."""

    matrix_NF: npt.NDArray[np.float32]
    row_N: npt.NDArray[np.int64]
    request_N: npt.NDArray[np.int64]
    position_N: npt.NDArray[np.int16]
    clicked_N: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One split's rows: which files, which columns, what share of the requests."""

    parts: Sequence[Path]
    features: Sequence[str]
    derive: Derive | None = None
    derived_names: Sequence[str] = ()
    share: float = 1.0

    def names(self) -> list[str]:
        """Column names of `Batch.matrix_NF` in order."""
        return [*self.features, *self.derived_names]

    def batches(self) -> Iterator[Batch]:
        """The rows in file order; requests outside `share` are left out whole."""
        for table in self._tables([*_KEYS, *(_TEXTS if self.derive else ()), *self.features]):
            matrix = np.empty((len(table), len(self.features)), dtype=np.float32)
            for i, name in enumerate(self.features):
                matrix[:, i] = _numpy(table[name])
            if self.derive is not None:
                more = self.derive(*(_column(table, name) for name in _TEXTS))
                matrix = np.concatenate([matrix, more], axis=1)
            yield Batch(
                matrix_NF=matrix,
                row_N=_numpy(table["row"]),
                request_N=_numpy(table["request"]),
                position_N=_column(table, "position"),
                clicked_N=_numpy(table["clicked"]),
            )

    def keys(self, *names: str) -> list[npt.NDArray[Any]]:
        """Key columns of all rows, in the same order as `batches`; a missing position is 0, a missing description -1."""
        chunks: list[list[npt.NDArray[Any]]] = [[] for _ in names]
        for table in self._tables([*dict.fromkeys([*names, "request"])]):
            for chunk, name in zip(chunks, names, strict=True):
                chunk.append(_column(table, name))
        return [np.concatenate(chunk) for chunk in chunks]

    def rows(self) -> int:
        """Rows of the files, before `share`."""
        return sum(pq.read_metadata(part).num_rows for part in self.parts)

    def _tables(self, columns: list[str]) -> Iterator[pa.Table]:
        for part in self.parts:
            with pq.ParquetFile(part) as file:
                missing = sorted(set(columns) - set(file.schema_arrow.names))
                if missing:
                    raise SchemaError(
                        f"columns are missing: {', '.join(missing)}", where=str(part), remedy="Run the features step again."
                    )
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                    table = pa.Table.from_batches([batch])
                    if self.share < 1:
                        table = table.filter(pa.array(_kept(_numpy(table["request"]), self.share)))
                    if len(table):
                        yield table


class Iterate(xgb.DataIter):
    """A `Source` behind XGBoost's data iterator, so that a QuantileDMatrix is built batch by batch."""

    def __init__(self, source: Source) -> None:
        super().__init__(release_data=True)
        self._source = source
        self._batches = source.batches()

    def next(self, input_data: Callable[..., None]) -> bool:
        """Hand over one batch; False at the end."""
        batch = next(self._batches, None)
        if batch is None:
            return False
        input_data(data=batch.matrix_NF, label=batch.clicked_N.astype(np.float32), feature_names=self._source.names())
        return True

    def reset(self) -> None:
        """Start over."""
        self._batches = self._source.batches()


def _column(table: pa.Table, name: str) -> npt.NDArray[Any]:
    return _numpy(table[name].fill_null(_UNKNOWN[name]) if name in _UNKNOWN else table[name])


def _numpy(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = column.to_numpy()  # a null float becomes NaN, which is XGBoost's missing value
    return array


def _kept(request_N: npt.NDArray[Any], share: float) -> npt.NDArray[np.bool_]:
    # Knuth's multiplicative hash: requests are numbered in time order, so a plain modulus would be periodic.
    mixed = (request_N.astype(np.uint64) * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
    return mixed < np.uint64(share * 2**32)
