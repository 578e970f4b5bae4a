"""Checkpoints: the newest whole one is taken; a torn one is passed over; every tensor comes back."""

from pathlib import Path

import pytest
import torch
from tritower.ranker import checkpoint
from tritower.ranker.config import RankerConfig
from tritower.ranker.network import ClickModel


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path):
    root = str(tmp_path / "checkpoints")
    assert checkpoint.load(root) is None
    for number in range(3):
        checkpoint.save(root, number, {"a": torch.full((3,), float(number))}, {"progress": {"step": number}})
    tensors, state = checkpoint.load(root)
    assert state["progress"] == {"step": 2} and tensors["a"].tolist() == [2.0] * 3
    assert sorted(folder.name for folder in Path(root).iterdir()) == ["slot-0", "slot-1"]

    newest = Path(root) / "slot-0/tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x07")
    tensors, state = checkpoint.load(root)
    assert state["progress"] == {"step": 1} and tensors["a"].tolist() == [1.0] * 3
    checkpoint.clear(root)
    assert checkpoint.load(root) is None


def test_model_optimiser_and_averages_come_back(tmp_path: Path):
    def fresh(seed: int) -> tuple[ClickModel, torch.optim.AdamW]:
        torch.manual_seed(seed)
        model = ClickModel(RankerConfig(), dim=4, features=2)
        return model, torch.optim.AdamW(model.parameters(), fused=True)

    def step(model: ClickModel, optimiser: torch.optim.AdamW) -> None:
        index = torch.zeros(2, dtype=torch.long)
        model.eval()
        click, *_ = model(torch.ones(1, 4), torch.ones(1, 4), index, index, torch.ones(2, 2), index, index, index, index + 2)
        click.sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    model, optimiser = fresh(0)
    step(model, optimiser)
    flat = checkpoint.flatten(model, optimiser, {"best": {"x": torch.tensor([1.5])}, "average": {}})
    checkpoint.save(str(tmp_path), 0, flat, {})
    step(model, optimiser)

    other, second = fresh(1)
    tensors, _ = checkpoint.load(str(tmp_path))
    checkpoint.restore(tensors, other, second)
    step(other, second)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert checkpoint.below(tensors, "best")["x"].item() == pytest.approx(1.5)
    assert checkpoint.below(tensors, "average") == {}
