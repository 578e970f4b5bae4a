"""Checkpoints of a training: tensors in safetensors, the rest in JSON, nothing pickled.

A checkpoint is a folder `step-<number>` with tensors.safetensors and state.json that appears whole or not at all; older ones
go once a newer one stands.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tritower import storage
from tritower.errors import ArtifactError


def save(root: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write checkpoint number `step` below `root` and remove the older ones."""
    with storage.atomic_directory(root / f"step-{step:09d}") as folder:
        save_file({name: value.detach().contiguous().cpu() for name, value in tensors.items()}, folder / "tensors.safetensors")
        storage.write_json(folder / "state.json", state)
    for older in sorted(root.glob("step-*"))[:-1]:
        shutil.rmtree(older)


def load(root: Path, *, identity: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint's tensors and state; None when there is none.

    Args:
        root: folder given to `save`.
        identity: what the training is (its knobs and data); must equal the checkpoint's `state["identity"]`.

    Raises:
        ArtifactError: the checkpoint is another training's.
    """
    found = sorted(root.glob("step-*"))
    if not found:
        return None
    state = storage.read_json(found[-1] / "state.json")
    if state["identity"] != identity:
        changed = sorted(name for name in identity if state["identity"].get(name) != identity[name])
        raise ArtifactError(
            f"the checkpoint belongs to another training: {', '.join(changed)} differ",
            where=str(found[-1]),
            remedy="Give the same data and knobs, or another `checkpoints` folder.",
        )
    return load_file(found[-1] / "tensors.safetensors"), state


def flatten(model: nn.Module, optimiser: torch.optim.Optimizer, best: dict[str, Tensor]) -> dict[str, Tensor]:
    """One flat dict of everything `restore` needs."""
    flat = {f"model/{name}": value for name, value in model.state_dict().items()}
    flat |= {f"best/{name}": value.clone() for name, value in best.items()}
    for number, entries in optimiser.state_dict()["state"].items():
        flat |= {f"optimiser/{number}/{name}": value for name, value in entries.items()}
    return flat


def restore(tensors: dict[str, Tensor], model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Put the tensors back into model and optimiser; returns the best weights so far."""
    model.load_state_dict(_below(tensors, "model/"))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _below(tensors, "optimiser/").items():
        number, entry = name.split("/")
        moments.setdefault(int(number), {})[entry] = value
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return _below(tensors, "best/")


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
