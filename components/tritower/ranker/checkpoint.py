"""Checkpoints of a training: tensors in safetensors, the rest in JSON, nothing pickled.

Two slots are written in turn, `slot-0` and `slot-1`, each with tensors.safetensors and state.json, which holds the digest of
the tensors: a slot torn by a crash in the middle of an upload does not match and the other one is used. The place is a local
folder or the URI of an object store.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from tritower import storage
from tritower.errors import ArtifactError
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
    """The newest whole checkpoint's tensors and state; None when there is none.

    A store that does not answer is asked again for a minute. If it stays away there is a warning, and None.
    """
    read = storage.patiently(lambda: [_read(f"{root.rstrip('/')}/{slot}") for slot in _SLOTS])
    found = [slot for slot in read or () if slot]
    return max(found, key=lambda slot: int(slot[1]["number"]), default=None)


def _read(slot: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What a slot holds; None where it was never written, or is torn."""
    written = storage.local_path(slot).is_dir() if storage.is_local(slot) else bool(storage.names(slot))
    if not written:
        return None
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as scratch:
        try:
            folder = storage.fetch_tree(slot, Path(scratch) / "slot")
            state: dict[str, Any] = json.loads((folder / "state.json").read_bytes())
            file = folder / "tensors.safetensors"
            return (load_file(file), state) if state["digest"] == manifest.digest(file) else None
        except (ArtifactError, ValueError, FileNotFoundError):
            return None


def clear(root: str) -> None:
    """Remove a finished training's checkpoints where they are local; an object store's lifecycle rule sees to its own."""
    if storage.is_local(root):
        shutil.rmtree(storage.local_path(root), ignore_errors=True)
