"""Training state as safetensors and JSON: nothing that is read back can run code.

The Trainer's own checkpoints hold pickles (optimizer, scheduler, random states, arguments); `SafeTrainer` writes and reads
the same state without them. A checkpoint counts only when its last file, complete.json, is there.
"""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformerTrainer
from torch import Tensor

from tritower import storage
from tritower.errors import NonFiniteLossError
from tritower.storage import staging

_COMPLETE = "complete.json"


def fetch(store: str, folder: Path) -> str:
    """Bring the newest whole checkpoint of a store into a local folder, where `latest` finds it; its location, "" for none.

    A store that does not answer is asked again for a minute. If it stays away there is a warning, and "".
    """
    return storage.patiently(lambda: _fetch(store.rstrip("/"), folder)) or ""


def _fetch(store: str, folder: Path) -> str:
    whole = _whole(store)
    if not whole:
        return ""
    newest = f"checkpoint-{whole[-1]}"
    storage.fetch_tree(f"{store}/{newest}", folder / newest)
    return f"{store}/{newest}"


def _whole(store: str) -> list[int]:
    """The steps of the whole checkpoints below a location, ascending."""
    names = [name.rsplit("/", 2) for name in storage.names(store)]
    return sorted(int(name[1].rpartition("-")[2]) for name in names if len(name) == 3 and name[2] == _COMPLETE)


def latest(folder: Path) -> Path | None:
    """The whole checkpoint of the most steps under `folder`, or None."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{_COMPLETE}")]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class SafeTrainer(SentenceTransformerTrainer):
    """SentenceTransformerTrainer whose checkpoints hold no pickle and which stops at the first loss that is not finite.

    The scaler of fp16 training is not kept: training runs in fp32 or bf16.
    """

    fingerprint = ""
    """Written into each checkpoint, so that a run resumes only from one of the same data and settings."""

    store = ""
    """Location that checkpoints are also sent to; empty for none."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: model cards are not written, and collecting them encodes examples and may ask the hub."""

    read_every = 1
    """Steps between two looks at the losses; see `habits.Habits`."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._unread: list[tuple[int, Tensor, dict[str, Any]]] = []

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The loss; raises NonFiniteLossError, up to `read_every` steps later, with the batch saved beside the checkpoints."""
        loss = super().compute_loss(model, dict(inputs), *args, **kwargs)
        value = loss[0] if isinstance(loss, tuple) else loss
        self._unread.append((self.state.global_step, value.detach(), inputs))
        if len(self._unread) >= self.read_every:
            self._read()
        return loss

    def _read(self) -> None:
        """Look at the losses since the last look. The Trainer notes every one itself where it looks at each step."""
        unread, self._unread = self._unread, []
        if not unread:
            return
        loss_S = torch.stack([value for _, value, _ in unread])
        for (step, _, inputs), value in zip(unread, loss_S.tolist(), strict=True):
            if not math.isfinite(value):
                self._refuse(step, value, inputs)
        if self.read_every > 1:
            mean_S = self.accelerator.reduce(loss_S, "mean").tolist()  # over the processes, as the Trainer's
            self.state.log_history += [
                {"loss": value, "step": step + 1} for (step, _, _), value in zip(unread, mean_S, strict=True)
            ]

    def _refuse(self, step: int, value: float, inputs: dict[str, Any]) -> None:
        where = f"{self.store or self.args.output_dir}/not-finite-{step}.safetensors"
        with staging.sent(where) as file:
            save_file({name: tensor.contiguous().cpu() for name, tensor in inputs.items()}, file)
        raise NonFiniteLossError(
            f"the loss is {value} at step {step}", where=where, remedy="Lower `learning_rate`, or use precision fp32."
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Note figures; the loss among them is that of the step, not the mean since the last note."""
        self._read()
        if self.read_every > 1 and "loss" in logs:
            logs |= {"loss": self.state.log_history.pop()["loss"]}
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir or "")
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}, folder / "weights.safetensors"
        )

    def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        self.model.load_state_dict(load_file(Path(checkpoint_path) / "weights.safetensors"))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._read()  # weights after a loss that is not finite are no state to go on from
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        location = f"{self.store.rstrip('/')}/{folder.name}" if self.store else ""
        sent = not location or storage.tried(lambda: self._send(folder, location), folder.name)
        all_sent = float(self.accelerator.reduce(torch.tensor(float(sent), device=self.args.device), "mean")) == 1.0
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            storage.write_json(folder / _COMPLETE, {"step": self.state.global_step, "fingerprint": self.fingerprint})
            if location and all_sent:
                storage.tried(lambda: self._finish(folder, location), folder.name)

    def _finish(self, folder: Path, location: str) -> None:
        """Make a checkpoint of the store whole, and remove those that are older than the last two."""
        storage.upload(folder / _COMPLETE, f"{location}/{_COMPLETE}")
        for older in _whole(self.store)[: -(self.args.save_total_limit or 1)]:
            storage.remove(f"{self.store.rstrip('/')}/checkpoint-{older}")

    def _send(self, folder: Path, location: str) -> None:
        """Send this process's random states, and in the first one all that is no process's own."""
        for file in sorted(folder.iterdir()):
            own = file.stem == f"random-{self.args.process_index}"
            if file.is_file() and (own or (self.args.should_save and not file.name.startswith("random-"))):
                storage.upload(file, f"{location}/{file.name}")

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.args.should_save and self.optimizer is not None and self.lr_scheduler is not None:
            tensors, plain = flatten(self.optimizer.state_dict())
            save_file(tensors, Path(output_dir) / "optimizer.safetensors")
            storage.write_json(Path(output_dir) / "optimizer.json", plain)
            storage.write_json(Path(output_dir) / "schedule.json", self.lr_scheduler.state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.optimizer is not None and self.lr_scheduler is not None:
            folder = Path(checkpoint)
            plain = storage.read_json(folder / "optimizer.json")
            self.optimizer.load_state_dict(unflatten(load_file(folder / "optimizer.safetensors"), plain))
            self.lr_scheduler.load_state_dict(storage.read_json(folder / "schedule.json"))

    def _save_scaler(self, output_dir: str) -> None:
        pass

    def _load_scaler(self, checkpoint: str | None) -> None:
        pass

    def _save_rng_state(self, output_dir: str) -> None:
        tensors, plain = random_states()
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        save_file(tensors, Path(output_dir) / f"random-{self.args.process_index}.safetensors")
        storage.write_json(Path(output_dir) / f"random-{self.args.process_index}.json", plain)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            name = Path(checkpoint) / f"random-{self.args.process_index}"
            restore_random_states(load_file(name.with_suffix(".safetensors")), storage.read_json(name.with_suffix(".json")))


def flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state_dict as named tensors and what is plain JSON."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for parameter, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{parameter}/{name}"] = value.contiguous()
            else:
                numbers[f"{parameter}/{name}"] = value
    return tensors, {
        "groups": state["param_groups"],
        "numbers": numbers,
    }


def unflatten(tensors: dict[str, Tensor], plain: dict[str, Any]) -> dict[str, Any]:
    """The state_dict that `flatten` took apart."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *plain["numbers"].items()]:
        parameter, _, key = name.partition("/")
        state.setdefault(int(parameter), {})[key] = value
    return {"state": state, "param_groups": plain["groups"]}


def random_states() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The states of Python's, numpy's and torch's generators."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 - the state libraries draw from
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors, {"python": random.getstate(), "numpy": [name, int(position), int(has_gauss), float(gauss)]}


def restore_random_states(tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    """Undo `random_states`."""
    version, internal, gauss = plain["python"]
    random.setstate((version, tuple(internal), gauss))
    name, position, has_gauss, cached = plain["numpy"]
    np.random.set_state((name, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def fingerprint(value: Any) -> str:
    """JSON text of settings, with sorted keys."""
    return json.dumps(value, sort_keys=True)
