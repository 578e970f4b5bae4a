"""The features step's Parquet -> what a training reads: the arrays of `rows`, the normaliser and the occupations' classes.

Legend: N rows, F features, S sampled rows, J jobs, K occupation codes. Two passes over the row groups, each by several threads:
`scan` learns from train what the arrays depend on, `write` makes them. One process of a machine does both; the others map what
it wrote. To scan and write in one pass, the raw features would have to lie on the disk in between, at twice the bytes of the
arrays themselves; decoding them again costs less.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tritower import storage, threads
from tritower.ranker import normaliser, rows
from tritower.ranker.normaliser import Normaliser
from tritower.ranker.rows import COLUMNS, DESCRIPTION, OCCUPATION, Rows

T = TypeVar("T")
_BLOCK = 32_768  # rows decoded at a time: fewer cost more calls, more cost memory
_TYPES = {
    "query": np.int32,
    "document": np.int32,
    "request": np.int32,
    "position": np.int16,
    "clicked": np.bool_,
    "randomised": np.bool_,
    "occupation": np.int16,
}
_NO_CLASSES = np.empty(0, np.int16)
_FITTED = "fitted.npz"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What one training learns from and its model keeps."""

    normaliser: Normaliser
    class_K: NDArray[np.int16]
    """Class by occupation number, -1 = none; see `Scan`."""
    described: bool
    """Whether the rows have the descriptions' texts."""
    train: Rows
    validation: Rows


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What one pass over a split tells."""

    raw_SF: NDArray[np.float32]
    """Raw features of evenly spaced rows, NaN = missing."""
    class_K: NDArray[np.int16]
    """Class by occupation number: 0, 1, ... for the most frequent among the distinct jobs, -1 for the others. Empty where the
    split has no occupations."""
    described: bool
    """Whether any job has a description."""


@dataclass(frozen=True)
class _Group:
    """A row group: its file, its number there, and the number of its first row in the split."""

    file: Path
    number: int
    start: int

    def blocks(self, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Record batches, each with the number of its first row in the split."""
        start = self.start
        with pq.ParquetFile(self.file) as file:
            for batch in file.iter_batches(_BLOCK, row_groups=[self.number], columns=columns, use_threads=False):
                yield start, batch
                start += batch.num_rows


def prepare(
    features: Path,
    folder: Path,
    *,
    names: list[str],
    sample: int,
    kind: str,
    occupations: int,
    descriptions: bool,
) -> None:
    """Write the rows of train and validation and what was fitted on train to a folder; `read` maps them.

    Args:
        features: the features step's output.
        folder: what an earlier run left of these rows in it goes.
        names: the features, in order.
        sample: rows of train that the normaliser is fitted on, about.
        kind: of the normaliser, see `normaliser.fit`.
        occupations: classes at most.
        descriptions: whether the documents' descriptions are read where there are any.

    Raises:
        SchemaError: a column is missing.
        StorageError: a split has no Parquet files.
    """
    found = scan(features / "train", names, sample=sample, occupations=occupations)
    fitted = normaliser.fit(found.raw_SF, kind=kind)
    described = descriptions and found.described
    for split in ("train", "validation"):
        shutil.rmtree(folder / split, ignore_errors=True)
        write(features / split, folder / split, names=names, normaliser=fitted, descriptions=described, class_K=found.class_K)
    np.savez(folder / _FITTED, knot_FK=fitted.knot_FK, value_FK=fitted.value_FK, class_K=found.class_K, described=described)


def read(folder: Path) -> Prepared:
    """Map what `prepare` wrote to a folder."""
    with np.load(folder / _FITTED, allow_pickle=False) as fitted:
        return Prepared(
            normaliser=Normaliser(fitted["knot_FK"], fitted["value_FK"]),
            class_K=fitted["class_K"],
            described=bool(fitted["described"]),
            train=rows.read(folder / "train"),
            validation=rows.read(folder / "validation"),
        )


def scan(split: Path, names: list[str], *, sample: int, occupations: int = 0) -> Scan:
    """Read every row of a split once, by row groups in parallel.

    Args:
        sample: rows of `raw_SF`, about: every n-th row, or all of them when there are fewer.
        occupations: classes at most.

    Raises:
        SchemaError: a column is missing.
    """
    present = pq.read_schema(storage.parquet_parts(split)[0]).names
    keys = ["job", OCCUPATION] if occupations and OCCUPATION in present else []
    columns = [*names, *keys, *([DESCRIPTION] if DESCRIPTION in present else [])]
    total, groups = _groups(split, columns)
    stride = max(1, -(-total // sample))

    def one(group: _Group) -> tuple[list[NDArray[np.float32]], list[pa.Table], bool]:
        kept, jobs, described = [], [], False
        for start, batch in group.blocks(columns):
            taken = batch.take(pa.array(np.arange(-start % stride, batch.num_rows, stride)))
            kept.append(rows.raw_features(taken, names))
            if keys:
                jobs.append(_code_by_job(pa.Table.from_batches([batch.select(keys)])))
            described = described or (DESCRIPTION in columns and batch.column(DESCRIPTION).null_count < batch.num_rows)
        return kept, [_code_by_job(pa.concat_tables(jobs))] if jobs else [], described

    found = _parallel(one, groups)
    samples = [part for kept, _, _ in found for part in kept]
    jobs = [table for _, tables, _ in found for table in tables]
    return Scan(
        raw_SF=np.concatenate(samples) if samples else np.empty((0, len(names)), np.float32),
        class_K=_classes(_code_by_job(pa.concat_tables(jobs))[OCCUPATION], occupations) if jobs else _NO_CLASSES,
        described=any(described for _, _, described in found),
    )


def write(
    split: Path,
    folder: Path,
    *,
    names: list[str],
    normaliser: Normaliser,
    descriptions: bool = False,
    class_K: NDArray[np.int16] = _NO_CLASSES,
) -> Rows:
    """Turn a split's Parquet files into a folder of arrays, by row groups in parallel; each thread holds one block of rows.

    Raises:
        SchemaError: a column is missing.
    """
    columns = [*COLUMNS.values(), *([DESCRIPTION] if descriptions else []), *([OCCUPATION] if len(class_K) else []), *names]
    total, groups = _groups(split, columns)
    folder.mkdir(parents=True)
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {name: (kind, (total,)) for name, kind in _TYPES.items()}
    shapes |= {"feature": (np.float16, (total, len(names))), "description": (np.int32, (total, int(descriptions)))}
    arrays = {name: _open(folder / f"{name}.npy", kind, shape) for name, (kind, shape) in shapes.items()}

    def one(group: _Group) -> None:
        for start, batch in group.blocks(columns):
            part = slice(start, start + batch.num_rows)
            for name, column in COLUMNS.items():
                arrays[name][part] = _filled(batch.column(column), 0)
            arrays["feature"][part] = normaliser.apply(rows.raw_features(batch, names))
            arrays["occupation"][part] = _class_numbers(batch, class_K)
            if descriptions:
                arrays["description"][part, 0] = _filled(batch.column(DESCRIPTION), -1)

    _parallel(one, groups)
    return rows.read(folder)  # other processes map the same pages: nothing waits for the disk


def _groups(split: Path, columns: list[str]) -> tuple[int, list[_Group]]:
    """Rows and row groups of a split, from the footers of its files, which must all have the columns."""
    total, groups = 0, []
    for part in storage.parquet_parts(split):
        with pq.ParquetFile(part) as file:
            rows.check_columns(part, file.schema_arrow.names, columns)
            for number in range(file.num_row_groups):
                groups.append(_Group(part, number, total))
                total += file.metadata.row_group(number).num_rows
    return total, groups


def _parallel(act: Callable[[_Group], T], groups: list[_Group]) -> list[T]:
    """What `act` gives for each row group, in order; Parquet, numpy and the normaliser's kernel let other threads run."""
    with ThreadPoolExecutor(threads.available()) as pool:
        running = [pool.submit(act, group) for group in groups]
        try:
            return [one.result() for one in running]
        finally:
            pool.shutdown(cancel_futures=True)


def _open(file: Path, kind: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    if 0 in shape:  # a mapping cannot be empty
        np.save(file, np.empty(shape, kind))
        return np.empty(shape, kind)
    array: NDArray[Any] = np.lib.format.open_memmap(file, mode="w+", dtype=kind, shape=shape)
    return array


def _filled(column: pa.Array, value: int) -> NDArray[Any]:
    array: NDArray[Any] = (column.fill_null(value) if column.null_count else column).to_numpy(zero_copy_only=False)
    return array


def _class_numbers(batch: pa.RecordBatch, class_K: NDArray[np.int16]) -> NDArray[np.int16]:
    if not len(class_K):
        return np.full(batch.num_rows, -1, np.int16)
    code_N = _filled(batch.column(OCCUPATION), -1)
    known_N = (code_N >= 0) & (code_N < len(class_K))
    return np.where(known_N, class_K[np.where(known_N, code_N, 0)], -1).astype(np.int16)


def _classes(code_J: pa.ChunkedArray, most: int) -> NDArray[np.int16]:
    count_K = np.bincount(code_J.drop_null().to_numpy())
    kept = np.argsort(-count_K, kind="stable")[: min(most, np.count_nonzero(count_K))]
    class_K = np.full(len(count_K), -1, np.int16)
    class_K[kept] = np.arange(len(kept))
    return class_K


def _code_by_job(table: pa.Table) -> pa.Table:
    jobs = table.group_by("job", use_threads=False).aggregate([(OCCUPATION, "min")])
    return jobs.rename_columns(["job", OCCUPATION])
