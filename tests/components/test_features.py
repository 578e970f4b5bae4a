"""The feature components called as plain functions."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
from tritower.features.component import candidate_features, features

_spec = importlib.util.spec_from_file_location(
    "tiny_dataset", Path(__file__).parents[1] / "unit" / "features" / "tiny_dataset.py"
)
assert _spec and _spec.loader
tiny_dataset = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny_dataset)


def artifact(path: Path) -> SimpleNamespace:
    return SimpleNamespace(path=str(path), metadata={})


def test_features_and_candidates(tmp_path: Path) -> None:
    folder = tiny_dataset.build(tmp_path / "in", requests=12)
    dataset, embeddings = artifact(folder / "dataset"), artifact(folder / "embeddings")
    out, metrics = artifact(tmp_path / "features"), artifact(tmp_path / "metrics.json")
    features.python_func(dataset=dataset, embeddings=embeddings, features=out, metrics=metrics, config={"batch_rows": 16.0})
    assert metrics.metadata["rows"] == 60
    assert json.loads((tmp_path / "metrics.json").read_text())["rows"] == 60

    candidates = tmp_path / "candidates"
    (candidates / "candidates").mkdir(parents=True)
    pq.write_table(pq.read_table(folder / "dataset" / "impressions" / "test"), candidates / "candidates" / "part-0.parquet")
    pq.write_table(pq.read_table(folder / "dataset" / "requests.parquet"), candidates / "requests.parquet")
    again = artifact(tmp_path / "candidate_features")
    candidate_features.python_func(
        dataset=dataset, embeddings=embeddings, candidates=artifact(candidates), features=again, metrics=metrics
    )
    got = pq.read_table(tmp_path / "candidate_features" / "candidates")
    assert got.equals(pq.read_table(tmp_path / "features" / "test"))
