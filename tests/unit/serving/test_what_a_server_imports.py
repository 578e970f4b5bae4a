"""A server's memory and start are also what it imports: none of what only training, drawing, submitting or a cluster needs."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tritower import processes
from tritower.baseline import step as baseline
from tritower.baseline.config import BaselineConfig
from tritower.serving import step

from tests.support.bundles import Run
from tests.support.serving_process import served

NOT_NEEDED = {
    "torch", "transformers", "sentence_transformers", "datasets", "optuna", "sklearn", "pandas", "matplotlib", "duckdb",
    "openvino", "kfp", "kubernetes", "tensorflow", "nncf",
}  # fmt: skip


@pytest.mark.slow
def test_a_server_that_has_answered_has_imported_nothing_that_answers_do_not_need(run: Run, tmp_path: Path) -> None:
    """With every part that a bundle can have: entities, and a baseline by XGBoost. The interpreter lists what it imports."""
    config = BaselineConfig(variant="cosines", search_trials=0, rounds=8)
    places = {"model": tmp_path / "model", "scores": tmp_path / "scores"}
    baseline.run(features=run.sources.features, embeddings=run.sources.embeddings, **places, config=config)
    folders = {name: folder for name, folder in vars(run.sources).items() if folder}
    step.bundle(**folders, baseline=tmp_path / "model", out=tmp_path / "bundle")
    arguments = ("serve", "--bundle", str(tmp_path / "bundle"), "--config", '{"port": 0, "rate_per_s": 0}')
    python, *others = processes.module("tritower.serving", *arguments)
    with served([python, "-X", "importtime", *others], tmp_path) as running, running.client() as client:
        ids = pq.read_table(run.sources.dataset / "jobs.parquet")["job_id"].to_pylist()[:60]
        answer = client.post("/rank", json={"query": "nurse", "candidates": ids})
        page = client.get("/", params={"query": "nurse"})
        libraries = Path(f"/proc/{running.process.popen.pid}/maps").read_text()
    assert answer.status_code == 200 and answer.json()["jobs"] and page.status_code == 200
    # A package that was looked for in vain is in the list as well, its own modules are not.
    imported = set(re.findall(r"^import time:.*\| +(\w+)\.", running.said(), re.MULTILINE))
    loaded = set(re.findall(r"/site-packages/(\w+)", libraries))
    assert {"tritower", "numpy", "xgboost", "spacy"} <= imported and {"numpy", "pyarrow"} <= loaded
    assert not NOT_NEEDED & imported and not NOT_NEEDED & loaded
