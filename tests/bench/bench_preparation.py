"""Preparing the rows of a training: `ranker.prepare`, wall and CPU seconds on all cores, least of the rounds, equal to the bit.

naive: one thread, a scan of the table for each of the classes, the descriptions, the normaliser's sample and the rows, and
numpy.interp column by column; each further process of a training would add another sample. `python
tests/bench/bench_preparation.py 10000000` takes another number of rows.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tritower import schema, storage
from tritower.ranker import normaliser, preparation
from tritower.ranker.config import TrainingConfig
from tritower.ranker.rows import COLUMNS

ROWS, FEATURES, GROUP, PER_REQUEST, CLASSES = 1_000_000, 70, 131_072, 15, 150
SAMPLE, KIND = TrainingConfig().normaliser_rows, TrainingConfig().normaliser


def cases(total: int = ROWS, rounds: int = 3) -> list[dict]:
    """One row."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        names = write_features(folder / "features", {"train": total, "validation": 10_000})
        sides = {"naive": folder / "naive", "ours": folder / "ours"}
        ours(folder / "features", folder / "warm", names)  # compiles the normaliser's kernel
        shutil.rmtree(folder / "warm")
        seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, prepare in (("naive", naive), ("ours", ours)):
                shutil.rmtree(sides[side], ignore_errors=True)
                start, cpu_start = time.perf_counter(), time.process_time()
                prepare(folder / "features", sides[side], names)
                seconds[side].append((time.perf_counter() - start, time.process_time() - cpu_start))
                print(f"  {side}: {seconds[side][-1][0]:.1f} s, {seconds[side][-1][1]:.1f} CPU s", flush=True)
        check_equal(sides["naive"], preparation.read(sides["ours"]))
    least, least_cpu = ({side: min(pair[k] for pair in seconds[side]) for side in sides} for k in (0, 1))
    return [{
        "name": "ranker.prepare", "ours": least["ours"], "naive": least["naive"], "peer": None,
        "unit": f"s per {total:,} rows", "ratio_naive": least["naive"] / least["ours"], "ratio_peer": None, "limit_share": None,
        "ratio_cpu": least_cpu["naive"] / least_cpu["ours"],
    }]  # fmt: skip


def ours(features: Path, folder: Path, names: list[str]) -> None:
    preparation.prepare(
        features, folder, names=names, sample=SAMPLE, kind=KIND, occupations=CLASSES, descriptions=True
    )  # fmt: skip


def naive(features: Path, folder: Path, names: list[str]) -> None:
    """A scan for each thing that is asked of the rows."""
    train = sorted((features / "train").glob("*.parquet"))
    described = any(
        pq.read_table(part, columns=["description_text"])[0].null_count < pq.read_metadata(part).num_rows for part in train
    )
    class_K = occupations(train)
    stride = max(1, -(-sum(pq.read_metadata(part).num_rows for part in train) // SAMPLE))
    kept, seen = [], 0
    for _, feature_NF in batches(train, [], names):
        kept.append(feature_NF[(-seen) % stride :: stride].copy())
        seen += len(feature_NF)
    fitted = normaliser.fit(np.concatenate(kept), kind=KIND)
    for split in ("train", "validation"):
        parts = sorted((features / split).glob("*.parquet"))
        total, start = sum(pq.read_metadata(part).num_rows for part in parts), 0
        (folder / split).mkdir(parents=True)
        arrays = {
            name: np.lib.format.open_memmap(folder / split / f"{name}.npy", mode="w+", dtype=kind, shape=shape)
            for name, (kind, shape) in shapes(total, len(names), described=described).items()
        }
        for batch, feature_NF in batches(parts, [*COLUMNS.values(), "occupation_key", "description_text"], names):
            part = slice(start, start + batch.num_rows)
            for name, column in COLUMNS.items():
                arrays[name][part] = filled(batch.column(column), 0)
            normal_NF = np.empty_like(feature_NF)
            for f in range(len(names)):
                normal_NF[:, f] = np.interp(feature_NF[:, f], fitted.knot_FK[f], fitted.value_FK[f])
            arrays["feature"][part] = normal_NF
            code_N = filled(batch.column("occupation_key"), -1)
            arrays["occupation"][part] = np.where(code_N >= 0, class_K[np.maximum(code_N, 0)], -1)
            arrays["description"][part, 0] = filled(batch.column("description_text"), -1)
            start += batch.num_rows
        for array in arrays.values():
            array.flush()


def shapes(total: int, features: int, *, described: bool) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Type and shape of each array."""
    kinds = {"query": np.int32, "document": np.int32, "request": np.int32, "position": np.int16, "clicked": np.bool_,
             "randomised": np.bool_, "occupation": np.int16}  # fmt: skip
    wide = {"feature": (np.float16, (total, features)), "description": (np.int32, (total, int(described)))}
    return {name: (kind, (total,)) for name, kind in kinds.items()} | wide


def batches(parts: list[Path], columns: list[str], names: list[str]) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """Record batches of some columns with the raw features (N, F)."""
    for part in parts:
        for batch in pq.ParquetFile(part).iter_batches(batch_size=65_536, columns=[*columns, *names]):
            feature_NF = np.empty((batch.num_rows, len(names)), np.float32)
            for f, name in enumerate(names):
                feature_NF[:, f] = batch.column(name).to_numpy(zero_copy_only=False)
            yield batch, feature_NF


def filled(column: pa.Array, value: int) -> np.ndarray:
    return (column.fill_null(value) if column.null_count else column).to_numpy(zero_copy_only=False)


def occupations(parts: list[Path]) -> np.ndarray:
    """Class by occupation number."""
    table = pa.concat_tables(pq.read_table(part, columns=["job", "occupation_key"]) for part in parts)
    code_J = table.group_by("job").aggregate([("occupation_key", "min")])["occupation_key_min"].drop_null().to_numpy()
    count_K = np.bincount(code_J)
    kept = np.argsort(-count_K, kind="stable")[: min(CLASSES, np.count_nonzero(count_K))]
    class_K = np.full(len(count_K), -1, np.int16)
    class_K[kept] = np.arange(len(kept))
    return class_K


def check_equal(folder: Path, found: preparation.Prepared) -> None:
    """Raise unless both sides wrote the same bits."""
    for split in ("train", "validation"):
        for name in shapes(0, 0, described=True):
            left, right = np.load(folder / split / f"{name}.npy", mmap_mode="r"), getattr(getattr(found, split), name)
            bits = np.uint16 if left.dtype == np.float16 else left.dtype
            for start in range(0, len(left), GROUP):
                part = slice(start, start + GROUP)
                assert np.array_equal(np.asarray(left[part]).view(bits), np.asarray(right[part]).view(bits)), (split, name)


def write_features(folder: Path, sizes: dict[str, int]) -> list[str]:
    """A features folder in the shape of a real one: a third of the columns are counts, a third the same for all rows of a
    search, a third real numbers of 1,000 steps; one value in eight is missing. Row groups repeat.
    """
    random = np.random.default_rng(0)
    names = [f"feature_{f}" for f in range(FEATURES)]
    storage.write_json(folder / "features.json", {"version": 1, "features": [{"name": name} for name in names]})
    for split, total in sizes.items():
        table = group(random, names, min(GROUP, total))
        (folder / split).mkdir()
        for number, start in enumerate(range(0, total, 8 * GROUP)):
            with pq.ParquetWriter(folder / split / f"part-{number:05d}.parquet", table.schema, compression="zstd") as writer:
                for first in range(start, min(start + 8 * GROUP, total), GROUP):
                    writer.write_table(table.slice(0, min(GROUP, total - first)), row_group_size=GROUP)
    return names


def group(random: np.random.Generator, names: list[str], n: int) -> pa.Table:
    """One row group."""
    request = np.arange(n) // PER_REQUEST
    document = (random.random(n) ** 2 * 16_000).astype(np.int64)
    keys = {
        "row": np.arange(n), "request": request, "ts": np.arange(n), "user": request % 1000, "job": document,
        "query_text": random.integers(0, 9000, n // PER_REQUEST + 1)[request], "document_text": 9000 + document,
        "position": np.arange(n) % PER_REQUEST + 1, "clicked": random.random(n) < 0.08, "randomised": np.zeros(n, bool),
        "occupation_key": document % 250, "description_text": 25_000 + document,
    }  # fmt: skip
    kinds = {c.name: schema.arrow_type(c.type) for c in schema.FEATURE_KEYS.columns}
    kinds |= {"occupation_key": pa.int32(), "description_text": pa.int32()}
    columns = {name: pa.array(keys[name]).cast(kind) for name, kind in kinds.items()}
    for f, name in enumerate(names):
        value = (random.poisson(2.0, n), random.normal(size=n // PER_REQUEST + 1)[request], random.normal(size=n).round(3))[
            f % 3
        ]
        columns[name] = pa.array(value, pa.float32(), mask=random.random(n) < 0.125)
    return pa.table(columns)


if __name__ == "__main__":
    print(cases(int(sys.argv[1]), rounds=1))
