"""Day after day through the components, each day's log ingested for itself, equals one run over all days, to the bit."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from kfp import dsl
from tritower import schema
from tritower.features.component import features
from tritower.ingest.component import ingest

DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("daily") / "log"
    command = [sys.executable, "-m", "tritower.simulate", "--out", str(out), "--impressions", "12000"]
    subprocess.run(command, check=True, capture_output=True)
    return out


def artifact(path: Path) -> SimpleNamespace:
    return SimpleNamespace(path=str(path), uri=str(path), metadata={})


def prepared(log: Path, impressions: pa.Table, folder: Path) -> dict[str, SimpleNamespace]:
    """The dataset of some impressions, and a vector for each text that depends on the text alone."""
    folder.mkdir()
    pq.write_table(impressions, folder / "impressions.parquet")
    ingest.python_func(
        jobs=str(log / "jobs.parquet"),
        impressions=str(folder / "impressions.parquet"),
        users=str(log / "users.parquet"),
        dataset=dsl.Dataset(uri=str(folder / "dataset")),
        ingest_report=dsl.HTML(uri=str(folder / "quality.html")),
        ingest_metrics=dsl.Metrics(uri=str(folder / "metrics.json")),
        config={"max_quarantined_share": 1},
    )
    texts = pq.read_table(folder / "dataset" / "texts.parquet").column("value").to_pylist()
    seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts]
    matrix = np.stack([np.random.default_rng(seed).normal(size=8) for seed in seeds]).astype(np.float32)
    (folder / "embeddings").mkdir()
    np.save(folder / "embeddings" / "matrix.npy", (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float16))
    (folder / "embeddings" / "encoder.json").write_text(json.dumps({"hash": "by text", "dim": 8, "texts": len(texts)}))
    return {name: artifact(folder / name) for name in ("dataset", "embeddings")}


def computed(inputs: dict[str, SimpleNamespace], folder: Path, previous_state: str = "") -> pa.Table:
    """The features of all splits, with the source's ids in place of numbers."""
    outputs = {name: artifact(folder / name) for name in ("features", "state")}
    features.python_func(**inputs, **outputs, previous_state=previous_state)
    table = pa.concat_tables([pq.read_table(folder / "features" / split) for split in schema.SPLITS])
    ids = {
        kind: pq.read_table(folder / "dataset" / f"{kind}s.parquet").column(f"{kind}_id").take(table.column(kind))
        for kind in ("request", "job", "user")
    }
    texts = ["query_text", "document_text", "description_text"]
    table = table.drop_columns(["row", "request", "job", "user", *texts, "occupation_key"])
    return pa.table({**ids, **{name: table.column(name) for name in table.column_names}}).combine_chunks()


def test_daily_runs_equal_a_full_rebuild(log: Path, tmp_path: Path) -> None:
    impressions = pq.read_table(log / "impressions")
    # A few rows of the source have no time: they are refused by every run, and belong to no day.
    ts = impressions.column("ts").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    impressions = impressions.filter(ts.is_valid())
    day = pc.divide(pc.subtract(ts.drop_null(), pc.min(ts)), 7 * DAY_US)
    whole = computed(prepared(log, impressions, tmp_path / "whole"), tmp_path / "whole")
    parts, state = [], ""
    for number in range(pc.max(day).as_py() + 1):
        folder = tmp_path / f"week{number}"
        parts.append(computed(prepared(log, impressions.filter(pc.equal(day, number)), folder), folder, state))
        state = str(folder / "state")
    assert len(parts) == 4
    assert whole.num_rows > 11_000
    together = pa.concat_tables(parts).combine_chunks()
    for name in whole.column_names:
        assert together.column(name).equals(whole.column(name)), name


def test_impressions_counted_before_are_left_out(log: Path, tmp_path: Path) -> None:
    """The log of the second run reaches back over the first one's."""
    impressions = pq.read_table(log / "impressions")
    ts = impressions.column("ts").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    half = impressions.filter(pc.less(ts, pc.add(pc.min(ts), 14 * DAY_US)))
    first = computed(prepared(log, half, tmp_path / "half"), tmp_path / "half")
    inputs = prepared(log, impressions, tmp_path / "all")
    later = computed(inputs, tmp_path / "all", str(tmp_path / "half" / "state"))
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "dataset").symlink_to(tmp_path / "all" / "dataset")
    whole = computed(inputs, tmp_path / "again")
    assert pa.concat_tables([first, later]).equals(whole)
