"""The `baseline` component as a plain call, with KFP's own artifacts."""

import json
from pathlib import Path

import pytest
from kfp import dsl
from tritower.baseline.component import baseline
from tritower.errors import ConfigError

from tests.support import baseline_log


def call(root, out, **more):
    artifacts = {
        "baseline_model": dsl.Model(uri=str(out / "model"), metadata={}),
        "baseline_scores": dsl.Dataset(uri=str(out / "scores"), metadata={}),
    }
    inputs = {name: dsl.Dataset(uri=str(root / name)) for name in ("features", "embeddings")}
    baseline.python_func(**inputs, **artifacts, **more)
    return artifacts


def test_trains_scores_and_reports(tmp_path):
    baseline_log.write_log(tmp_path / "log")
    config = {"rounds": 10.0, "search_trials": "1", "threads": 1.0}  # as KFP and Katib send them
    artifacts = call(tmp_path / "log", tmp_path / "out", variant="cosines", config=config)
    model = artifacts["baseline_model"]
    assert (Path(model.path) / "model.ubj").is_file()
    assert (Path(artifacts["baseline_scores"].path) / "test.parquet").is_file()
    saved = json.loads((Path(model.path) / "baseline.json").read_text())
    assert model.metadata["features"] == 3 and model.metadata["validation_auc"] == saved["validation_auc"]


def test_an_unknown_variant_is_refused_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match="variant"):
        call(tmp_path, tmp_path / "out", variant="strongest")
