"""A ranker step that is killed on its way and started again in an empty pod: the component goes on, to the same bits."""

import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tritower import storage
from tritower.config import from_dict
from tritower.ranker import component
from tritower.ranker import step as ranker
from tritower.ranker.config import RankerConfig

from tests.support import family
from tests.support.attempts import Step

KNOBS = {
    "network": {"query_tower": [16], "document_tower": [16], "interaction_tower": [16], "head": [16]},
    "training": {"epochs": 12, "batch_size": 128, "precision": "fp32", "members": 2, "patience": 1000},
    "launch": {"threads": 1, "checkpoint_every_s": 0.1, "log_every_s": 0.2},
}


@pytest.fixture
def step(log: Any, s3: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Step:
    """A ranker step with its inputs in a store."""
    monkeypatch.setenv("MINIO_ENDPOINT", endpoint)
    root = s3.replace("s3://", "minio://")
    for name in ("features", "embeddings"):
        storage.upload_tree(getattr(log, name), f"{root}/inputs/{name}")
    inputs = {name: f"{root}/inputs/{name}" for name in ("features", "embeddings")}
    return Step(component.ranker, f"{root}/ranker", parameters={"config": KNOBS, **inputs})


@pytest.fixture(scope="module")
def whole(log: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a training that nobody disturbed, without a store."""
    out = tmp_path_factory.mktemp("whole")
    places = {"features": log.features, "embeddings": log.embeddings, "model": out / "model", "scores": out / "scores"}
    ranker.train(**places, config=from_dict(RankerConfig, KNOBS))
    assert sorted(path.name for path in out.iterdir()) == ["model", "scores"]
    return (out / "model/model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_training_goes_on_in_an_empty_pod(step: Step, whole: bytes, tmp_path: Path, number: int):
    """Killed while its second member trains; the first one is not trained again."""
    with step.start(tmp_path / "first") as pod:
        family.wait_for(lambda: sum(name.endswith("state.json") for name in step.kept()) == 4, "two members' checkpoints", 400)
        time.sleep(0.5)
        pod.end(number)
    assert step.kept() and not pod.path(step.uri("ranker_model")).exists()
    reached, speed = re.findall(r"step (\d+) of \d+: loss \S+ ([\d,]+) rows/s", pod.log())[-1]

    begun = time.monotonic()
    with step.start(tmp_path / "second") as pod:
        family.wait_for(lambda: pod.log().count("resumed at step") == 2, "the second attempt's training", 400)
        restart_s = time.monotonic() - begun
        resumed = pod.succeeds(400)
    (first, all_first), (second, all_second) = re.findall(r"resumed at step (\d+) of (\d+)", resumed.log())
    assert first == all_first and 0 < int(second) < int(all_second)
    again_s = max(0, int(reached) - int(second)) * 128 / int(speed.replace(",", ""))
    print(f"{number!r}: {again_s:.1f} s of work done again, {restart_s:.1f} s to start again")
    assert "removed the checkpoints" in resumed.log() and not storage.names(step.root)
    assert (resumed.path(step.uri("ranker_model")) / "model.safetensors").read_bytes() == whole
