"""The ranker's components as plain calls: artifacts in, artifacts out."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kfp.dsl import Dataset, Metrics, Model
from tritower import schema, storage
from tritower.ranker.component import ranker, score

KNOBS = {
    "query_tower": [8.0], "document_tower": "8", "interaction_tower": [8], "head": [8], "epochs": "1", "batch_size": 64.0,
    "threads": 1, "members": "2",
}  # fmt: skip


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Dataset, Dataset]:
    """Two features, 30 texts, three splits of 256 rows."""
    random, n = np.random.default_rng(0), 256
    embeddings, features = tmp_path / "embeddings", tmp_path / "features"
    embeddings.mkdir()
    features.mkdir()
    np.save(embeddings / "matrix.npy", random.normal(size=(30, 8)).astype(np.float16))
    storage.write_json(embeddings / "encoder.json", {"name": "tiny", "hash": "h", "dim": 8})
    storage.write_json(features / "features.json", {"version": 1, "features": [{"name": "a"}, {"name": "b"}]})
    for number, split in enumerate(schema.SPLITS):
        clicked = random.random(n) < 0.3
        keys = {
            "row": np.arange(n) + n * number, "request": np.repeat(np.arange(n // 4), 4), "ts": np.arange(n),
            "user": np.zeros(n), "job": np.zeros(n),
            "query_text": random.integers(0, 15, n), "document_text": random.integers(15, 30, n),
            "position": np.tile([1, 2, 3, 4], n // 4), "clicked": clicked, "randomised": np.zeros(n, bool),
        }  # fmt: skip
        columns = {c.name: pa.array(keys[c.name]).cast(schema.arrow_type(c.type)) for c in schema.FEATURE_KEYS.columns}
        columns |= {name: pa.array(random.normal(size=n) + clicked, pa.float32()) for name in "ab"}
        (features / split).mkdir()
        pq.write_table(pa.table(columns), features / split / "part-00000.parquet")
    return Dataset(uri=str(features)), Dataset(uri=str(embeddings))


def test_train_then_score(inputs: tuple[Dataset, Dataset], tmp_path: Path):
    features, embeddings = inputs
    model, scores, metrics = (kind(uri=str(tmp_path / name)) for kind, name in ((Model, "m"), (Dataset, "s"), (Metrics, "x")))
    out = {"ranker_model": model, "ranker_scores": scores, "ranker_metrics": metrics}
    ranker.python_func(features=features.uri, embeddings=embeddings.uri, **out, config=KNOBS)
    assert metrics.metadata["steps_of_all_networks"] == 2 * 4.0 and metrics.metadata["networks"] == 2
    assert len(metrics.metadata) <= 10  # a backend's page shows ten
    assert storage.read_json(metrics.path)["validation_auc"] == metrics.metadata["validation_auc"]
    assert sorted(f.name for f in Path(scores.path).glob("[!.]*")) == ["scores.json", "test.parquet", "validation.parquet"]

    again = Dataset(uri=str(tmp_path / "again"))
    score.python_func(features=features, embeddings=embeddings, model=model, scores=again)
    table = pq.read_table(Path(again.path) / "train.parquet")
    assert table.num_rows == 256 and table.schema == schema.SCORES.arrow()
    assert min(table["score"].to_pylist()) > 0 and max(table["score"].to_pylist()) < 1
