"""Encoder steps that are killed on their way and started again in an empty pod: the component goes on, to the same bits."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tritower import storage
from tritower.encoder import component

from tests.support import family
from tests.support.attempts import Step
from tests.unit.encoder.test_embed import write_texts
from tests.unit.encoder.test_finetune import SETTINGS

TUNING = {"dropout": 0.1, "epochs": 30, "checkpoint_every_s": 0.3}


@pytest.fixture
def root(s3: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run's folder in a store."""
    monkeypatch.setenv("MINIO_ENDPOINT", endpoint)
    return s3.replace("s3://", "minio://")


@pytest.fixture(scope="module")
def whole(dataset: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder of a fine-tuning that nobody disturbed, without a store, in a process of its own as a pod's is."""
    folder = tmp_path_factory.mktemp("whole")
    knobs = json.dumps(SETTINGS | TUNING | {"model": str(tiny_model)})
    places = ["--dataset", str(dataset), "--model", str(folder / "model")]
    command = [sys.executable, "-m", "tritower.encoder", "finetune", *places, "--config", knobs]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return folder / "model"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_fine_tuning_goes_on_in_an_empty_pod(
    dataset: Path, tiny_model: Path, whole: Path, root: str, tmp_path: Path, number: int
) -> None:
    storage.upload_tree(dataset, f"{root}/dataset")
    knobs = SETTINGS | TUNING | {"model": str(tiny_model)}
    step = Step(component.finetune, f"{root}/finetune", parameters={"config": knobs, "dataset": f"{root}/dataset"})
    with step.start(tmp_path / "first") as pod:
        family.wait_for(lambda: any(name.endswith("/complete.json") for name in step.kept()), "a checkpoint", 400)
        pod.end(number)
    assert step.kept() and not pod.path(step.uri("encoder")).exists()
    with step.start(tmp_path / "second") as pod:
        resumed = pod.succeeds(400)
    assert not storage.names(step.root) and "removed the checkpoints" in resumed.log()
    folders = resumed.path(step.uri("encoder")), whole
    numbers = [storage.read_json(folder / "finetune.json")["numbers"] for folder in folders]
    assert 0 < numbers[0]["resumed_at"] < numbers[0]["steps"] == numbers[1]["steps"] and numbers[1]["resumed_at"] == 0
    first, second = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert first == second


@pytest.mark.slow
def test_killed_embedding_computes_only_what_is_missing(tiny_model: Path, root: str, tmp_path: Path) -> None:
    texts = [f"nurse {a}{b} wanted {c}" for a in "abcdefgh" for b in "abcdefgh" for c in "abcdefghijkl"]
    storage.upload_tree(write_texts(tmp_path / "dataset", texts), f"{root}/dataset")
    knobs = {"model": str(tiny_model), "precision": "fp32", "backend": "torch", "token_budget": 16, "segment_texts": 8}
    step = Step(component.embed, f"{root}/embed", parameters={"config": knobs, "dataset": f"{root}/dataset"})
    with step.start(tmp_path / "first") as pod:
        family.wait_for(lambda: any(name.endswith(".arrow") for name in step.kept()), "a segment", 400)
        pod.end(signal.SIGKILL)
    with step.start(tmp_path / "second") as pod:
        resumed = pod.succeeds(400)
    info = storage.read_json(resumed.path(step.uri("embeddings")) / "encoder.json")
    assert 0 < info["new_texts"] < info["texts"]
    assert not storage.names(step.root)


@pytest.mark.slow
def test_a_pod_without_the_stores_keys_says_what_it_cannot_read(
    dataset: Path, tiny_model: Path, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.upload_tree(dataset, f"{root}/dataset")
    knobs = SETTINGS | {"model": str(tiny_model)}
    step = Step(component.finetune, f"{root}/finetune", parameters={"config": knobs, "dataset": f"{root}/dataset"})
    with step.start(tmp_path / "first", MINIO_ENDPOINT="", TRITOWER_S3_ENDPOINT="", AWS_ACCESS_KEY_ID="") as pod:
        assert pod.popen.wait(400) == 1
    assert f"no endpoint is set for minio:// (in {root}/dataset/.tritower)" in pod.log()
