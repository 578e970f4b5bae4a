"""Parquet -> arrays: values, order, missing positions and features, clear errors."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import storage
from tritower.errors import ArtifactError, SchemaError
from tritower.ranker import normaliser, rows


def test_arrays_equal_the_parquet_rows(log, tmp_path: Path):
    names = rows.feature_names(log.features)
    fitted = normaliser.fit(rows.sample(log.features / "train", names, limit=500), kind="standard")
    written = rows.write(log.features / "train", tmp_path / "train", names=names, normaliser=fitted)
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
    written = rows.write(tmp_path / "train", tmp_path / "rows", names=["x"], normaliser=fitted)
    assert written.position.tolist() == [0]
    assert np.isnan(written.feature[0, 0])


@pytest.mark.parametrize("limit", [1, 7, 6399, 6400, 10**6])
def test_sample_is_evenly_spaced_over_all_parts(log, limit: int):
    table = pq.read_table(log.features / "train", columns=["match"])["match"].to_numpy()
    stride = -(-len(table) // limit) if limit < len(table) else 1
    np.testing.assert_array_equal(rows.sample(log.features / "train", ["match"], limit=limit)[:, 0], table[::stride])


def test_a_missing_column_is_named(log):
    with pytest.raises(SchemaError, match="absent"):
        rows.sample(log.features / "train", ["absent"], limit=10)


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
    assert rows.classes(tmp_path / "train", 512)[[7, 2, 4, 0]].tolist() == [0, 1, 2, -1]
    assert rows.classes(tmp_path / "train", 2)[[7, 2, 4]].tolist() == [0, 1, -1]
    assert len(rows.classes(tmp_path / "train", 0)) == 0


def test_a_log_without_occupations_has_no_classes(log):
    assert len(rows.classes(log.features / "train", 512)) == 0
