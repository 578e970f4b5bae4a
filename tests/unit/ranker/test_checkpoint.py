"""Checkpoints: the newest whole one is taken; a torn one is passed over."""

from pathlib import Path

import torch
from tritower.ranker import checkpoint


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
