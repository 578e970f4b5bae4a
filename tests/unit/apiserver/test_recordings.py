"""The server of the tests does what real ones were recorded doing: the same conditions, reasons, phases, events, answers."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.apiserver import Cluster, kinds, served
from tests.support.replay import FOLDER, Player, Recording, events

SPEED = {"ptj-init-timeout": 100.0, "ptj-init-timeout-onfailure": 100.0}
IMAGES = {"localhost:5000/none:1": "missing", "localhost:5001/private:1": "denied", "tritower/none:1": "unreachable"}
NAMESPACES = {"rec": {}, "rec-quota": {}, "rec-restricted": {"pod-security.kubernetes.io/enforce": "restricted"}}
QUOTA = {"metadata": {"name": "pods"}, "spec": {"hard": {"pods": "1"}}}
ELSEWHERE = {
    "ptj-logs": "its answers hang on the moment; tests of the log in test_pods.py ask the same",
    "kfp-wrong-owner": "KFP's and Argo's own objects are not played; test_pods.py deletes jobs by their owner",
}
LOOSE = {
    "ptj-conflict": "the job was deleted before the operator had written Running, a moment after its pod ran",
    "ptj-pod-deleted-limit": "the operator takes Master and Worker in any order: Running and Restarting may take turns",
}
SKIPPED = {
    "create at once: the operator is still ending": "a broken pipe",
    "no containers": "the recording left an empty list out of the body",
}
EVENTS = {
    "ptj-scale": "a Service that is there and a restart that is none: the operator's own races",
    "ptj-pod-deleted-limit": "of three deleted pods it saw one as Failed in the moment before they were gone",
}
PLAYED = sorted({path.stem for path in FOLDER.glob("ptj-*.jsonl")} - ELSEWHERE.keys())


QUICK = [
    "ptj-backoff-sum", "ptj-bad-pod", "ptj-command-missing", "ptj-delete-background", "ptj-exitcode-1", "ptj-never-worker",
    "ptj-oom-onfailure", "ptj-quota", "ptj-refused", "ptj-worker-first",
]  # fmt: skip


def test_recordings_play_again_side_by_side() -> None:
    speed = 10.0
    with served(_cluster(speed)) as cluster, ThreadPoolExecutor(len(QUICK)) as pool:
        list(pool.map(lambda name: _play(cluster, name, speed), QUICK))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*PLAYED} - {*QUICK}))
def test_a_recording_plays_again(name: str) -> None:
    speed = SPEED.get(name, 10.0)
    with served(_cluster(speed)) as cluster:
        _play(cluster, name, speed)


def _cluster(speed: float) -> Cluster:
    # torchrun is not in the recordings' image.
    cluster = Cluster(namespaces=NAMESPACES, speed=speed, environment={"PATH": "/usr/bin:/bin"})
    cluster.images |= IMAGES
    cluster.add(kinds.QUOTA, QUOTA, namespace="rec-quota")
    return cluster


def _play(cluster: Cluster, name: str, speed: float) -> None:
    recording = Recording(name, speed)
    _mend(name, recording)
    Player(cluster, recording, is_loose=name in LOOSE, skipped=list(SKIPPED)).play()
    assert name in EVENTS or recording.events("PyTorchJob") - events(cluster, "PyTorchJob") == set()


def _mend(name: str, recording: Recording) -> None:
    """What the recording left out of its manifest, or of a request's body."""
    if name == "ptj-volume-missing":
        spec = recording.manifest["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
        spec["volumes"] = [{"name": "none", "persistentVolumeClaim": {"claimName": "none"}}]
    if name == "ptj-operator-down":
        second = recording.manifest | {"metadata": {"name": "ptj-operator-down-2", "namespace": "rec"}}
        for line in recording.lines[2:]:
            if line.get("method") == "POST" and "body" not in line:
                wrong = {"spec": second["spec"] | {"nprocPerNode": 1}} if line["code"] == 422 else {}
                line["body"] = second | wrong
