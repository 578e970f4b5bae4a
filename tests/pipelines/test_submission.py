"""Before a run is sent to a backend: can its pods open the locations, and which version do the data have?"""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tritower
from tritower import storage
from tritower.errors import ConfigError, StorageError

from pipelines import runs, submission, version
from tests.support.kfp_api import Api
from tests.support.kfp_nodes import node_hash, tasks

ROOT = Path(__file__).parents[2]


def started(api: Api, *arguments: str, pipeline: str = "training", **environment: str) -> subprocess.Popen[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MINIO_", "TRITOWER_"))}
    command = [sys.executable, "-m", "pipelines", *arguments, "--endpoint", api.url, "--pipeline", pipeline]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=known | environment, text=True, **pipes)  # type: ignore[call-overload]


def call(api: Api, *arguments: str, pipeline: str = "training", **environment: str) -> subprocess.CompletedProcess[str]:
    process = started(api, *arguments, pipeline=pipeline, **environment)
    out, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


@pytest.mark.parametrize("place", ["clicks.csv", "/data/clicks", "file:///data/clicks"])
def test_a_path_of_this_machine_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match=rf"cannot open a path of this machine \(in --data-state {place}\).*Upload"):
        submission.check_locations({"data_jobs": "s3://b/j", "data_users": "", "data_state": place})


def test_locations_that_a_backend_can_open(tmp_path: Path) -> None:
    fine = {
        "data_jobs": "s3://b/j",
        "data_impressions": "gs://b/i",
        "model_ranker": "minio://b/m",
        "model_encoder": "gs://b/e/",
    }
    submission.check_locations(fine)
    with pytest.raises(StorageError, match="unknown scheme 'https'"):
        submission.check_locations(fine | {"data_jobs": "https://example.com/jobs.csv"})


def test_a_version_of_ones_own_reads_nothing() -> None:
    places = {"jobs": "s3://no-such-bucket/j", "impressions": "/nowhere"}
    assert submission.version(places, "export of 2026-11-26") == ("export of 2026-11-26", "")
    for text in ("a\nb", "  ", "x" * 201, "\x1b[2J"):
        with pytest.raises(ConfigError, match="not a line of text"):
            submission.version(places, text)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("s3://b/j", "no credentials for the object store (for s3://b/j)"),
        ("minio://b/j", "no endpoint is set for minio:// (for minio://b/j)"),
        ("gs://b/j", "no Google credentials (for gs://)"),
    ],
)
def test_without_keys_the_version_is_the_time(place: str, reason: str) -> None:
    made, remark = submission.version({"jobs": place, "users": ""})
    again, _ = submission.version({"jobs": place})
    assert made.startswith("unread-20") and made < again
    assert f"cannot be read from here: {reason}" in remark and f"--data-version {made}" in remark


def test_with_keys_the_version_is_that_of_the_data(
    tmp_path: Path, bare: None, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs.csv").write_text("job_id\n1\n")
    place = "s3://bucket/with-keys/jobs.csv"
    monkeypatch.setenv("TRITOWER_S3_ENDPOINT", endpoint)
    assert submission.version({"jobs": place, "users": ""})[0].startswith("unread-")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    # A location that is not there is a mistake, not a store without keys.
    with pytest.raises(StorageError, match=rf"nothing is there \(in {place}\)\. .* Or give --data-version"):
        submission.version({"jobs": place, "users": ""})
    storage.upload(tmp_path / "jobs.csv", place)
    assert submission.version({"jobs": place, "users": ""}) == (version.data_version(place, ""), "")


@pytest.mark.usefixtures("bare")
def test_without_the_library_that_reads_stores_the_version_is_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setitem(sys.modules, "pyarrow.fs", None)
    made, remark = submission.version({"jobs": "s3://b/j"})
    assert made.startswith("unread-") and "pyarrow.fs is not installed here" in remark


def test_submit_needs_no_keys(api: Api) -> None:
    places = ["--jobs", "s3://b/jobs", "--impressions", "minio://b/clicks"]
    done = call(api, "submit", *places, "--data-version", "today")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    run = api.kept["runs"][done.stdout.strip()]
    assert run["runtime_config"]["parameters"]["data_version"] == "today"
    assert re.fullmatch(r"training \d{4}-\d\d-\d\d \d\d:\d\d, data today", run["display_name"])
    version = api.kept["versions"][run["pipeline_version_reference"]["pipeline_version_id"]]
    assert version["name"] == tritower.__version__
    assert run["description"].startswith(f"Version {version['name']}. ") and "s3://b/jobs" in run["description"]

    done = call(api, "submit", *places, AWS_SHARED_CREDENTIALS_FILE="/nowhere")
    assert done.returncode == 0, done.stderr
    made = api.kept["runs"][done.stdout.strip()]["runtime_config"]["parameters"]["data_version"]
    assert made.startswith("unread-") and f"Its version is therefore the time, {made}" in done.stderr


def test_schedule_and_batch_need_none_either(api: Api) -> None:
    places = ["--jobs", "s3://b/jobs", "--impressions", "s3://b/clicks", "--model", "s3://b/model", "--encoder", "minio://b/e"]
    done = call(api, "schedule", "--cron", "0 30 3 * * *", *places, pipeline="batch")
    assert done.returncode == 0, done.stderr
    made = api.kept["recurringruns"][done.stdout.strip()]
    assert made["runtime_config"]["parameters"]["data_version"] == runs.EACH_RUN
    assert made["description"].startswith(f"Serves: s3://b/model. Version {tritower.__version__}. data_jobs: s3://b/jobs.")
    assert done.stderr == ""


def test_a_schedule_finds_its_model_by_the_pointer(api: Api) -> None:
    """Nothing is read from here; the run reads the pointer."""
    places = ["--jobs", "s3://b/jobs", "--impressions", "s3://b/clicks", "--champion", "s3://b/daily"]
    done = call(api, "schedule", "--cron", "0 30 3 * * *", *places, pipeline="batch")
    assert done.returncode == 0, done.stderr
    made = api.kept["recurringruns"][done.stdout.strip()]
    given = made["runtime_config"]["parameters"]
    assert (given["model_champion"], given["model_ranker"], given["data_state"]) == ("s3://b/daily", "", "")
    assert made["description"].startswith("Serves: the champion of s3://b/daily. ")


def test_a_schedule_compares_with_the_model_in_use(api: Api) -> None:
    places = ["--jobs", "s3://b/jobs", "--impressions", "s3://b/clicks", "--champion-model", "s3://b/model"]
    places += ["--champion-encoder", "minio://b/e", "--without", "baselines"]
    done = call(api, "schedule", "--cron", "0 30 3 * * *", *places)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    made = api.kept["recurringruns"][done.stdout.strip()]
    assert made["runtime_config"]["parameters"]["model_encoder"] == "minio://b/e"
    version = api.kept["versions"][made["pipeline_version_reference"]["pipeline_version_id"]]
    # A variant is a pipeline of its own there; its runs are still called training, so that the cache serves them all.
    assert api.kept["pipelines"][version["pipeline_id"]]["name"] == "training-champion-without-baselines"
    assert version["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "training"
    shown = {task["taskInfo"]["name"] for task in version["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"].values()}
    assert {"champion_embed", "champion_features", "champion"} < shown and "baselines" not in shown


def test_a_local_path_is_refused_before_anything_is_sent(api: Api, tmp_path: Path) -> None:
    done = call(api, "submit", "--jobs", str(tmp_path), "--impressions", "s3://b/clicks", "--data-version", "1")
    assert done.returncode == 1 and f"cannot open a path of this machine (in --data-jobs {tmp_path})" in done.stderr
    assert api.calls == []


PLACES = ["--jobs", "s3://b/jobs", "--impressions", "s3://b/clicks", "--data-version", "1"]


@pytest.mark.parametrize("launcher", ["pytorchjob", "trainjob"])
def test_a_run_that_starts_a_job_says_so_to_the_backend(api: Api, launcher: str) -> None:
    done = call(api, "submit", *PLACES, "--launcher", launcher, "--set", "cluster.nodes=2", "--set", "cluster.gpus=8")
    assert done.returncode == 0, done.stderr
    given = api.kept["runs"][done.stdout.strip()]["runtime_config"]["parameters"]
    assert (given["launcher"], given["settings_cluster"]) == (launcher, {"nodes": "2", "gpus": "8"})


@pytest.mark.parametrize("verb", [("submit",), ("schedule", "--cron", "0 30 3 * * *")])
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--launcher", "pytorchjob", "--set", "cluster.nodez=2"], "Did you mean 'nodes'?"),
        (["--launcher", "pytorchjob", "--set", "cluster.nodes=1000"], "nodes is 1000"),
        (["--set", "cluster.nodes=2"], "Add --launcher pytorchjob"),
    ],
)
def test_wrong_settings_of_a_job_are_refused_before_anything_is_sent(
    api: Api, verb: tuple[str, ...], more: list[str], message: str
) -> None:
    places = PLACES if verb[0] == "submit" else PLACES[:-2]
    done = call(api, *verb, *places, *more)
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert api.calls == []


def test_submit_and_wait_says_which_step_failed_and_why(api: Api) -> None:
    nodes = [("root", "FAILED"), ("root(0)", "FAILED"), ("root(0).ingest", "FAILED"), ("root(0).ingest(0)", "FAILED")]
    nodes += [("root(0).ingest(0).executor", "FAILED"), ("root(0).ingest(0).executor(0)", "FAILED")]
    api.states[:] = ["FAILED"]
    # The steps have their states some seconds after the run has its own.
    late = threading.Timer(5.0, lambda: setattr(api, "details", tasks("training-x", nodes)))
    late.start()
    pod = f"training-x-system-container-impl-{node_hash('training-x(0).root(0).ingest(0).executor(0)')}"
    api.logs[pod] = "Traceback (most recent call last):\n  File x\ntritower.errors.SchemaError: no column 'title'. Add it.\n"
    done = call(api, "submit", "--wait", *PLACES)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"the run ended FAILED: ingest: SchemaError: no column 'title'. Add it (in run {done.stdout.strip()}). The whole log:"
        f" kubectl logs --namespace kubeflow {pod} --container main"
    )


def test_waiting_can_be_interrupted(api: Api) -> None:
    api.states[:] = ["RUNNING"]
    process = started(api, "submit", "--wait", *PLACES)
    assert process.stdout
    run_id = process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert errors.strip() == f"No longer followed; the run goes on. python -m pipelines diagnose {run_id}"
