"""Katib's part does what the real one was recorded doing, with a PyTorchJob of one Master where the recording has a Job."""

import re
import time
from typing import Any

import pytest

from tests.support.apiserver import Cluster, kinds, served
from tests.support.pytorchjobs import until
from tests.support.replay import FOLDER, Object, Observer, Player, Recording, Tale, events, played, played_together

INJECTED = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}
SPEED = 10.0
QUICK = [
    "kat-fail-limit",
    "kat-image-missing",
    "kat-nan",
    "kat-nan-some",
    "kat-no-metric",
    "kat-ptj",
    "kat-ptj-fails",
]
ELSEWHERE = {"kat-refused", "kat-no-label"}
PLAYED = {path.stem for path in FOLDER.glob("kat-*.jsonl")} - ELSEWHERE
CHANCE = {"kat-goal": "how long its trials take hangs on the values that are drawn"}


def test_recordings_play_again_side_by_side() -> None:
    played_together(QUICK, SPEED, _cluster, _play)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PLAYED - {*QUICK}))
def test_a_recording_plays_again(name: str) -> None:
    played(name, 2.0 if name == "kat-fast" else SPEED, _cluster, _play)


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_the_webhook_refuses_the_same_in_the_same_words(name: str) -> None:
    recording = Recording(name, SPEED)
    with served(_cluster()) as cluster:
        for line in recording.lines[1:]:
            Player(cluster, recording).call(line)


def _cluster(speed: float = SPEED) -> Cluster:
    cluster = Cluster(namespaces={"rec": INJECTED, "rec-plain": {}}, speed=speed)
    cluster.algorithms = {"random", "tpe"}
    cluster.images["localhost:5000/none:1"] = "missing"
    return cluster


def _play(cluster: Cluster, name: str) -> None:
    """Send the recording's requests, then compare the Experiment, its Trials and its optimum."""
    recording = Recording(name, cluster.speed)
    observer = Observer(cluster)
    _with_pytorchjob(recording.manifest)
    for line in recording.lines:
        if line["verb"] != "CALL" or line["method"] == "GET":
            continue
        _wait(observer, name, recording.tales(line["t"]).by_object)
        if name == "kat-setting-wrong" and line["method"] == "DELETE":
            until(lambda: recording.events("Suggestion") <= events(cluster, "Suggestion"))
        time.sleep(0.2)
        Player(cluster, recording).call(line | {"path": _here(cluster, name, line["path"])})
    _wait(observer, name, recording.tales().by_object)
    if cluster.store.get(kinds.EXPERIMENT, "rec", name):
        # Trials that end after their Experiment are counted still.
        wanted = _figures(_last_status(recording))
        until(lambda: _figures((cluster.store.get(kinds.EXPERIMENT, "rec", name) or {})["status"]) == wanted)


def _wait(observer: Observer, name: str, wanted: dict[Any, Tale]) -> None:
    """Until the Experiment and its Trials have gone through what is wanted."""
    experiment, trials = _of(wanted, "Experiment"), [] if name in CHANCE else _of(wanted, "Trial")
    end = time.monotonic() + 120
    while True:
        here = _tales(observer, "Experiment", name), _tales(observer, "Trial", name)
        if here[0] == experiment and _agree(here[1], trials):
            return
        assert time.monotonic() < end, f"{name}\nrecorded {experiment}\n{trials}\nhere {here[0]}\n{here[1]}"
        time.sleep(0.05)


def _with_pytorchjob(experiment: Object) -> None:
    template = experiment["spec"]["trialTemplate"]
    if template["trialSpec"]["kind"] == "Job":
        pod = template["trialSpec"]["spec"]["template"]
        pod["spec"]["containers"][0]["name"] = template["primaryContainerName"] = "pytorch"
        policy = pod["spec"].pop("restartPolicy", "Never")
        roles = {"Master": {"replicas": 1, "restartPolicy": policy, "template": pod}}
        template["trialSpec"] = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "spec": {"pytorchReplicaSpecs": roles}}


def _here(cluster: Cluster, name: str, path: str) -> str:
    """A recorded path with the name of a trial or of its pod here."""
    if not re.search(rf"/(trials|pods)/{name}-", path):
        return path
    trial = next(
        one["metadata"]["name"] for one in cluster.store.all(kinds.TRIAL) if one["metadata"]["name"].startswith(f"{name}-")
    )
    home, _, _ = path.rpartition("/")
    return f"{home}/{trial}" if "/trials/" in path else f"{home}/{trial}-master-0"


def _plain(tale: Tale) -> list[Any]:
    """States without what names the kind of the run."""
    return [
        state if state == "gone" else [(t, s, r.partition(". Job")[0], m.partition(" Job message")[0]) for t, s, r, m in state]
        for state in tale.states
    ]


def _of(tales: dict[Any, Tale], kind: str) -> list[Any]:
    return sorted((_plain(tale) for key, tale in tales.items() if key[0] == kind), key=str)


def _tales(observer: Observer, kind: str, name: str) -> list[Any]:
    return _of({key: tale for key, tale in observer.tales().items() if re.fullmatch(rf"{name}(-\w{{8}})?", key[1])}, kind)


def _agree(here: list[Any], wanted: list[Any]) -> bool:
    """Each wanted tale is the beginning of one here."""
    rest = list(here)
    for tale in sorted(wanted, key=len, reverse=True):
        found = next((one for one in rest if one[: len(tale)] == tale), None)
        if found is None:
            return False
        rest.remove(found)
    return True


def _figures(status: Object) -> Object:
    """Counts of the trials, and the optimum's metrics."""
    counts = {key: value for key, value in status.items() if key.startswith("trial")}
    metrics = ((status.get("currentOptimalTrial") or {}).get("observation") or {}).get("metrics") or []
    return {"counts": counts, "metrics": sorted(metrics, key=lambda one: str(one["name"]))}


def _last_status(recording: Recording) -> Object:
    found = [
        line["object"]["status"]
        for line in recording.lines
        if line.get("kind") == "Experiment" and line["object"].get("status")
    ]
    return dict(found[-1])
