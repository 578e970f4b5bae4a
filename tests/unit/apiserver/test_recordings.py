"""The server of the tests does what real ones were recorded doing: the same conditions, reasons, phases, events, answers."""

import copy

import pytest

from tests.support.apiserver import Cluster, kinds, served
from tests.support.replay import FOLDER, Object, Player, Recording, events, played, played_together

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
    played_together(QUICK, 10.0, _cluster, _play)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*PLAYED} - {*QUICK}))
def test_a_recording_plays_again(name: str) -> None:
    played(name, SPEED.get(name, 10.0), _cluster, _play)


SENT = {
    "a token that is none": {"Authorization": "Bearer nobody"},
    "no token": {"Authorization": ""},
    "no token, /version": {"Authorization": ""},
    "an Accept that is not served": {"Accept": "text/html"},
    "patch with the content type of a create": {"Content-Type": "application/json"},
}


def test_the_api_server_refuses_the_same_in_the_same_words() -> None:
    recording = Recording("api-errors", 10.0)
    by_note = {line.get("note"): line for line in recording.lines}
    job = by_note["generateName instead of a name"]["body"]
    recording.manifest = job | {"metadata": {"name": "api-errors", "namespace": "rec"}}
    with served(_cluster(10.0)) as cluster:
        stranger = {"Authorization": f"Bearer {cluster.token([], namespace='rec', account='default')}"}
        sent = SENT | {"as an account without rights": stranger}
        big = recording.manifest | {"metadata": {"name": "api-errors-big", "annotations": {"a": "x" * 300_000}}}
        by_note["annotations of 300 kB"]["body"] = big
        for note, size in (("a body of 2 MB (an argument)", 2), ("a body of 4 MB", 4)):
            by_note[note]["body"] = _with_argument(job, "x" * size * 2**20)
        player = Player(cluster, recording)
        for line in recording.lines:
            # Disruption budgets are not played.
            if line["verb"] == "CALL" and "disruption" not in line["path"] + line.get("note", "").lower():
                player.call(line | {"sent": sent.get(line.get("note", ""), {})})


def _with_argument(job: Object, argument: str) -> Object:
    job = copy.deepcopy(job)
    job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["args"] = [argument]
    return job


def _cluster(speed: float) -> Cluster:
    # torchrun is not in the recordings' image.
    cluster = Cluster(namespaces=NAMESPACES, speed=speed, environment={"PATH": "/usr/bin:/bin"})
    cluster.images |= IMAGES
    cluster.add(kinds.QUOTA, QUOTA, namespace="rec-quota")
    return cluster


def _play(cluster: Cluster, name: str) -> None:
    recording = Recording(name, cluster.speed)
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
