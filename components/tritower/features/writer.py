"""Writing the features folder: one sub-folder per split, one Parquet part per `PART_ROWS` rows."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tritower import schema
from tritower.features.feature_state import Computed

PART_ROWS = 4_000_000


class Writer:
    """Appends batches of rows in order; `rows` and `missing` count what was written."""

    def __init__(self, out: Path, names: list[str]) -> None:
        self.out = out
        self.rows = 0
        self.missing = 0
        self._open: dict[str, tuple[pq.ParquetWriter, int, int]] = {}
        self._stack = ExitStack()
        self.schema = schema.features_table(names).arrow()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, value, trace)

    def write(self, split: str, keys: pa.RecordBatch, computed: Computed) -> None:
        """Append the rows `keys` (FEATURE_KEYS) with what was computed for them."""
        columns = [pa.array(values_N, from_pandas=True) for values_N in computed.columns.values()]
        self.rows += keys.num_rows
        self.missing += sum(column.null_count for column in columns)
        columns += [_key(computed.occupation_N), _key(computed.description_N)]
        self._writer(split, keys.num_rows).write_table(pa.Table.from_arrays([*keys.columns, *columns], schema=self.schema))

    def empty(self, split: str) -> None:
        """Make sure that the split is there, with no rows if it got none."""
        if split not in self._open:
            self._writer(split, 0)

    def _writer(self, split: str, rows: int) -> pq.ParquetWriter:
        writer, part, filled = self._open.get(split, (None, -1, PART_ROWS + 1))
        if filled + rows > PART_ROWS:
            if writer:
                writer.close()
            (self.out / split).mkdir(exist_ok=True)
            part, filled = part + 1, 0
            path = self.out / split / f"part-{part:05d}.parquet"
            writer = self._stack.enter_context(pq.ParquetWriter(path, self.schema, compression="zstd", use_dictionary=False))
        assert writer is not None
        self._open[split] = (writer, part, filled + rows)
        return writer


def _key(numbers: npt.NDArray[np.int32]) -> pa.Array:
    return pa.array(numbers, mask=numbers < 0)
