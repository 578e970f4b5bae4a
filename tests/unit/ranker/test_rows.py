"""Parquet -> arrays: values, order, missing positions and features, clear errors."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import storage
from tritower.errors import ArtifactError, SchemaError
from tritower.ranker import normaliser, preparation, rows


def test_arrays_equal_the_parquet_rows(log, tmp_path: Path):
    names = rows.feature_names(log.features)
    fitted = normaliser.fit(preparation.scan(log.features / "train", names, sample=500).raw_SF, kind="standard")
    written = preparation.write(log.features / "train", tmp_path / "train", names=names, normaliser=fitted)
    table = pq.read_table(log.features / "train")
    np.testing.assert_array_equal(written.query, table["query_text"])
    np.testing.assert_array_equal(written.document, table["document_text"])
    np.testing.assert_array_equal(written.clicked, table["clicked"])
    raw_NF = np.stack([table[name].to_numpy() for name in names], axis=1)
    np.testing.assert_allclose(written.feature, fitted.apply(raw_NF), atol=2e-3)
    np.testing.assert_array_equal(np.isnan(written.feature[:, 2]), np.isnan(raw_NF[:, 2]))
    assert written.feature.dtype == np.float16


def test_a_null_position_becomes_zero(tmp_path: Path):
    columns = {
        "query_text": [1],
        "document_text": [2],
        "request": [0],
        "position": [None],
        "clicked": [True],
        "randomised": [False],
        "x": [None],
    }
    types = [pa.int32(), pa.int32(), pa.int64(), pa.int16(), pa.bool_(), pa.bool_(), pa.float32()]
    (tmp_path / "train").mkdir()
    pq.write_table(
        pa.table([pa.array(v, t) for v, t in zip(columns.values(), types, strict=True)], names=list(columns)),
        tmp_path / "train/part-0.parquet",
    )
    fitted = normaliser.fit(np.array([[1.0], [2.0]], dtype=np.float32), kind="quantile")
    written = preparation.write(tmp_path / "train", tmp_path / "rows", names=["x"], normaliser=fitted)
    assert written.position.tolist() == [0]
    assert np.isnan(written.feature[0, 0])


def test_row_groups_in_parallel_give_what_one_table_gives(tmp_path: Path):
    """Files and row groups of uneven sizes, missing values, ties: to the bit what numpy does with the whole table."""
    random, names = np.random.default_rng(3), ["x", "count", "constant"]
    sizes = {"part-0": [1, 5000, 9000], "part-1": [3], "part-2": [20_000, 17]}
    (tmp_path / "train").mkdir()
    tables = [
        write_part(tmp_path / f"train/{name}.parquet", [random_rows(random, n, names) for n in groups])
        for name, groups in sizes.items()
    ]
    shutil.copytree(tmp_path / "train", tmp_path / "validation")
    preparation.prepare(
        tmp_path, tmp_path / "rows", names=names, sample=1000, kind="quantile", occupations=3, descriptions=True
    )
    found = preparation.read(tmp_path / "rows")

    table = pa.concat_tables(tables)
    raw_NF = np.stack([table[name].to_numpy() for name in names], axis=1)
    fitted = normaliser.fit(raw_NF[:: -(-table.num_rows // 1000)], kind="quantile")
    np.testing.assert_array_equal(found.normaliser.knot_FK, fitted.knot_FK)
    np.testing.assert_array_equal(found.normaliser.value_FK, fitted.value_FK)
    code_J = table.group_by("job").aggregate([("occupation_key", "min")])["occupation_key_min"].drop_null().to_numpy()
    best = sorted(set(code_J), key=lambda code: (-np.count_nonzero(code_J == code), code))[:3]
    assert found.described
    assert {code: found.class_K[code] for code in best} == {code: k for k, code in enumerate(best)}
    assert np.count_nonzero(found.class_K >= 0) == 3
    code_N = table["occupation_key"].fill_null(-1).to_numpy()
    for split in (found.train, found.validation):
        for f in range(len(names)):
            normal_N = np.interp(raw_NF[:, f], fitted.knot_FK[f], fitted.value_FK[f]).astype(np.float32)
            np.testing.assert_array_equal(split.feature[:, f], normal_N.astype(np.float16))
        for name, column in rows.COLUMNS.items():
            values = table[column].fill_null(0) if table[column].null_count else table[column]
            np.testing.assert_array_equal(getattr(split, name), values.to_numpy())
        np.testing.assert_array_equal(split.description[:, 0], table["description_text"].fill_null(-1).to_numpy())
        np.testing.assert_array_equal(split.occupation, [best.index(code) if code in best else -1 for code in code_N])


def random_rows(random: np.random.Generator, n: int, names: list[str]) -> pa.Table:
    """Rows with what the features step writes: nulls in positions, occupations, descriptions and features."""

    def some(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind, mask=random.random(n) < 0.2)

    job = random.integers(0, 500, n)
    columns = {
        "query_text": pa.array(random.integers(0, 99, n), pa.int32()),
        "document_text": pa.array(job, pa.int32()),
        "request": pa.array(np.arange(n) // 7, pa.int64()),
        "position": some(random.integers(1, 50, n), pa.int16()),
        "randomised": pa.array(random.random(n) < 0.1),
        "clicked": pa.array(random.random(n) < 0.1),
        "job": pa.array(job, pa.int32()),
        "occupation_key": pa.array(np.where(job % 5, np.sqrt(job).astype(int), -1), pa.int32(), mask=job % 5 == 0),
        "description_text": some(job + 1000, pa.int32()),
        names[0]: some(random.normal(size=n), pa.float32()),
        names[1]: some(random.integers(0, 4, n), pa.float32()),
        names[2]: pa.array(np.full(n, 2.5), pa.float32()),
    }
    return pa.table(columns)


def write_part(file: Path, groups: list[pa.Table]) -> pa.Table:
    """Write a file of these row groups; the whole of it."""
    with pq.ParquetWriter(file, groups[0].schema) as writer:
        for group in groups:
            writer.write_table(group)
    return pa.concat_tables(groups)


@pytest.mark.parametrize("limit", [1, 7, 6399, 6400, 10**6])
def test_sample_is_evenly_spaced_over_all_parts(log, limit: int):
    table = pq.read_table(log.features / "train", columns=["match"])["match"].to_numpy()
    stride = -(-len(table) // limit) if limit < len(table) else 1
    found = preparation.scan(log.features / "train", ["match"], sample=limit)
    np.testing.assert_array_equal(found.raw_SF[:, 0], table[::stride])


def test_a_missing_column_is_named(log):
    with pytest.raises(SchemaError, match="absent"):
        preparation.scan(log.features / "train", ["absent"], sample=10)


def test_a_matrix_of_another_width_is_refused(tmp_path: Path):
    np.save(tmp_path / "matrix.npy", np.zeros((3, 4), np.float16))
    storage.write_json(tmp_path / "encoder.json", {"hash": "x", "dim": 8})
    with pytest.raises(ArtifactError, match="dim 8"):
        rows.load_embeddings(tmp_path)


def test_the_most_frequent_occupations_of_the_distinct_jobs_become_classes(tmp_path: Path):
    """Code 7 has three jobs, 2 has two (one shown twice), 4 has one; job 9 has none."""
    job, code = [1, 2, 3, 4, 5, 5, 6, 9], [7, 7, 7, 2, 2, 2, 4, None]
    (tmp_path / "train").mkdir()
    table = {"job": pa.array(job, pa.int32()), "occupation_key": pa.array(code, pa.int32())}
    pq.write_table(pa.table(table), tmp_path / "train/part-0.parquet")

    def class_K(most: int) -> np.ndarray:
        return preparation.scan(tmp_path / "train", [], sample=1, occupations=most).class_K

    assert class_K(512)[[7, 2, 4, 0]].tolist() == [0, 1, 2, -1]
    assert class_K(2)[[7, 2, 4]].tolist() == [0, 1, -1]
    assert len(class_K(0)) == 0


def test_a_log_without_occupations_has_no_classes(log):
    assert len(preparation.scan(log.features / "train", [], sample=1, occupations=512).class_K) == 0
