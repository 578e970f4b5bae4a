"""Model folders of earlier versions: read where what was taken out since was off, else refused in one sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tritower import storage
from tritower.errors import ArtifactError
from tritower.ranker import artifact
from tritower.ranker.artifact import Artifact
from tritower.ranker.config import NetworkConfig, RankerConfig, TrainingConfig
from tritower.ranker.network import ClickModel
from tritower.ranker.normaliser import fit

# Where a linear layer stood when a tower had three modules a layer, and stands now: all towers with two layers or more.
MOVED = {
    "query_tower.tower.2": "query_tower.tower.3",
    "interaction_tower.2": "interaction_tower.3",
    "interaction_tower.4": "interaction_tower.6",
    "head.1.0": "head.2.0",
    "head.1.2": "head.2.3",
}
OFF = {
    "gates": False, "listwise": 0.0, "hash_buckets": 0, "hash_width": 8, "past_clicks": 0, "past_width": 32, "dropout": 0.0,
    "shuffle": "requests", "accumulate": 1, "product": False,
}  # fmt: skip


def older(folder: Path, more: dict[str, Any]) -> list[ClickModel]:
    """A model folder as the version before wrote it; the networks it holds."""
    config = RankerConfig(
        network=NetworkConfig(
            query_tower=(4, 3), document_tower=(3,), interaction_tower=(4, 5, 6), head=(3, 4, 5), occupation_classes=2
        ),
        training=TrainingConfig(members=2),
    )
    members = [ClickModel(config.network, dim=4, features=2) for _ in range(2)]
    normaliser = fit(np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32), kind="quantile")
    artifact.save(folder, Artifact(config, ["a", "b"], {"hash": "h", "dim": 4}, normaliser, members), {})
    (folder / storage.MARK).unlink()
    groups = storage.read_json(folder / "config.json").values()
    then = {name: value for group in groups for name, value in group.items()} | more
    for now, before in (("warmup_ratio", "warmup_share"), ("ema_decay", "average")):
        then[before] = then.pop(now)
    (folder / "config.json").write_text(json.dumps(then))
    tensors = load_file(folder / "model.safetensors")
    for now, before in MOVED.items():
        for name in [name for name in tensors if f".{now}." in name]:
            tensors[name.replace(now, before)] = tensors.pop(name)
    save_file(tensors, folder / "model.safetensors")
    return members


def test_a_folder_with_everything_off_loads_with_its_weights(tmp_path: Path):
    members = older(tmp_path / "model", OFF)
    loaded = artifact.load(tmp_path / "model").members
    for one, other in zip(members, loaded, strict=True):
        assert one.state_dict().keys() == other.state_dict().keys()
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize(("knob", "value"), [("gates", True), ("past_clicks", 8), ("dropout", 0.1), ("product", True)])
def test_a_folder_with_something_on_is_refused(tmp_path: Path, knob: str, value: object):
    older(tmp_path / "model", OFF | {knob: value})
    with pytest.raises(ArtifactError, match=f"the knob '{knob}' was removed: .*config.json.*Train again"):
        artifact.load(tmp_path / "model")
