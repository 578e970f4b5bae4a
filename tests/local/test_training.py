"""The compiled training pipeline on a small simulated log, as a user runs it: from the command line, in subprocesses.

The steps get the executor inputs of a Kubeflow backend, which an ordinary run here does not hand over.
"""

import datetime as dt
import itertools
import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tritower import processes, storage
from tritower.config import from_dict, to_dict
from tritower.ranker.config import RankerConfig
from tritower.schema import RECOMMENDATIONS

from pipelines import backend_inputs, compiling, running, staged
from tests.support import serving_process
from tests.support.s3 import client, s3_server

ROOT = Path(__file__).parents[2]
METRICS = {"auc", "map@1", "map@3"}


def call(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo's folder, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = call(
        "pipelines", "demo", "--impressions", 6_000, "--seed", 1, "--preset", "quick", "--backend-inputs", "--out", folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def demo_log(demo: tuple[Path, str]) -> Path:
    """The log that the demo ran on."""
    (folder,) = demo[0].glob("log-*")
    return folder


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of its own, for what fails before much is done."""
    folder = tmp_path_factory.mktemp("simulated") / "log"
    done = call("tritower.simulate", "--out", folder, "--preset", "tiny")
    assert done.returncode == 0, done.stderr
    return folder


def run(log: Path | str, root: Path | str, out: Path, *more: str, **inputs: Path | str) -> subprocess.CompletedProcess[str]:
    names = {"jobs": "jobs.parquet", "impressions": "impressions", "users": "users.parquet", "truth": "truth"}
    places = {name: f"{log}/{part}" for name, part in names.items()} | inputs
    options = [part for name, place in places.items() for part in (f"--{name.replace('_', '-')}", place)]
    options += ["--preset", "quick", "--backend-inputs", "--root", root, "--out", out, *more]
    return call("pipelines", "run", "--local", *options)


@pytest.mark.slow
def test_demo_from_raw_logs_to_ranked_jobs(demo: tuple[Path, str], demo_log: Path) -> None:
    folder, printed = demo
    assert "15/15" in printed and "0 of them taken from the cache" in printed
    assert "best possible" in printed and str(folder / "report.html") in printed
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")

    metrics = storage.read_json(folder / "metrics.json")
    for part in ("randomised", "logged"):
        for ranker in ("model", "baseline", "baseline_cos", "oracle"):
            assert metrics[part][ranker].keys() >= METRICS
            assert all(0 <= metrics[part][ranker][name] <= 1 for name in METRICS)
        assert all(metrics[part]["lift"][name].keys() >= {"value", "low", "high"} for name in METRICS)

    table = pq.read_table(folder / "recommendations.parquet")
    assert table.schema.names == [*RECOMMENDATIONS.names(), "true_probability"]
    rows = table.to_pylist()
    assert len({row["request"] for row in rows}) == 10 and max(row["rank"] for row in rows) == 10
    assert all(0 < row["true_probability"] < 1 for row in rows)
    for previous, row in itertools.pairwise(rows):
        if previous["request"] == row["request"]:
            assert (previous["rank"] + 1, previous["score"] >= row["score"]) == (row["rank"], True)
    jobs = {row["job_id"]: row for row in pq.read_table(demo_log / "jobs.parquet").to_pylist()}
    for row in rows:
        job = jobs[row["job_id"]]
        assert job["posted_at"] <= row["ts"] and (job["expires_at"] is None or row["ts"] < job["expires_at"])


@pytest.mark.slow
def test_a_backend_would_take_what_every_step_handed_back(demo: tuple[Path, str]) -> None:
    components = next(yaml.safe_load_all(compiling.yaml_path("training").read_text()))["components"]
    outputs = sorted(demo[0].glob("run/artifacts/*/*/executor_output.json"))
    assert len(outputs) == 15
    for path in outputs:
        output = storage.read_json(path)
        backend_inputs.check_output(output, components[f"comp-{path.parent.name}"])
        assert all(
            None not in artifact["metadata"].values() for one in output["artifacts"].values() for artifact in one["artifacts"]
        )


@pytest.mark.slow
def test_unchanged_input_comes_from_the_cache(demo: tuple[Path, str], demo_log: Path, tmp_path: Path) -> None:
    done = run(demo_log, demo[0] / "run", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 of them taken from the cache" in done.stdout
    assert storage.read_json(tmp_path / "metrics.json") == storage.read_json(demo[0] / "metrics.json")
    assert pq.read_schema(tmp_path / "recommendations.parquet").equals(RECOMMENDATIONS.arrow())


@pytest.mark.slow
def test_batch_ranks_open_jobs_for_every_user(demo: tuple[Path, str], demo_log: Path, tmp_path: Path) -> None:
    options = [part for name in ("jobs", "users") for part in (f"--{name}", demo_log / f"{name}.parquet")]
    done = call(
        "pipelines", "run", "--local", "--pipeline", "batch", *options, "--impressions", demo_log / "impressions",
        "--model", demo[0] / "model", "--encoder", demo[0] / "encoder",
        "--set", "candidates.candidates_per_search=30", "--backend-inputs",
        "--root", tmp_path / "root", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pq.read_table(tmp_path / "out" / "recommendations.parquet").to_pylist()
    searched = pq.read_table(demo_log / "impressions", columns=["user_id", "ts"])
    assert {row["user_id"] for row in rows} == set(searched["user_id"].to_pylist())
    assert {row["ts"] for row in rows} == {max(searched["ts"].to_pylist()) + dt.timedelta(microseconds=1)}


@pytest.mark.slow
def test_the_model_in_use_is_the_one_to_beat_and_baselines_can_be_left_out(
    demo: tuple[Path, str], demo_log: Path, tmp_path: Path
) -> None:
    """The champion is the very model that the run trains, so it is equalled and not beaten."""
    champion = {"model_ranker": demo[0] / "model", "model_encoder": demo[0] / "encoder"}
    done = run(demo_log, demo[0] / "run", tmp_path, "--without", "baselines", **champion)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "17/17" in done.stdout and "Gate: hold" in done.stdout and "over the model in use" in done.stdout
    assert "10 of them taken from the cache" in done.stdout
    metrics, before = (storage.read_json(folder / "metrics.json") for folder in (tmp_path, demo[0]))
    for part in ("randomised", "logged"):
        assert metrics[part]["champion"] == metrics[part]["model"] == before[part]["model"]
        assert {name for name in metrics[part] if name.startswith(("baseline", "lift"))} == {"lift_champion"}
    assert metrics["gate"]["word"] == "hold"


@pytest.mark.slow
def test_the_bundle_of_a_run_shows_the_baselines_order_beside_the_models(
    demo: tuple[Path, str], demo_log: Path, tmp_path: Path
) -> None:
    done = run(demo_log, demo[0] / "run", tmp_path / "out", "--with", "bundle")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16/16" in done.stdout and "14 of them taken from the cache" in done.stdout
    (bundle,) = (demo[0] / "run" / "artifacts").glob("*/bundle/bundle")
    assert storage.read_json(bundle / "baseline" / "baseline.json")["config"]["variant"] == "standard"
    knobs = json.dumps({"port": 0, "as_of": "last_event"})
    command = processes.module("tritower.serving", "serve", "--bundle", str(bundle), "--config", knobs)
    with serving_process.served(command, tmp_path / "server") as running, running.client() as client:
        page = client.get("/", params={"query": "registered nurse"}).text
    assert "XGBoost would show" in page and page.count('<li class="card">') > 1


@pytest.mark.slow
def test_the_best_knobs_of_a_search_are_those_that_are_trained_with(
    demo: tuple[Path, str], demo_log: Path, tmp_path: Path
) -> None:
    space = '[{"name": "learning_rate", "kind": "categorical", "choices": ["0.004", "0.005"]}]'
    more = ["--with", "tune", "--without", "baselines", "--set", "tune.trials=1", "--set", f"tune.space={space}"]
    done = run(demo_log, demo[0] / "run", tmp_path, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    (best,) = (demo[0] / "run" / "artifacts").glob("*/tune/tune_trials")
    found = storage.read_json(best)
    trained = from_dict(RankerConfig, storage.read_json(tmp_path / "model" / "config.json"))
    wanted, used = (flat(to_dict(config)) for config in (from_dict(RankerConfig, found["knobs"]), trained))
    # The number of classes is the data's.
    assert {name for name in wanted if wanted[name] != used[name]} <= {"occupation_classes"}
    assert used["epochs"] == 1 and found["trials"] == 1


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """The knobs of a config by name, nested ones beside the others."""
    nested = {name: flat(value) if isinstance(value, dict) else {name: value} for name, value in config.items()}
    return {name: value for group in nested.values() for name, value in group.items()}


def test_bad_input_fails_at_once_with_one_clear_message(log: Path, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.parquet"
    pq.write_table(pq.read_table(log / "jobs.parquet").drop_columns(["title"]), jobs)
    done = run(log, tmp_path / "root", tmp_path / "out", jobs=jobs)
    assert done.returncode == 1
    (message,) = [line for line in done.stderr.splitlines() if line]
    assert message.startswith("ingest: SchemaError:") and "title" in message
    assert str(tmp_path / "root" / "logs" / "ingest.log") in message
    assert done.stdout.count("FAILED") == 1  # once: a run here has no use for a cluster's retries
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").iterdir())
    # Nothing that a later step could take for whole.
    left = [path for path in (tmp_path / "root" / "artifacts").rglob("*") if path.is_file()]
    assert {path.name for path in left} <= {"executor_output.json"}


def test_wrong_places_and_knobs_fail_before_anything_runs(log: Path, tmp_path: Path) -> None:
    done = run(log, tmp_path / "root", tmp_path / "out", users=tmp_path / "nowhere.csv")
    assert done.returncode == 1 and "nowhere.csv" in done.stderr
    done = call("pipelines", "run", "--local", "--jobs", "x", "--impressions", "y", "--set", "ranker.epoch=1")
    assert done.returncode == 1 and "Did you mean 'training.epochs'?" in done.stderr
    assert not (tmp_path / "root").exists()


def test_an_empty_input_is_named(log: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.parquet"
    pq.write_table(pa.schema(pq.read_schema(log / "jobs.parquet")).empty_table(), empty)
    done = run(log, tmp_path / "root", tmp_path / "out", jobs=empty)
    assert done.returncode == 1
    assert done.stderr.strip().startswith("ingest: ") and "Error" in done.stderr


@pytest.mark.slow
def test_data_and_pipeline_root_in_an_object_store_give_the_same(
    demo: tuple[Path, str], demo_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    root = f"s3://tritower/runs/{uuid.uuid4().hex}"
    kept = ROOT / staged.folder(root, running.KEPT)
    with s3_server(tmp_path / "server.log") as url:
        client(url).create_bucket(Bucket="tritower")
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        for part in ("jobs.parquet", "users.parquet", "impressions", "truth"):
            storage.upload(demo_log / part, f"s3://tritower/log/{part}")
        try:
            done = run("s3://tritower/log", root, tmp_path / "out")
            assert done.returncode == 0, done.stdout + done.stderr
            again = run("s3://tritower/log", root, tmp_path / "again")
            assert "14 of them taken from the cache" in again.stdout
            for part in ("model", "encoder"):
                storage.upload_tree(demo[0] / part, f"s3://tritower/used/{part}")
            used = {f"champion_{part}": f"s3://tritower/used/{part}" for part in ("model", "encoder")}
            beside = run("s3://tritower/log", root, tmp_path / "beside", "--without", "baselines", **used)
            assert beside.returncode == 0 and "Gate: hold" in beside.stdout, beside.stdout + beside.stderr
            here = {path.name for path in (kept / "artifacts").rglob("*") if path.is_file()}
        finally:
            shutil.rmtree(kept)
        sent = storage.list_files(root)
    assert storage.read_json(tmp_path / "out" / "metrics.json") == storage.read_json(demo[0] / "metrics.json")
    # The second run takes all but `record` from the cache.
    assert len([name for name in sent if name.endswith("/executor_output.json")]) == 15 + 1 + 7
    assert here == {"executor_output.json"}
    left = {path.suffix for path in (tmp_path / "scratch").rglob("*") if path.is_file()}
    assert not left & {".parquet", ".npy", ".safetensors", ".ubj"}
