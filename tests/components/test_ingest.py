"""The component as a plain call."""

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kfp import dsl
from tritower import storage
from tritower.errors import ConfigError
from tritower.ingest.component import ingest


def test_the_component_writes_a_dataset(tmp_path: Path) -> None:
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    pq.write_table(
        pa.table({"job_id": ["a", "b"], "title": ["Nurse", "Cook"], "company": ["X", "Y"]}), tmp_path / "jobs.parquet"
    )
    times = [start + datetime.timedelta(hours=i) for i in range(40)]
    rows = {
        "request_id": [f"r{i}" for i in range(40)],
        "ts": times,
        "user_id": ["u"] * 40,
        "query": ["nurse"] * 40,
        "job_id": ["a", "b"] * 20,
        "clicked": [i % 4 == 0 for i in range(40)],
    }
    pq.write_table(pa.table(rows), tmp_path / "impressions.parquet")
    dataset = dsl.Dataset(uri=str(tmp_path / "dataset"))
    quality = dsl.HTML(uri=str(tmp_path / "quality.html"))
    metrics = dsl.Metrics(uri=str(tmp_path / "metrics"))
    ingest.python_func(
        jobs=str(tmp_path / "jobs.parquet"),
        impressions=str(tmp_path / "impressions.parquet"),
        dataset=dataset,
        ingest_report=quality,
        ingest_metrics=metrics,
        engine="duckdb",
        config={"threads": 1.0},
    )
    rows = {name: [metrics.metadata[f"{name}_{kind}"] for kind in ("in", "out", "refused")] for name in ("impressions", "jobs")}
    assert rows == {"impressions": [40, 40, 0], "jobs": [2, 2, 0]} and metrics.metadata["searches"] == 40
    assert len(metrics.metadata) == 10  # a backend's page shows ten
    assert storage.read_json(metrics.path)["test_impressions"] == 6
    assert storage.read_json(tmp_path / "dataset" / "dataset.json")["splits"]["train"]["impressions"] == 28
    assert "<table" in (tmp_path / "quality.html").read_text()


def test_another_engine_is_refused(tmp_path: Path) -> None:
    dataset, quality, metrics = dsl.Dataset(uri=str(tmp_path / "a")), dsl.HTML(uri=str(tmp_path / "b")), dsl.Metrics(uri="")
    out = {"dataset": dataset, "ingest_report": quality, "ingest_metrics": metrics}
    with pytest.raises(ConfigError, match="'polars' does not fit: Input should be 'duckdb' or 'spark'"):
        ingest.python_func(jobs="", impressions="", **out, engine="polars")


def test_a_backend_that_leaves_the_word_for_a_runs_id_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    """All runs of a schedule would have one data version, and take their steps from the cache."""
    dataset, quality, metrics = dsl.Dataset(uri=str(tmp_path / "a")), dsl.HTML(uri=str(tmp_path / "b")), dsl.Metrics(uri="")
    out = {"dataset": dataset, "ingest_report": quality, "ingest_metrics": metrics}
    with pytest.raises(ConfigError, match=r"the data version is still '\{\{workflow\.uid\}\}', the same for all runs"):
        ingest.python_func(jobs="/nowhere", impressions="/nowhere", **out, data_version="{{workflow.uid}}")
