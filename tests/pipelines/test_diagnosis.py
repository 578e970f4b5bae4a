"""Which step of a backend's run failed, and why: recorded runs, runs of the compiled pipelines, and a server that is away."""

import copy
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tritower import storage
from tritower.errors import JobFailed, LaunchError

from pipelines import api as pipelines_api
from pipelines import compiling, diagnosis, executor_logs, runs
from tests.support.kfp_api import Api, away
from tests.support.kfp_nodes import node_hash, tasks
from tests.support.s3 import client

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests/data/cases/backend_runs"
LOG = """\
I1126 14:00:01.000000      12 launcher_v2.go:180] launcher info
[KFP Executor 2026-11-26 14:00:02,000 INFO]: Looking for component `embed` in --component_module_path `/tmp/x.py`
2026-11-26 14:00:03 WARNING tritower.encoder: FileNotFoundError: no index, made anew
Traceback (most recent call last):
  File "/opt/tritower/lib/python3.11/site-packages/kfp/dsl/executor_main.py", line 109, in executor_main
    output_file = executor.execute()
tritower.errors.ArtifactError: the encoder's weights are not whole (in /minio/b/encoder). Run finetune again.
NothingError: a line of the data
I1126 14:00:04.000000      12 launcher_v2.go:151] Stopping
E1126 14:00:04.100000      12 launcher_v2.go:420] Component failed to execute successfully: exit status 1
F1126 14:00:04.200000      12 main.go:62] failed to execute component: exit status 1
time="2026-11-26T14:00:05 UTC" level=info msg="sub-process exited" argo=true error="<nil>"
Error: exit status 1
"""
SHORT = """\
I1126 14:00:01.000000      12 launcher_v2.go:180] launcher info
14:00:03 WARNING FileNotFoundError: no index, made anew
ERROR ArtifactError: the encoder's weights are not whole
  where: /minio/b/encoder
  remedy: Run finetune again.
I1126 14:00:04.000000      12 launcher_v2.go:151] Stopping
E1126 14:00:04.100000      12 launcher_v2.go:420] Component failed to execute successfully: exit status 1
"""
SAYS = "ArtifactError: the encoder's weights are not whole (in /minio/b/encoder). Run finetune again"


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
    return found


@functools.cache
def specification(pipeline: str) -> dict[str, Any]:
    found: dict[str, Any] = next(yaml.safe_load_all(compiling.yaml_path(pipeline).read_text()))
    return found


def of(pipeline: str, nodes: list[tuple[str, str]], run_id: str = "run-1", **more: Any) -> dict[str, Any]:
    """A failed run of a compiled pipeline whose nodes are in these states."""
    spec = copy.deepcopy(specification(pipeline))
    detail = {"task_details": tasks(f"{pipeline}-ab12c", nodes)}
    return {"run_id": run_id, "state": "FAILED", "pipeline_spec": {"pipeline_spec": spec}, "run_details": detail} | more


def step(name: str, *states: str, driver: str = "SUCCEEDED", within: str = "root(0)") -> list[tuple[str, str]]:
    """The nodes of a step whose executor's attempts ended in these states."""
    base = f"{within}.{name}"
    drivers = [(f"{base}-driver", driver), (f"{base}-driver(0)", driver)]
    if not states:
        return drivers
    attempts = [(f"{base}(0).executor({number})", state) for number, state in enumerate(states)]
    last = states[-1]
    return [*drivers, (base, last), (f"{base}(0)", last), (f"{base}(0).executor", last), *attempts]


TOP = [("root-driver", "SUCCEEDED"), ("root-driver(0)", "SUCCEEDED"), ("root", "FAILED"), ("root(0)", "FAILED")]


def box(name: str, state: str) -> list[tuple[str, str]]:
    """The nodes of a nested pipeline."""
    base = f"root(0).{name}"
    return [(f"{base}-driver", "SUCCEEDED"), (f"{base}-driver(0)", "SUCCEEDED"), (base, state), (f"{base}(0)", state)]


def pod(pipeline: str, template: str, path: str) -> str:
    workflow = f"{pipeline}-ab12c"
    return f"{workflow}-system-{template}-{node_hash(f'{workflow}(0).{path}')}"


def test_the_pods_of_a_run_whose_tasks_lag_behind_it() -> None:
    """The run has succeeded; its root and its last step are said to be running, and stay so."""
    run = recorded("succeeded") | {"pipeline_spec": specification("training")}
    pods = {part.task: part.pod.rpartition("-")[2] for part in diagnosis.parts(run) if part.kind == "step"}
    assert (pods["evaluation"], pods["candidate-features"]) == ("3727406685", "1727766139")
    assert len(pods) == 14
    assert not [part for part in diagnosis.parts(run, "SUCCEEDED") if part.kind == "step"]


def test_a_recorded_run_names_its_step_and_pod() -> None:
    run = recorded("failed")
    (part,) = diagnosis.parts(run, "FAILED")
    assert (str(part), part.pod) == ("step", "kfp-step-fails-2z98x-system-container-impl-2569992842")
    failed = diagnosis.failure(run, namespace="kubeflow", log_of=lambda part: "working\nboom\n" * (part.pod != ""))
    assert str(failed) == (
        "the run ended FAILED: step: boom (in run a743940c-1f72-492b-9c9d-7f367cbf15e4). The whole log: kubectl logs"
        " --namespace kubeflow kfp-step-fails-2z98x-system-container-impl-2569992842 --container main"
    )


def test_a_recorded_run_that_was_terminated_has_not_failed_by_itself() -> None:
    run = recorded("terminated")
    assert (run["state"], diagnosis.state(run)) == ("FAILED", "TERMINATED")
    failed = diagnosis.failure(run, namespace="kubeflow", log_of=lambda part: LOG)
    assert str(failed).startswith("the run was terminated at step; no step failed by itself (in run 269a1c35")


def test_a_driver_fails() -> None:
    run = of("batch", [*TOP, *step("ingest", "SUCCEEDED"), *step("embed", driver="FAILED")])
    (part,) = diagnosis.parts(run, "FAILED")
    assert str(part) == "the driver of embed"
    assert part.pod == pod("batch", "container-driver", "root(0).embed-driver(0)")
    log = 'I1126 1 main.go:1] x\nF1126 14:00:00.1       1 main.go:101] driver failed: cannot find producer task "importer-2"\n'
    failed = diagnosis.failure(run, namespace="ns", log_of=lambda part: log)
    assert 'the driver of embed: driver failed: cannot find producer task "importer-2" (in run run-1)' in str(failed)


def test_several_fail_at_once_and_are_called_as_in_the_pipeline() -> None:
    nodes = [*TOP, *step("ranker", "SUCCEEDED"), *box("baselines", "FAILED"), *box("recommendations", "FAILED")]
    nodes += step("baseline-cos", "FAILED", within="root(0).baselines(0)")
    nodes += step("candidate-features", "FAILED", "FAILED", within="root(0).recommendations(0)")
    failed = diagnosis.parts(of("training", nodes), "FAILED")
    assert [str(part) for part in failed] == ["baseline_cos", "candidate_features"]
    # Of several attempts the last.
    assert failed[1].pod == pod("training", "container-impl", "root(0).recommendations(0).candidate-features(0).executor(1)")


def test_drivers_of_a_nested_pipeline_fail() -> None:
    nodes = [*TOP, ("root(0).baselines-driver", "FAILED"), ("root(0).baselines-driver(0)", "FAILED")]
    nodes += [*box("recommendations", "FAILED"), *step("score", driver="FAILED", within="root(0).recommendations(0)")]
    failed = diagnosis.parts(of("training", nodes), "FAILED")
    assert [str(part) for part in failed] == ["the driver of baselines", "the driver of score"]
    assert failed[0].pod == pod("training", "dag-driver", "root(0).baselines-driver(0)")
    assert failed[1].pod == pod("training", "container-driver", "root(0).recommendations(0).score-driver(0)")


def test_an_importer_and_the_root_driver_fail() -> None:
    run = of("batch", [*TOP, ("root(0).importer-2", "FAILED"), ("root(0).importer-2(0)", "FAILED")])
    # Our own pipelines have no importers; one that somebody else wires has.
    task = {"componentRef": {"name": "comp-importer-2"}, "taskInfo": {"name": "importer-2"}}
    run["pipeline_spec"]["pipeline_spec"] = {
        "root": {"dag": {"tasks": {"importer-2": task}}},
        "components": {"comp-importer-2": {"executorLabel": "exec-importer-2"}},
        "deploymentSpec": {"executors": {"exec-importer-2": {"importer": {}}}},
    }
    (part,) = diagnosis.parts(run, "FAILED")
    assert (str(part), part.pod) == ("the importer importer_2", pod("batch", "importer", "root(0).importer-2(0)"))
    run = of("batch", [("root-driver", "FAILED"), ("root-driver(0)", "FAILED")])
    (part,) = diagnosis.parts(run, "FAILED")
    assert (str(part), part.pod) == ("the driver of root", pod("batch", "dag-driver", "root-driver(0)"))


def test_without_attempts_in_the_names() -> None:
    """A backend whose controller has no retry strategy of its own."""
    workflow = "training-ab12c"
    names = ["root", "root.embed", "root.embed.executor"]
    details = [
        {
            "display_name": above,
            "state": "FAILED",
            "child_tasks": [{"pod_name": f"{workflow}-{node_hash(f'{workflow}.{name}')}"}],
        }
        for above, name in zip((workflow, "root", "embed"), names, strict=True)
    ]
    details.append({"display_name": "executor", "state": "FAILED"})
    (part,) = diagnosis.parts(of("training", []) | {"run_details": {"task_details": details}}, "FAILED")
    assert (part.step, part.pod) == (
        "embed",
        f"{workflow}-system-container-impl-{node_hash(f'{workflow}.root.embed.executor')}",
    )


@pytest.mark.parametrize("with_spec", [True, False])
def test_without_children_the_names_alone_tell(with_spec: bool) -> None:
    run = of("training", [*TOP, *step("embed", "FAILED"), *step("entities", driver="FAILED")])
    for task in run["run_details"]["task_details"]:
        task.pop("child_tasks", None)
    if not with_spec:
        run.pop("pipeline_spec")
        run["run_details"]["task_details"] = [
            one for one in run["run_details"]["task_details"] if "ab12c" not in one["display_name"]
        ]
    failed = diagnosis.failure(run, namespace="ns", log_of=lambda part: "")
    assert "embed: its log is not to be had here; the driver of entities: its log" in str(failed)
    assert "kubectl logs --namespace ns --selector pipeline/runid=run-1 --container main" in str(failed)


@pytest.mark.parametrize(
    ("log", "word"),
    [
        (LOG, SAYS + "."),
        ("Traceback (most recent call last):\n  File x\nKeyError: 'a'\n\nDuring handling:\n\n"
         "Traceback (most recent call last):\n  File y\nb.c.OddError: two\n", "OddError: two"),
        ("Traceback (most recent call last):\n  File x\nAssertionError\nmore\n", "AssertionError"),
        (f"{LOG}F1126 14:00:06.000000      12 main.go:62] failed to upload output artifact: no space\n",
         "failed to upload output artifact: no space"),
        ("all well\nE1126 14:00:06.000000      12 launcher_v2.go:9] unable to produce MLMD artifact: unknown value\n",
         "unable to produce MLMD artifact: unknown value"),
        ("epoch 3\nE1126 14:00:06.000000      12 launcher_v2.go:9] Component failed: signal: killed\nError: exit status 1\n",
         "killed, most likely for want of memory (`kubectl describe pod` says OOMKilled); raise the step's memory limit or give"
         " it less data"),
        ("Traceback (most recent call last):\n  File x\nOwnError: a\x1b[2J\u2028b\rc\nOddError: d\n", "OwnError: a?[2J?b?c"),
        ("boom\r\n", "boom"),
        (SHORT, SAYS + "."),
        (SHORT.replace("  where: /minio/b/encoder\n", ""), SAYS.replace(" (in /minio/b/encoder)", "") + "."),
        (f"Traceback (most recent call last):\n  File x\nOddError: a\n{SHORT}", SAYS + "."),
        (f"{SHORT}F1126 14:00:06.000000      12 main.go:62] failed to upload output artifact: no space\n",
         "failed to upload output artifact: no space"),
        ("ERROR DataError: one\nTraceback (most recent call last):\n  File y\nb.c.OddError: two\n", "OddError: two"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_line_of_a_log_that_says_why(log: str, word: str) -> None:
    assert diagnosis.last_word(log) == word


# Over HTTP.


@pytest.fixture
def backend(api: Api) -> pipelines_api.Api:
    return pipelines_api.Api(api.url, token="secret", namespace="team")


def wait(backend: pipelines_api.Api, run_id: str, **how: Any) -> str:
    return runs.check(backend, runs.wait(backend, run_id, **how))


def keep(api: Api, run: dict[str, Any], *states: str) -> str:
    """Let the server hand out a run, in these states one after the other."""
    api.kept["runs"][run["run_id"]] = run if not states else {key: run[key] for key in run if key != "state"}
    api.states[:] = states or ["FAILED"]
    return str(run["run_id"])


EMBED = pod("training", "container-impl", "root(0).embed(0).executor(0)")
FAILED = [*TOP, *step("ingest", "SUCCEEDED"), *step("embed", "FAILED")]


def test_wait_prints_the_steps_own_error_and_the_command_for_its_log(api: Api, backend: pipelines_api.Api) -> None:
    api.logs[EMBED] = "x" * 3_000_000 + "\n" + LOG
    with pytest.raises(JobFailed) as caught:
        wait(backend, keep(api, of("training", FAILED), "RUNNING", "FAILED"), poll_s=0.01)
    assert str(caught.value) == (
        f"the run ended FAILED: embed: {SAYS} (in run run-1). The whole log: kubectl logs --namespace team {EMBED}"
        " --container main"
    )
    assert api.tokens == {"Bearer secret"}


def test_the_log_of_a_pod_that_is_gone_is_found_by_the_id_of_its_node(api: Api, backend: pipelines_api.Api) -> None:
    """KFP 2.17 takes the name in the address for the pod's, then looks in Argo's archive for a node of that id."""
    api.logs["training-ab12c-" + EMBED.rpartition("-")[2]] = LOG
    with pytest.raises(JobFailed, match=re.escape(f"embed: {SAYS} (in run run-1)")):
        wait(backend, keep(api, of("training", FAILED)), poll_s=0.01)


@pytest.mark.parametrize("answer", [None, "<!doctype html><title>Kubeflow</title>"])
def test_without_a_log_at_the_api_the_one_in_the_store_is_read(
    api: Api, backend: pipelines_api.Api, endpoint: str, answer: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if answer:
        api.logs[EMBED] = answer
    run = of("training", FAILED, runtime_config={"pipeline_root": "minio://mlpipeline/v2/artifacts"})
    for name in ("MINIO_ENDPOINT", "AWS_ENDPOINT_URL", "TRITOWER_S3_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(JobFailed, match=f"embed: its log is not to be had here .* {EMBED}"):
        wait(backend, keep(api, run))
    client(endpoint).create_bucket(Bucket="mlpipeline")
    monkeypatch.setenv("MINIO_ENDPOINT", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for name, text in (("executor-logs", "an earlier attempt"), ("executor-logs-1", LOG), ("embeddings", "no log")):
        (tmp_path / "log").write_text(text)
        storage.upload(tmp_path / "log", f"minio://mlpipeline/v2/artifacts/training/run-1/embed/0a1b/{name}")
    with pytest.raises(JobFailed) as caught:
        runs.diagnose(backend, "run-1")
    assert f"embed: {SAYS} (in run run-1)" in str(caught.value)


def test_the_place_of_logs_follows_the_pipeline_root() -> None:
    run = of("training", [])
    assert executor_logs.place(run, "embed") == "minio://mlpipeline/v2/artifacts/training/run-1/embed"
    run["pipeline_spec"]["pipeline_spec"]["defaultPipelineRoot"] = "gs://b/runs/"
    assert executor_logs.place(run, "embed") == "gs://b/runs/training/run-1/embed"
    run["runtime_config"] = {"pipeline_root": "s3://c/x?region=y"}
    assert executor_logs.place(run, "embed") == "s3://c/x/training/run-1/embed"


def test_wait_survives_a_backend_that_is_away(api: Api, backend: pipelines_api.Api) -> None:
    said: list[str] = []
    run_id = keep(api, of("training", FAILED), "RUNNING", "SUCCEEDED")
    api.answers[:] = [(503, "upstream connect error"), (502, "<html>bad gateway</html>"), (500, '{"message": "database"}')]
    assert wait(backend, run_id, poll_s=0.01, say=said.append) == "SUCCEEDED"
    assert len(said) == 2
    assert said[0] == "the backend is not there (503): upstream connect error; asking again for up to 10 min"
    assert said[1].startswith("the backend answers again after ")


def test_wait_survives_a_backend_that_nobody_listens_for(api: Api, backend: pipelines_api.Api) -> None:
    said: list[str] = []
    run_id = keep(api, of("training", FAILED), "SUCCEEDED")
    with away(api, lambda: said):
        assert wait(backend, run_id, poll_s=0.05, say=said.append) == "SUCCEEDED"
    assert [line.split(":")[0] for line in said[:1]] == ["the backend cannot be reached"] and len(said) == 2


def test_wait_survives_a_request_that_gets_no_answer(
    api: Api, backend: pipelines_api.Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines_api, "_READ_S", 0.1)
    run_id = keep(api, of("training", FAILED), "SUCCEEDED")
    api.answers[:] = [(0, "")] * 4
    said: list[str] = []
    assert wait(backend, run_id, poll_s=0.01, say=said.append) == "SUCCEEDED"
    assert not api.answers and len(said) == 2


def test_patience_has_an_end_that_says_how_to_go_on(api: Api, backend: pipelines_api.Api) -> None:
    run_id = keep(api, of("training", FAILED), "SUCCEEDED")
    api.answers[:] = [(503, "down")] * 1000
    with pytest.raises(LaunchError, match=r"no answer for 2 s .*`python -m pipelines diagnose run-1` tells"):
        wait(backend, run_id, poll_s=0.02, patience_s=2, say=lambda line: None)
    assert len(api.answers) < 998


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, "token expired"), r"refused \(401\): token expired"),
        ((404, '{"code": 5}'), r"refused \(404\)"),
        ((200, "<html>log in</html>"), r"no JSON \(text/html\).*login page"),
    ],
)
def test_a_refusal_is_no_absence(api: Api, backend: pipelines_api.Api, answer: tuple[int, str], message: str) -> None:
    api.answers[:] = [answer]
    with pytest.raises(LaunchError, match=message):
        wait(backend, keep(api, of("training", FAILED)), poll_s=0.01)


def call(api: Api, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines", *arguments, "--endpoint", api.url]
    return subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)


def test_diagnose_from_the_command_line(api: Api) -> None:
    api.logs[EMBED] = LOG
    done = call(api, "diagnose", keep(api, of("training", FAILED)))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert f"embed: {SAYS} (in run run-1)" in line and f"kubectl logs --namespace kubeflow {EMBED} --container main" in line

    nodes = [("root", "RUNNING"), ("root(0)", "RUNNING"), *step("ingest", "SUCCEEDED"), *step("embed", "PENDING")]
    open_nodes = [(name, "RUNNING" if state == "PENDING" and "executor(" not in name else state) for name, state in nodes]
    run = of("training", open_nodes, state="RUNNING")
    done = call(api, "diagnose", keep(api, run))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "run run-1: RUNNING",
        "at embed",
        "waiting for a pod to start: 1; what for: kubectl describe pods --namespace kubeflow --selector pipeline/runid=run-1",
    ]
    assert call(api, "diagnose", keep(api, run | {"state": "SUCCEEDED"})).stdout == "run run-1: SUCCEEDED\n"
    done = call(api, "diagnose", "none/../such")
    assert done.returncode == 1 and "refused (404)" in done.stderr
