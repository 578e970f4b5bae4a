"""Fine-tuning a sentence-transformers model on clicks with its current Trainer."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from torch import nn
from transformers import PrinterCallback, TrainerCallback

from tritower import config as knobs
from tritower import storage
from tritower.encoder import backends, batching, checkpoint, models
from tritower.encoder.buckets import Ragged
from tritower.encoder.config import FinetuneConfig
from tritower.encoder.habits import Habits, attend
from tritower.encoder.habits import of as habits_of
from tritower.encoder.losses import ClickLoss
from tritower.encoder.small_vocabulary import SmallVocabulary
from tritower.encoder.triplets import Clicks
from tritower.errors import ConfigError, DataError

LOG = logging.getLogger(__name__)
_ASK_EVERY = 10


def train(
    model: SentenceTransformer,
    clicks: Clicks,
    texts: Sequence[str],
    config: FinetuneConfig,
    folder: Path,
    store: str = "",
    habits: Habits | None = None,
) -> dict[str, Any]:
    """Train `model` in place; under torchrun, every process calls this with the same arguments.

    Args:
        clicks: examples by text number.
        texts: the text of each number.
        folder: where checkpoints go; a whole one that is there is resumed.
        store: location that they are also sent to, for nodes whose folders do not outlive them; empty for none.
        habits: how the device is fed; None for what suits it.

    Returns:
        loss (mean over the last tenth of the steps), losses (one per step), steps, triplets, resumed_at (step).

    Raises:
        DataError: fewer clicks than a batch holds.
        ConfigError: `batch_size` cannot be split over the processes.
    """
    habits = habits or habits_of(model.device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if config.batch_size % world:
        raise ConfigError(
            f"batch_size {config.batch_size} over {world} processes", where="batch_size", remedy="Use a multiple."
        )
    if len(clicks) < config.batch_size:
        raise DataError(
            f"{len(clicks)} usable clicks, fewer than one batch of {config.batch_size}",
            where="the train split",
            remedy="Give a longer log, lower `batch_size`, or set `epochs` to 0 to use the encoder as it is.",
        )
    numbers = np.unique(np.r_[clicks.anchor_C, clicks.positive_C, clicks.negative_CK.ravel()])
    rows, _ = backends.tokenise(model, [texts[i] for i in numbers])
    before = {name: value.detach().clone() for name, value in model.named_parameters()} if config.blend < 1 else {}
    with _prepared(model, rows, config, habits) as small:
        tokens = {int(number): small.translate(row) for number, row in zip(numbers, rows, strict=True)}
        trainer = _trainer(model, clicks, tokens, small.pad, config, folder, world, habits)
        trainer.store = store
        resumed = checkpoint.latest(folder)
        if resumed and storage.read_json(resumed / "complete.json")["fingerprint"] != trainer.fingerprint:
            LOG.warning("checkpoint %s is of other data or settings and is not used", resumed)
            resumed = None
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    with torch.no_grad():
        for name, old in before.items():
            model.get_parameter(name).lerp_(old, 1 - config.blend)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "loss": float(np.mean(losses[-max(1, len(losses) // 10) :])),
        "losses": losses,
        "steps": trainer.state.global_step,
        "triplets": trainer.state.global_step * config.batch_size * clicks.negative_CK.shape[1],
        "resumed_at": int(resumed.name.rpartition("-")[2]) if resumed else 0,
    }


@contextlib.contextmanager
def _prepared(model: SentenceTransformer, rows: Ragged, config: FinetuneConfig, habits: Habits) -> Iterator[SmallVocabulary]:
    """The model as it trains fastest, with the vocabulary of `rows`; as it was, and in evaluation mode, when the block ends."""
    small = SmallVocabulary(model, rows, int(model.tokenizer.pad_token_id))
    _set_dropout(model, config.dropout)
    transformer = models.transformer_of(model)
    attention = transformer.config._attn_implementation
    attend(transformer, habits)
    if config.gradient_checkpointing:
        transformer.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore[no-untyped-call]
    _freeze_unused(model, small.pad)
    yield small
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if config.gradient_checkpointing:
        transformer.gradient_checkpointing_disable()  # type: ignore[no-untyped-call]
    transformer.set_attn_implementation(attention)
    small.restore()
    model.eval()


def _trainer(
    model: SentenceTransformer,
    clicks: Clicks,
    tokens: dict[int, Any],
    pad: int,
    config: FinetuneConfig,
    folder: Path,
    world: int,
    habits: Habits,
) -> checkpoint.SafeTrainer:
    length_C2 = np.column_stack([
        [len(tokens[int(a)]) for a in clicks.anchor_C],
        [max(len(tokens[int(d)]) for d in (p, *n)) for p, n in zip(clicks.positive_C, clicks.negative_CK, strict=True)],
    ])  # fmt: skip
    ranking = "ranking" in config.loss

    def sampler(dataset: Dataset, **settings: Any) -> batching.LengthBatchSampler:
        return batching.LengthBatchSampler(
            dataset, length_C2=length_C2, anchor_C=clicks.anchor_C if ranking else None, world=world, **settings
        )

    table = {
        "anchor": clicks.anchor_C.tolist(),
        "positive": clicks.positive_C.tolist(),
        "negatives": clicks.negative_CK.tolist(),
    }
    loss = ClickLoss(model, kind=config.loss, margin=config.margin, scale=config.scale, across=ranking and world > 1)
    trainer = checkpoint.SafeTrainer(
        model=model,
        args=_arguments(config, folder, model.device, len(clicks), sampler, world, habits),
        train_dataset=Dataset.from_dict(table),
        loss=loss,
        data_collator=batching.Collator(tokens, pad, habits.together),
    )
    content = [len(clicks), int(clicks.anchor_C.sum()), int(clicks.positive_C.sum()), int(clicks.negative_CK.sum()), world]
    trainer.read_every = habits.read_every
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_LogTenths())
    trainer.add_callback(_SaveByTime(config.checkpoint_every_s))
    decisive = {name: value for name, value in knobs.to_dict(config).items() if not name.startswith("checkpoint")}
    trainer.fingerprint = checkpoint.fingerprint({"config": decisive, "clicks": content})
    return trainer


def _arguments(
    config: FinetuneConfig, folder: Path, device: torch.device, clicks: int, sampler: Any, world: int, habits: Habits
) -> SentenceTransformerTrainingArguments:
    """The Trainer's settings; `clicks` is the number of examples, `sampler` makes the batch sampler."""
    on_gpu, each = device.type == "cuda", habits.read_every == 1
    precision = backends.native_precision(device) if config.precision == "auto" else config.precision
    steps = config.epochs * (clicks // config.batch_size)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size // world,
        learning_rate=config.learning_rate,
        weight_decay=0.0,
        warmup_steps=round(config.warmup * steps),
        optim="adamw_torch_fused",
        bf16=precision == "bf16",
        use_cpu=device.type == "cpu",
        batch_sampler=sampler,
        save_strategy="steps" if config.checkpoint_steps else "no",
        save_steps=config.checkpoint_steps or 500,
        save_total_limit=2,
        logging_steps=1 if each else max(1, steps // 10),
        logging_nan_inf_filter=each,  # it looks at the loss; SafeTrainer does, now and then
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
        dataloader_pin_memory=on_gpu,
        accelerator_config={"non_blocking": on_gpu},
        ddp_backend="gloo" if device.type == "cpu" and world > 1 else None,
        ddp_find_unused_parameters=False,
        seed=config.seed,
    )
    if on_gpu:
        arguments._n_gpu = 1  # the Trainer alone would spread each batch over all GPUs of the machine, in threads
    return arguments


class _LogTenths(TrainerCallback):
    """One line of log for each tenth of the steps."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        every = max(1, state.max_steps // 10)
        if logs and "loss" in logs and state.global_step % every == 0 and state.is_world_process_zero:
            LOG.info("step %d of %d, loss %.4f", state.global_step, state.max_steps, logs["loss"])


class _SaveByTime(TrainerCallback):
    """A checkpoint every `every_s` seconds, in all processes at the same step: the first one's clock counts.

    A store that is slow takes a twentieth of the time, no more.
    """

    def __init__(self, every_s: float) -> None:
        self.every_s, self.saved_at, self.asked_at, self.cost_s = every_s, time.monotonic(), 0.0, 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.saved_at = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.asked_at = time.monotonic()
        due = self.asked_at - self.saved_at >= max(self.every_s, 20 * self.cost_s)
        if args.world_size > 1:
            if state.global_step % _ASK_EVERY:
                return
            told = torch.tensor(int(due), device=args.device)
            torch.distributed.broadcast(told, 0)
            due = bool(told)
        control.should_save = control.should_save or due

    def on_save(self, *_: Any, **__: Any) -> None:
        self.saved_at = time.monotonic()
        self.cost_s = self.saved_at - self.asked_at


def _set_dropout(model: nn.Module, rate: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        elif hasattr(module, "dropout_prob"):
            module.dropout_prob = rate  # type: ignore[assignment]


def _freeze_unused(model: SentenceTransformer, pad: int) -> None:
    """Exclude what the loss does not reach, such as BERT's pooler, which DDP would wait for."""
    model.train()
    ids = torch.full((1, 2), pad, device=model.device)
    model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["sentence_embedding"].sum().backward()
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.requires_grad_(False)
        parameter.grad = None
