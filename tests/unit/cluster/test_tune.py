"""The search as an Experiment: Katib's part is played, the trials are real processes, and so is the store."""

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from kfp.dsl import HTML, Artifact, Metrics
from tritower import storage
from tritower.cluster import heartbeat
from tritower.cluster.api import Api, custom
from tritower.cluster.katib import INJECTION
from tritower.config import to_dict
from tritower.errors import ConfigError, JobFailed, LaunchError, TritowerError
from tritower.jobs import Job
from tritower.searches import Trial, open_searcher
from tritower.tuning import step, trial
from tritower.tuning.component import tune as tune_component
from tritower.tuning.config import Parameter, TuningConfig
from tritower.tuning.launched import described

from tests.support import family
from tests.support.apiserver import Cluster, kinds, served
from tests.support.ranker_log import write_log
from tests.unit.cluster.test_launcher import QUICK, jobs
from tests.unit.cluster.test_stopping import running

TRAINER = "tests.support.trainer"
RATE = Parameter(name="rate", kind="double", low=1e-3, high=1e-1, log=True)
WIDTH = Parameter(name="width", kind="categorical", choices=("64", "128,64"))
CLUSTER = QUICK | {"memory": ""}


def config(**more: Any) -> TuningConfig:
    return TuningConfig(**{"space": (RATE, WIDTH), "trials": 2, "parallel": 2, "prune": False, **more})


def tune(where: str, here: Path, given: TuningConfig, launcher: str = "katib", **settings: Any) -> dict[str, Any]:
    """The step as its component calls it; what it left as `best`."""
    here.mkdir(exist_ok=True)
    numbers = step.run(
        features=f"{where}/features", embeddings=f"{where}/embeddings", best=here / "best.json", report=here / "report.html",
        config=given, module=TRAINER, artifact_uri=f"{where}/tune_trials", launcher=launcher, cluster=CLUSTER | settings,
    )  # fmt: skip
    found: dict[str, Any] = json.loads((here / "best.json").read_text())
    assert {name: found[name] for name in numbers} == numbers
    return found


def experiments(cluster: Cluster) -> list[dict[str, Any]]:
    return cluster.store.all(kinds.EXPERIMENT)


def home(where: str) -> str:
    return heartbeat.home({"search": f"{where}/tune_trials"})


def test_an_experiment_hands_back_what_a_search_here_does(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    found = tune(s3, tmp_path, config(fixed={"epochs": 2}))
    assert [one["state"] for one in found["history"]] == ["complete"] * 2 and found["failed"] == found["pruned"] == 0
    for one in found["history"]:
        assert one.keys() == {"number", "state", "value", "params", "along", "seconds"}
        knobs = {"epochs": 2, **one["params"]}
        here = trial.run(
            config=config(), module=TRAINER, knobs=knobs, inputs={}, folder=tmp_path / f"{one['number']}",
            behind=lambda *_: False,
        )  # fmt: skip
        assert one["along"] == pytest.approx(here) and one["value"] == pytest.approx(max(here))
    best = max(found["history"], key=lambda one: one["value"])
    assert found["best"] == best["value"] > found["untuned"]
    assert found["knobs"] == {"epochs": 2, **best["params"]}
    assert (tmp_path / "report.html").read_text().count('data-name="state"') >= 2
    assert not experiments(cluster) and not any("weights" in name for name in storage.names(s3))


def search(where: str, given: TuningConfig, **settings: Any) -> list[Trial]:
    """The Experiment alone, without the run of the defaults before it."""
    job = Job(name="tune", module=TRAINER, inputs={"features": f"{where}/features"})
    searcher = open_searcher("katib", CLUSTER | settings)
    searcher.check(job, described(given), f"{where}/tune_trials")
    return searcher.run(job, described(given), f"{where}/tune_trials")


@pytest.mark.parametrize(
    ("knobs", "why"),
    [
        pytest.param({"fail": "yes"}, "ended with code 3", id="fails", marks=pytest.mark.slow),
        pytest.param({"nan": True}, "it reported no finite auc", id="nan"),  # Katib: Succeeded, and one of them is the best
        pytest.param({"silent": True}, "it reported no auc.*metrics.log", id="no metric", marks=pytest.mark.slow),
        pytest.param({"pause_s": 60}, "took over 1 s.*trial_timeout_s", id="too long", marks=pytest.mark.slow),
    ],
)
def test_a_search_without_one_good_trial_has_failed(cluster: Cluster, s3: str, knobs: dict[str, Any], why: str) -> None:
    given = config(fixed=knobs, max_failed=9, trial_timeout_s=1 if "pause_s" in knobs else 3600)
    with pytest.raises(TritowerError, match=rf"2 of 2 trials failed; trial \d: .*({why})") as caught:
        search(s3, given)
    assert not experiments(cluster)
    files = {name.rpartition("/")[2] for name in storage.names(f"{home(s3)}/failure")}
    assert {"job.json", "parts.json", "pods.json", "events.json"} < files and any(name.endswith(".log") for name in files)
    assert f"{home(s3)}/failure" in caught.value.remedy


@pytest.mark.slow
def test_more_failures_than_allowed_end_it(cluster: Cluster, s3: str) -> None:
    with pytest.raises(TritowerError, match=r"of \d trials failed"):
        search(s3, config(fixed={"fail": "yes"}, trials=20, parallel=1, max_failed=0))
    assert not experiments(cluster)


def test_a_namespace_without_katibs_label_is_told_before_anything_runs(cluster: Cluster, s3: str, tmp_path: Path) -> None:
    namespace = cluster.store.get(kinds.NAMESPACE, "", "team")
    cluster.store.edit(kinds.NAMESPACE, namespace, lambda one: one["metadata"]["labels"].pop(INJECTION))
    with pytest.raises(LaunchError, match=f"kubectl label namespace team {INJECTION}=enabled"):
        tune(s3, tmp_path, config())
    assert not jobs(cluster)


def test_what_katib_does_not_have_is_told_before_anything_runs(cluster: Cluster, s3: str) -> None:
    cluster.algorithms = {"random"}
    with pytest.raises(LaunchError, match="Katib has no algorithm tpe here"):
        search(s3, config())
    cluster.early_stopping = set()
    with pytest.raises(LaunchError, match=r"Katib has no early stopping \(medianstop\) here.*`prune` false"):
        search(s3, config(algorithm="random", prune=True))
    for launcher in ("trainjob", "sparkapplication", "helm"):
        with pytest.raises(ConfigError, match="A search takes local, pytorchjob, katib"):
            open_searcher(launcher)


def test_katib_that_is_not_installed(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(Cluster(namespaces=["team"], without=["experiments"])) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig", namespace="team")))
        with pytest.raises(LaunchError, match=r"no Experiments: Katib is not installed.*kubectl apply -k"):
            search(s3, config(), store_secret="")


def test_a_setting_that_only_an_event_of_the_suggestion_tells_of(cluster: Cluster, s3: str) -> None:
    with pytest.raises(JobFailed, match=r"Katib makes no trial: .*invalid syntax.*algorithm_settings"):
        search(s3, config(algorithm_settings={"random_state": "many"}))
    assert not experiments(cluster)


def test_an_image_that_is_not_there(cluster: Cluster, s3: str) -> None:
    cluster.images["example/none:1"] = "missing"
    with pytest.raises(JobFailed, match=r"the image cannot be pulled: .*not found"):
        search(s3, config(), image="example/none:1")
    assert not experiments(cluster)


@pytest.mark.slow
def test_a_quota_that_trials_meet(cluster: Cluster, s3: str) -> None:
    cluster.add(kinds.QUOTA, {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}}, namespace="team")
    with pytest.raises(JobFailed, match="exceeded quota"):
        search(s3, config())
    assert not experiments(cluster)


@pytest.mark.slow
def test_trials_that_wait_for_each_others_node_are_no_trouble(cluster: Cluster, s3: str) -> None:
    """Each takes both GPUs of the one node that has any: one of them is unschedulable while the other runs."""
    found = search(s3, config(fixed={"pause_s": 0.5, "epochs": 2}), gpus=2, start_timeout_s=8, nodes_may_come=True)
    assert [one.state for one in found] == ["complete"] * 2


@pytest.mark.slow
def test_a_trial_deleted_by_hand_is_named(cluster: Cluster, s3: str) -> None:
    deleted: list[str] = []

    def delete() -> None:
        family.wait_for(lambda: running(cluster), "a running trial")
        deleted.append(cluster.store.all(kinds.TRIAL)[0]["metadata"]["name"])
        Api().call("DELETE", custom("kubeflow.org", "v1beta1", "team", "trials", deleted[0]))

    helper = threading.Thread(target=delete)
    helper.start()
    with pytest.raises(JobFailed, match="the trial was deleted") as caught:
        search(s3, config(fixed={"pause_s": 60}))
    helper.join()
    assert deleted[0] in caught.value.where and not experiments(cluster)


@pytest.mark.slow
def test_a_search_that_has_ended_is_not_run_again(cluster: Cluster, s3: str) -> None:
    first = search(s3, config())
    made = sum(method == "POST" and "/experiments" in path for method, path in cluster.faults.seen)
    assert search(s3, config()) == first
    again = [path for method, path in cluster.faults.seen if method == "POST" and "/experiments" in path][made:]
    assert all("dryRun" in path for path in again) and not experiments(cluster)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_an_experiment_finds_knobs_of_the_ranker(cluster: Cluster, s3: str, tmp_path: Path, nodes: int) -> None:
    """Four trials of one pod, two of two: the figures are those of the same knobs here, to the order of float32 additions."""
    log = write_log(tmp_path / "log", requests={"train": 400, "validation": 150, "test": 50})
    places = {"features": log.features, "embeddings": log.embeddings}
    for name, folder in places.items():
        storage.upload_tree(folder, f"{s3}/{name}")
    fixed = {"epochs": 1, "batch_size": 256, "precision": "fp32", "launch.threads": 1}
    fixed |= dict.fromkeys(("query_tower", "document_tower", "head"), "16")
    space = (
        Parameter(name="learning_rate", kind="double", low=1e-3, high=1e-2, log=True),
        Parameter(name="interaction_tower", kind="categorical", choices=("16", "32,16")),
    )
    given = config(space=space, fixed=fixed, trials=4 // nodes, parallel=2)
    root = s3.replace("s3://", "minio://")
    artifacts = {"tune_trials": Artifact(uri=f"{root}/tune_trials"), "tune_report": HTML(uri=str(tmp_path / "report.html"))}
    artifacts["tune_trials"].set_path(str(tmp_path / "best.json"))
    inputs = {name: f"{root}/{name}" for name in places}
    metrics = Metrics(uri=str(tmp_path / "metrics"))
    settings = {"config": to_dict(given), "launcher": "pytorchjob", "cluster": CLUSTER | {"nodes": nodes}}
    (best,) = tune_component.python_func(**inputs, **artifacts, tune_metrics=metrics, **settings)
    found = storage.read_json(artifacts["tune_trials"].path)
    assert found["knobs"] == best and metrics.metadata["trials"] == 4 // nodes and not metrics.metadata["failed"]
    complete = [one for one in found["history"] if one["state"] == "complete"]
    assert len(complete) == 4 // nodes and len({one["params"]["learning_rate"] for one in complete}) == 4 // nodes
    first = max(complete, key=lambda one: one["value"])
    here = trial.run(
        config=given, module="tritower.ranker", knobs={**(given.fixed or {}), **first["params"]},
        inputs={name: str(folder) for name, folder in places.items()}, folder=tmp_path / "here", behind=lambda *_: False,
    )  # fmt: skip
    assert first["value"] == pytest.approx(max(here), abs=1e-3)


@pytest.mark.slow
def test_a_trial_that_fails_is_told_and_its_log_kept(cluster: Cluster, s3: str, caplog: pytest.LogCaptureFixture) -> None:
    """What the played Katib draws follows from the Experiment's name, which follows from the test's."""
    caplog.set_level(logging.INFO)
    fail = Parameter(name="fail", kind="categorical", choices=("yes", "no"))
    found = search(s3, config(space=(RATE, fail), trials=4, max_failed=3))
    states = [one.state for one in found]
    assert {*states} == {"complete", "fail"} and all((one.params["fail"] == "yes") == (one.state == "fail") for one in found)
    for one in found:
        assert f"trial {one.number} {one.state}: " in caplog.text and f"{one.params['rate']}" in caplog.text
    logs_of_failed = [name for name in storage.names(f"{home(s3)}/failed-trials") if name.endswith(".log")]
    assert len(logs_of_failed) == states.count("fail")
    assert f"{home(s3)}/failed-trials" in caplog.text
