"""The step on real files: layout, keys, null for missing, and no event at or after a row's time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tritower import schema
from tritower.errors import ArtifactError, StorageError
from tritower.features import catalogue, source, step
from tritower.features.config import FeaturesConfig

from tests.support import tiny_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_dataset.build(tmp_path_factory.mktemp("tiny"))
    step.run(
        dataset=folder / "dataset", embeddings=folder / "embeddings", features=folder / "features", config=FeaturesConfig()
    )
    return folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for split in schema.SPLITS for row in pq.read_table(folder / split).to_pylist()]


def test_layout_follows_the_schema(folder: Path) -> None:
    described = json.loads((folder / "features" / "features.json").read_text())
    names = catalogue.whole_layout(with_entities=False).names
    assert [f["name"] for f in described["features"]] == names
    table = pq.read_table(folder / "features" / "train" / "part-00000.parquet")
    assert table.schema.names == [*schema.FEATURE_KEYS.names(), *names, "occupation_key", "description_text"]
    jobs = pq.read_table(folder / "dataset" / "jobs.parquet")["description_text"].to_pylist()
    assert None in jobs
    assert all(row["description_text"] == jobs[row["job"]] for row in rows_of(folder / "features"))
    assert [row["row"] for row in rows_of(folder / "features")] == list(range(300))


def test_values_keep_their_range(folder: Path) -> None:
    rows = rows_of(folder / "features")
    for feature in catalogue.whole_layout(with_entities=False).features:
        values = [row[feature.name] for row in rows if row[feature.name] is not None]
        assert values, feature.name
        assert feature.low is None or min(values) >= feature.low, feature.name
        assert feature.high is None or max(values) <= feature.high, feature.name


def test_counts_are_those_of_strictly_earlier_events(folder: Path) -> None:
    impressions = rows_of(folder / "dataset" / "impressions")
    for row, got in zip(impressions, rows_of(folder / "features"), strict=True):
        before = [e for e in impressions if e["job"] == row["job"] and e["ts"] < row["ts"]]
        clicks = [e for e in impressions if e["job"] == row["job"] and e["clicked"] and e["clicked_at"] < row["ts"]]
        mine = [e for e in impressions if e["user"] == row["user"] and e["clicked"] and e["clicked_at"] < row["ts"]]
        assert got["job_impressions"] == np.float32(np.log1p(len(before)))
        assert got["job_clicks"] == np.float32(np.log1p(len(clicks)))
        assert got["history_clicks"] == np.float32(np.log1p(len(mine)))
        assert (got["job_ctr"] is None) == (not before)
        assert (got["history_cos_max"] is None) == (not mine)


@pytest.mark.parametrize("batch_rows", [1, 7, 64])
def test_batches_may_be_cut_anywhere(folder: Path, tmp_path: Path, batch_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BATCH_ROWS", batch_rows)
    step.run(dataset=folder / "dataset", embeddings=folder / "embeddings", features=tmp_path / "f", config=FeaturesConfig())
    for split in schema.SPLITS:
        assert pq.read_table(tmp_path / "f" / split).equals(pq.read_table(folder / "features" / split))


def test_candidates_see_the_same_history(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every impression offered as a candidate gets the features it has as an impression."""
    parts = [pq.read_table(folder / "dataset" / "impressions" / split) for split in schema.SPLITS]
    (tmp_path / "candidates" / "candidates").mkdir(parents=True)
    for i, part in enumerate(parts):
        pq.write_table(part, tmp_path / "candidates" / "candidates" / f"part-{i:05d}.parquet")
    pq.write_table(pq.read_table(folder / "dataset" / "requests.parquet"), tmp_path / "candidates" / "requests.parquet")
    for batch_rows in (11, 100_000):
        monkeypatch.setattr(source, "BATCH_ROWS", batch_rows)
        step.run(
            dataset=folder / "dataset", embeddings=folder / "embeddings", features=tmp_path / "f",
            config=FeaturesConfig(), candidates=tmp_path / "candidates",
        )  # fmt: skip
        got = pq.read_table(tmp_path / "f" / "candidates").to_pylist()
        assert got == rows_of(folder / "features")


def test_embeddings_of_another_dataset_are_refused(folder: Path, tmp_path: Path) -> None:
    tiny_dataset.embed(tmp_path / "e", np.zeros((3, 4), np.float16))
    with pytest.raises(ArtifactError, match="Embed this dataset again"):
        step.run(dataset=folder / "dataset", embeddings=tmp_path / "e", features=tmp_path / "f", config=FeaturesConfig())
    with pytest.raises(StorageError, match="embeddings are missing"):
        step.run(dataset=folder / "dataset", embeddings=tmp_path, features=tmp_path / "f", config=FeaturesConfig())
    assert not (tmp_path / "f").exists()
