"""A training on two nodes that have nothing in common but the network and a store: a real S3 server, real torchrun agents."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tritower import storage
from tritower.config import to_dict
from tritower.ranker.config import RankerConfig

from tests.support.nodes import Nodes, with_store
from tests.support.ranker_training import SMALL, same

RUN = "s3://bucket/run"


@pytest.fixture
def nodes(log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """Two nodes, and the log's folders in a store that they reach."""
    with with_store(tmp_path, monkeypatch) as made:
        storage.upload_tree(log.features, f"{RUN}/features")
        storage.upload_tree(log.embeddings, f"{RUN}/embeddings")
        yield made


def start(nodes: Nodes, config: RankerConfig, each: int = 1) -> None:
    """Start the training on both nodes: what a pod's command says, and nothing but locations of the store."""
    places = [f"--{name}={RUN}/{name}" for name in ("features", "embeddings", "model")]
    for number in range(2):
        nodes.start(number, "tritower.ranker", [*places, f"--config={json.dumps(to_dict(config))}"], each)


def kept() -> set[str]:
    """What stands below the run's root."""
    return {name.split("/")[1] for name in storage.names(RUN)}


def test_two_nodes_with_a_store_between_them_learn_what_one_learns(one: Path, nodes: Nodes, tmp_path: Path):
    start(nodes, SMALL)
    assert nodes.ended() == [0, 0], nodes.said()
    same(one, storage.fetch(f"{RUN}/model", tmp_path / "model"))
    assert kept() == {"features", "embeddings", "model"}


@pytest.mark.slow
def test_a_lost_node_comes_back_and_both_go_on_from_the_store(one: Path, nodes: Nodes, tmp_path: Path):
    """Two processes on each node; one fetches and prepares for both. All is gone from the disks when a node starts again."""
    config = replace(SMALL, launch=replace(SMALL.launch, checkpoint_every_steps=3, checkpoints=f"{RUN}/checkpoints"))
    start(nodes, config, each=2)
    nodes.wait_for(lambda: any(name.endswith("/slot-1/state.json") for name in storage.names(f"{RUN}/checkpoints")))
    nodes.kill(1)
    assert 0 not in nodes.ended(), nodes.said()
    assert "model" not in kept()
    start(nodes, config, each=2)
    assert nodes.ended() == [0, 0], nodes.said()
    assert "resumed at step" in nodes.said()
    assert nodes.said().count("fetch inputs") == 2  # by rank 0, at each start; rank 2 of the other node logs warnings only
    same(one, storage.fetch(f"{RUN}/model", tmp_path / "model"))


@pytest.mark.slow
def test_the_batch_of_a_loss_that_is_not_finite_is_in_the_store(log: Any, nodes: Nodes, tmp_path: Path):
    matrix_TD = np.load(log.embeddings / "matrix.npy")
    matrix_TD[70] = np.nan
    np.save(tmp_path / "matrix.npy", matrix_TD)
    storage.upload(tmp_path / "matrix.npy", f"{RUN}/embeddings/matrix.npy")
    start(nodes, SMALL)
    assert 0 not in nodes.ended(), nodes.said()
    assert kept() == {"features", "embeddings", "model.failures"}
    (name, *_) = storage.names(f"{RUN}/model.failures")
    assert (
        f"NonFiniteLossError: the loss is not finite at step 0; not finite in the batch: document_JD (in s3://bucket/{name})"
        in nodes.said()
    )
    assert np.isnan(load_file(storage.fetch(f"s3://bucket/{name}", tmp_path / "batch"))["document_JD"]).any()
