"""Checkpoints of a training: tensors in safetensors, the rest in JSON, nothing pickled.

Two slots are written in turn, `slot-0` and `slot-1`, each with tensors.safetensors and state.json, which holds the digest of
the tensors: a slot torn by a crash in the middle of an upload does not match and the other one is used. The place is a local
folder or the URI of an object store.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from tritower import storage
from tritower.errors import ArtifactError, StorageError
from tritower.storage import manifest

_SLOTS = ("slot-0", "slot-1")


def save(root: str, number: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write the checkpoint that is the `number`-th of this training (0-based) over the one before the last."""
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as scratch:
        folder = Path(scratch)
        file = folder / "tensors.safetensors"
        save_file({name: value.detach().contiguous().cpu() for name, value in tensors.items()}, file)
        storage.write_json(folder / "state.json", state | {"number": number, "digest": manifest.digest(file)})
        storage.upload_tree(folder, f"{root.rstrip('/')}/{_SLOTS[number % 2]}")


def load(root: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint's tensors and state; None when there is none."""
    found: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
    for slot in _SLOTS:
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as scratch:
            try:
                folder = storage.fetch_tree(f"{root.rstrip('/')}/{slot}", Path(scratch) / slot)
                state = storage.read_json(folder / "state.json")
                if state["digest"] == manifest.digest(folder / "tensors.safetensors"):
                    found.append((state, load_file(folder / "tensors.safetensors")))
            except (StorageError, ArtifactError, FileNotFoundError):
                continue  # never written, or torn
    if not found:
        return None
    state, tensors = max(found, key=lambda pair: int(pair[0]["number"]))
    return tensors, state


def clear(root: str) -> None:
    """Remove a finished training's checkpoints where they are local; an object store's lifecycle rule sees to its own."""
    if storage.is_local(root):
        shutil.rmtree(storage.local_path(root), ignore_errors=True)
