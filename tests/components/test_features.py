"""The feature components called as plain functions."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from tritower.errors import ConfigError
from tritower.features.component import features

from tests.support import tiny_dataset


def artifact(path: Path) -> SimpleNamespace:
    return SimpleNamespace(path=str(path), uri=str(path), metadata={})


def test_features_candidates_and_the_next_day(tmp_path: Path) -> None:
    folder = tiny_dataset.build(tmp_path / "in", requests=12)
    data = {"dataset": artifact(folder / "dataset"), "embeddings": artifact(folder / "embeddings")}

    def outputs(name: str) -> dict[str, SimpleNamespace]:
        return {kind: artifact(tmp_path / f"{name}-{kind}") for kind in ("features", "state")}

    out = outputs("whole")
    features.python_func(**data, **out, config={"history_clicks": 16.0})
    assert out["features"].metadata["rows"] == 60

    candidates = tmp_path / "candidates"
    (candidates / "candidates").mkdir(parents=True)
    pq.write_table(pq.read_table(folder / "dataset" / "impressions" / "test"), candidates / "candidates" / "part-0.parquet")
    pq.write_table(pq.read_table(folder / "dataset" / "requests.parquet"), candidates / "requests.parquet")
    again = outputs("candidates")
    features.python_func(**data, **again, candidates=artifact(candidates))
    expected = pq.read_table(Path(out["features"].path) / "test")
    assert pq.read_table(Path(again["features"].path) / "candidates").equals(expected)

    first = tiny_dataset.excerpt(folder, tmp_path / "first", 0, 8, seed=1)
    day = {"dataset": artifact(first / "dataset"), "embeddings": artifact(first / "embeddings")}
    earlier, later = outputs("earlier"), outputs("later")
    features.python_func(**day, **earlier)
    features.python_func(**data, **later, previous_state=earlier["state"].path)
    assert later["features"].metadata["rows_skipped"] == 40
    assert pq.read_table(Path(later["features"].path) / "test").equals(expected)


def test_another_engine_is_refused(tmp_path: Path) -> None:
    out = {name: artifact(tmp_path / name) for name in ("dataset", "embeddings", "features", "state")}
    with pytest.raises(ConfigError, match="'polars' does not fit: Input should be 'duckdb' or 'spark'"):
        features.python_func(**out, engine="polars")
