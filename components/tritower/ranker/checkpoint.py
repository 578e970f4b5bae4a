"""Checkpoints of a training: tensors in safetensors, the rest in JSON, nothing pickled.

Two slots are written in turn, `slot-0` and `slot-1`, each with tensors.safetensors and state.json, which holds the digest of
the tensors: a slot torn by a crash in the middle of an upload does not match and the other one is used. The place is a local
folder or the URI of an object store.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tritower import storage
from tritower.errors import StorageError

_SLOTS = ("slot-0", "slot-1")


def save(root: str, number: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write the checkpoint that is the `number`-th of this training (0-based) over the one before the last."""
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as scratch:
        folder = Path(scratch)
        file = folder / "tensors.safetensors"
        save_file({name: value.detach().contiguous().cpu() for name, value in tensors.items()}, file)
        storage.write_json(folder / "state.json", state | {"number": number, "digest": _digest(file)})
        storage.upload_tree(folder, f"{root.rstrip('/')}/{_SLOTS[number % 2]}")


def load(root: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint's tensors and state; None when there is none."""
    found: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
    for slot in _SLOTS:
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as scratch:
            try:
                folder = storage.fetch_tree(f"{root.rstrip('/')}/{slot}", Path(scratch) / slot)
                state = storage.read_json(folder / "state.json")
                if state["digest"] == _digest(folder / "tensors.safetensors"):
                    found.append((state, load_file(folder / "tensors.safetensors")))
            except (StorageError, FileNotFoundError):
                continue  # never written, or torn
    if not found:
        return None
    state, tensors = max(found, key=lambda pair: int(pair[0]["number"]))
    return tensors, state


def clear(root: str) -> None:
    """Remove a finished training's checkpoints where they are local; an object store's lifecycle rule sees to its own."""
    if storage.is_local(root):
        shutil.rmtree(storage.local_path(root), ignore_errors=True)


def flatten(model: nn.Module, optimiser: torch.optim.Optimizer, others: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """One flat dict of everything `restore` needs; `others` are further sets of weights by name."""
    flat = {f"model/{name}": value for name, value in model.state_dict().items()}
    for kind, weights in others.items():
        flat |= {f"{kind}/{name}": value.clone() for name, value in weights.items()}
    for number, entries in optimiser.state_dict()["state"].items():
        flat |= {f"optimiser/{number}/{name}": value for name, value in entries.items()}
    return flat


def restore(tensors: dict[str, Tensor], model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Put the tensors back into model and optimiser."""
    model.load_state_dict(below(tensors, "model"))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in below(tensors, "optimiser").items():
        number, entry = name.split("/")
        moments.setdefault(int(number), {})[entry] = value
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})


def below(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The tensors of one kind, such as `best`, by their own names."""
    prefix = f"{kind}/"
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
