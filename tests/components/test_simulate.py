"""The command line, as a process."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "tritower.simulate", *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    place = tmp_path_factory.mktemp("cli")
    (place / "knobs.toml").write_text("ctr = 0.1\nseed = 5\n")
    done = run("--out", place / "log", "--preset", "tiny", "--config", place / "knobs.toml", "--seed", 6, "--set", "drift=0.5")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["impressions"] == 1_000
    assert "impressions: 1,000 rows" in done.stderr
    return place / "log"


def test_knobs_come_from_preset_file_and_options_in_this_order(log):
    config = json.loads((log / "world/world.json").read_text())["config"]
    assert (config["impressions"], config["days"], config["ctr"], config["seed"], config["drift"]) == (1_000, 14, 0.1, 6, 0.5)


def test_truth_verb(log, tmp_path):
    truth = pq.read_table(log / "truth")
    pq.write_table(truth.select(["request_id", "job_id"]), tmp_path / "in.parquet")
    done = run("truth", "--log", log, "--recommendations", tmp_path / "in.parquet", "--out", tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "out.parquet")["true_probability"].equals(truth["relevance"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "randomized_share=1"], "Did you mean 'randomised_share'?"),
        (["--set", "ctr"], "is not KNOB=VALUE"),
        (["--config", "/nowhere.toml"], "cannot be read"),
        (["--impressions", "3"], "of at least 100"),
    ],
)
def test_wrong_options_are_explained_and_leave_nothing(tmp_path, arguments, message):
    done = run("--out", tmp_path / "log", *arguments)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_component_is_the_same_step(tmp_path):
    """KFP turns whole numbers in a dict into floats; the log is the same."""
    from kfp.dsl import Dataset, Metrics
    from tritower.simulate.component import simulate

    for name, config in (("a", {"impressions": 500.0, "days": 3.0}), ("b", {"impressions": 500, "days": 3})):
        log, metrics = Dataset(uri=str(tmp_path / name)), Metrics(uri=str(tmp_path / f"{name}.json"))
        simulate.python_func(log=log, metrics=metrics, config=config)
        assert metrics.metadata["impressions"] == log.metadata["rows"] == 500
    one, two = (pq.read_table(tmp_path / name / "impressions") for name in ("a", "b"))
    assert one.equals(two)


# What ingest calls each kind of bad row; an equal copy is not refused but dropped, an impossible position taken for unknown.
REASONS = {
    "missing_job": "missing_value",
    "unknown_job": "unknown_job",
    "missing_user": "missing_value",
    "wrong_ts": "out_of_range",
    "click_before_impression": "click_before_impression",
    "click_time_without_click": "click_time_without_click",
    "conflicting_duplicate": "duplicate_id",
}


def test_ingest_refuses_exactly_the_rows_that_were_damaged(tmp_path):
    from tritower.ingest import step as ingest
    from tritower.ingest.config import IngestConfig
    from tritower.simulate import step
    from tritower.simulate.config import SimulateConfig

    log, dataset = tmp_path / "log", tmp_path / "dataset"
    step.run(out=log, config=SimulateConfig(impressions=8_000, days=6, bad_rows=0.05, part_requests=200))
    tables = {"jobs": log / "jobs.parquet", "impressions": log / "impressions", "users": log / "users.parquet"}
    places = {name: str(place) for name, place in tables.items()}
    counts = ingest.run(**places, dataset=dataset, config=IngestConfig(max_quarantined_share=0.2))
    manifest = json.loads((log / "bad_rows.json").read_text())
    refused = pq.read_table(dataset / "quarantine.parquet").to_pylist()
    found = {(Path(row["source"]).name, row["source_row"]): row["reason"] for row in refused}
    expected = {(row["file"], row["row"]): REASONS[row["kind"]] for row in manifest["rows"] if row["kind"] in REASONS}
    assert found == expected
    assert set(manifest["counts"]) == {*REASONS, "duplicate", "position_out_of_range"} and min(manifest["counts"].values()) > 0
    assert counts["impressions_deduplicated"] == manifest["counts"]["duplicate"]
    mended = json.loads((dataset / "quality.json").read_text())["counts"]["impressions"]["mended"]
    assert mended["position.out_of_range"] == manifest["counts"]["position_out_of_range"]
    assert counts["impressions_out"] == pq.read_table(log / "truth").num_rows
