"""Fine-tuning and embedding on two nodes that have nothing in common but the network and a store."""

import json
from pathlib import Path

import numpy as np
import pytest
from tritower import storage
from tritower.encoder import step
from tritower.encoder.config import EmbedConfig, FinetuneConfig

from tests.support.nodes import Nodes, with_store
from tests.unit.encoder.test_finetune import SETTINGS, weights

RUN = "s3://bucket/run"
CHECKPOINTS = {"dropout": 0.1, "checkpoint_steps": 12, "epochs": 8, "checkpoints": f"{RUN}/checkpoints"}
EMBED = {"precision": "fp32", "backend": "torch", "token_budget": 16}


def start(nodes: Nodes, name: str, knobs: dict[str, object], **places: str) -> None:
    words = [name, *(f"--{option}={RUN}/{place}" for option, place in places.items()), f"--config={json.dumps(knobs)}"]
    for number in range(2):
        nodes.start(number, "tritower.encoder", words)


def finished(nodes: Nodes) -> None:
    assert nodes.ended() == [0, 0], nodes.said()


@pytest.mark.slow
def test_two_nodes_tune_and_embed_as_one_does(
    dataset: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the tolerances of two processes on one machine: 1e-3 of the loss, 2e-3 of the weights, one step of float16."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    knobs = SETTINGS | {"loss": "triplet+ranking"}
    numbers = step.finetune(
        dataset=dataset, model=tmp_path / "one", config=FinetuneConfig(model=str(tiny_model), **knobs), metrics=tmp_path / "m"
    )
    config = EmbedConfig(descriptions="same", **EMBED)
    step.embed(dataset=dataset, embeddings=tmp_path / "matrix", encoder=tmp_path / "one", config=config)
    with with_store(tmp_path, monkeypatch) as nodes:
        storage.upload_tree(dataset, f"{RUN}/dataset")
        storage.upload_tree(tiny_model, f"{RUN}/base")
        storage.upload_tree(tmp_path / "one", f"{RUN}/tuned-by-one")
        places = {"dataset": "dataset", "model": "tuned", "report": "report.html", "metrics": "metrics.json"}
        start(nodes, "finetune", knobs | {"model": f"{RUN}/base"}, **places)
        finished(nodes)
        two = storage.read_json(storage.fetch(f"{RUN}/metrics.json", tmp_path / "metrics.json"))
        assert two["steps"] == numbers["steps"] and two["loss"] == pytest.approx(numbers["loss"], rel=1e-3)
        first, second = weights(tmp_path / "one"), weights(storage.fetch(f"{RUN}/tuned", tmp_path / "two"))
        assert max(np.abs(first[name] - second[name]).max() for name in first) < 2e-3
        start(nodes, "embed", {"descriptions": "same", **EMBED}, dataset="dataset", embeddings="matrix", encoder="tuned-by-one")
        finished(nodes)
        one, both = (
            np.load(folder / "matrix.npy") for folder in (tmp_path / "matrix", storage.fetch(f"{RUN}/matrix", tmp_path / "b"))
        )
        assert np.abs(one.astype(np.float32) - both.astype(np.float32)).max() <= 2**-12
        left = {name.split("/")[1] for name in storage.names(RUN)}
        assert left == {"dataset", "base", "tuned", "tuned-by-one", "report.html", "metrics.json", "matrix"}


@pytest.mark.slow
def test_a_lost_node_comes_back_and_tuning_goes_on_from_the_store(
    dataset: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with with_store(tmp_path, monkeypatch) as nodes:
        storage.upload_tree(dataset, f"{RUN}/dataset")
        storage.upload_tree(tiny_model, f"{RUN}/base")
        knobs = SETTINGS | CHECKPOINTS | {"model": f"{RUN}/base"}
        start(nodes, "finetune", knobs, dataset="dataset", model="tuned")
        nodes.wait_for(lambda: any(name.endswith("/complete.json") for name in storage.names(f"{RUN}/checkpoints")))
        nodes.kill(1)
        assert 0 not in nodes.ended(), nodes.said()
        start(nodes, "finetune", knobs, dataset="dataset", model="tuned")
        finished(nodes)
        start(nodes, "finetune", knobs | {"checkpoints": f"{RUN}/others"}, dataset="dataset", model="straight")
        finished(nodes)
        resumed = storage.fetch(f"{RUN}/tuned", tmp_path / "resumed")
        assert storage.read_json(resumed / "finetune.json")["numbers"]["resumed_at"] >= 12
        first, second = weights(resumed), weights(storage.fetch(f"{RUN}/straight", tmp_path / "straight"))
        assert all(np.array_equal(first[name], second[name]) for name in first)
