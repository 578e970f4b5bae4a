"""The training loop: single-device code; `ProcessGroup` says which share of each global batch is this process's."""

import gc
import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tritower import storage
from tritower.errors import DataError, NonFiniteLossError, StepError
from tritower.ranker import checkpoint, loops, measure
from tritower.ranker.batches import Batch, Shares, Source
from tritower.ranker.config import RankerConfig
from tritower.ranker.device import multiplies_bf16
from tritower.ranker.loops import Steps
from tritower.ranker.network import ClickModel
from tritower.ranker.optimiser import FlatAdamW, lr_factor
from tritower.ranker.process_group import ProcessGroup
from tritower.ranker.scalars import Scalars
from tritower.storage import staging

logger = logging.getLogger(__name__)
_EVALUATION_BATCH = 8192


@dataclass
class Progress:
    """How far a training is; all of it is in a checkpoint."""

    step: int = 0
    stale: int = 0
    best_step: int = 0
    checkpoints: int = 0
    best: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Trains a ClickModel; after `run`, the model has the weights that were best on validation.

    Args:
        model: fresh, the same in every process.
        train: rows to learn from, with their embeddings.
        validation: rows for early stopping.
        config: the knobs.
        group: this process among the others.
        checkpoints: folder or URI of this very training's checkpoints; empty = none.
        metrics_file: gets the validation figures as they come, from rank 0.
        failures: location of the folder that gets the batch of a non-finite loss.

    Raises:
        DataError: train or validation has too few rows.
    """

    def __init__(
        self,
        model: ClickModel,
        *,
        train: Source,
        validation: Source,
        config: RankerConfig,
        group: ProcessGroup,
        checkpoints: str,
        metrics_file: Path | None = None,
        failures: str,
    ) -> None:
        self.batch_size = min(config.training.batch_size, len(train)) // group.world_size * group.world_size
        if not self.batch_size or not len(validation):
            raise DataError(
                f"{len(train)} rows to train on, {len(validation)} to validate",
                remedy="Give a longer log, or move the split times.",
            )
        self.train, self.validation = train, validation
        self.config, self.group, self.checkpoints, self.failures = config, group, checkpoints, failures
        self.model = model.to(group.device)
        self.optimiser = FlatAdamW(self.model, config.optimiser, all_reduce_mean=group.all_reduce_mean)
        self.shares = Shares(
            train.rows, seed=config.training.seed, batch_size=self.batch_size, rank=group.rank, world=group.world_size
        )
        self.per_epoch = self.shares.per_epoch
        self.steps = self.per_epoch * config.training.epochs
        self.progress, self.told = Progress(), 0
        self.saved_at, self.save_s = time.monotonic(), 0.0
        self.best_P = self.optimiser.weight_P.clone()
        board, file = (config.launch.tensorboard, metrics_file) if group.rank == 0 else ("", None)
        self.scalars = Scalars(config.launch.log_every_s, board, file)
        precision = config.training.precision
        self.bf16 = precision == "bf16" or (precision == "auto" and multiplies_bf16(group.device))
        if group.device.type == "cuda":
            torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")

    def run(self) -> Progress:
        """Train to the end or to early stopping, from the newest checkpoint if there is one."""
        self._resume()
        gc.freeze()  # walking all modules' objects took a twentieth of a step
        steps = loops.chosen(
            self.config, self.model, self.optimiser, self.train, self.shares, steps=self.steps, group=self.group, bf16=self.bf16
        )  # fmt: skip
        try:
            self._train(steps)
        finally:
            steps.close()
            gc.unfreeze()
        self.scalars.close()
        if self.checkpoints and self.group.rank == 0:
            self._save()  # an attempt that is killed later takes this member from here
        self.optimiser.weight_P.copy_(self.best_P)
        return self.progress

    def _train(self, steps: Steps) -> None:
        marks = _evaluation_steps(self.per_epoch, self.config.training.evaluations_per_epoch)
        while self.progress.step < self.steps and self.progress.stale < self.config.training.patience:
            step = self.progress.step
            steps.take(step)
            self.progress.step = step + 1
            evaluate = (step + 1) % self.per_epoch in marks
            if evaluate or step + 1 == self.steps or step + 1 - self.told >= steps.every:
                self._tell(steps)
            if evaluate:
                self._evaluate()
            if self._checkpoint_due():
                self._tell(steps)
                self._save()

    def _tell(self, steps: Steps) -> None:
        """Pass on the losses since the last time; nothing is kept of weights that a loss which is not finite has changed."""
        losses = steps.losses(self.told, self.progress.step)
        for step, loss in enumerate(losses, self.told):
            if not math.isfinite(loss):
                self._stop_non_finite(self.train(self.shares(step)), step)
            rate = self.optimiser.rate(lr_factor(step, self.steps, self.config.optimiser.warmup_ratio))
            self.scalars.step(step + 1, self.steps, rows=self.batch_size, loss=loss, rate=rate)
        self.told = self.progress.step

    def _stop_non_finite(self, batch: Batch, step: int) -> None:
        where = f"{self.failures.rstrip('/')}/batch-{step}-rank-{self.group.rank}.safetensors"
        with staging.sent(where) as file:
            save_file({name: value.contiguous().cpu() for name, value in vars(batch).items()}, file)
        bad = [name for name, value in vars(batch).items() if name != "feature_BF" and not torch.isfinite(value).all()]
        cause = f"not finite in the batch: {', '.join(bad)}" if bad else "the batch is finite, so the weights diverged"
        raise NonFiniteLossError(
            f"the loss is not finite at step {step}; {cause}",
            where=where,
            remedy="Look at the saved batch; lower learning_rate or clip_norm, or mend the embeddings.",
        )

    def _evaluate(self) -> None:
        kept_P, current_P = self.optimiser.kept(), self.optimiser.weight_P.clone()
        self.optimiser.weight_P.copy_(kept_P)
        click_N, skip_N = self.predict(self.validation)
        self.optimiser.weight_P.copy_(current_P)
        clicked_N = np.asarray(self.validation.rows.clicked)
        figures = measure.figures(click_N, skip_N, clicked_N)
        progress, monitor = self.progress, self.config.training.monitor
        sign = -1.0 if monitor == "log_loss" else 1.0
        better = not progress.best or sign * figures[monitor] > sign * progress.best[monitor]
        progress.history.append({"step": float(progress.step), **figures})
        progress.stale = 0 if better else progress.stale + 1
        if better:
            progress.best, progress.best_step = figures, progress.step
            self.best_P.copy_(kept_P)
        self.scalars.validation(progress.step, figures)
        logger.info(
            "validation at step %d: log loss %.5f, AUC %.4f%s",
            progress.step, figures["log_loss"], figures["auc"], "" if better else f" ({progress.stale} without a gain)",
        )  # fmt: skip

    def predict(self, source: Source) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Log probability of a click and of no click as shown, for every row, computed by all processes together."""
        share = -(-len(source) // self.group.world_size)
        index_N = np.minimum(np.arange(self.group.rank * share, (self.group.rank + 1) * share), len(source) - 1)
        parts: list[tuple[Tensor, Tensor]] = []
        self.model.eval()
        with torch.inference_mode(), torch.autocast(self.group.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            for start in range(0, share, _EVALUATION_BATCH):
                batch = source(index_N[start : start + _EVALUATION_BATCH])
                parts.append(self.model(*batch.inputs())[:2])
        self.model.train()
        click_N, skip_N = (self.group.all_gather(torch.cat(side).float().cpu().numpy()) for side in zip(*parts, strict=True))
        return click_N[: len(source)], skip_N[: len(source)]

    def _checkpoint_due(self) -> bool:
        launch = self.config.launch
        by_step = bool(launch.checkpoint_every_steps) and self.progress.step % launch.checkpoint_every_steps == 0
        # A store that is slow may take a twentieth of the time, no more.
        by_time = time.monotonic() - self.saved_at >= max(launch.checkpoint_every_s, 20 * self.save_s)
        return bool(self.checkpoints) and self.group.rank == 0 and (by_step or by_time)

    def _save(self) -> None:
        start, number = time.monotonic(), self.progress.checkpoints
        self.progress.checkpoints += 1
        tensors, state = self.optimiser.state() | {"best": self.best_P}, {"progress": vars(self.progress)}
        what = f"the checkpoint of step {self.progress.step}"
        storage.tried(lambda: checkpoint.save(self.checkpoints, number, tensors, state), what)
        self.saved_at = time.monotonic()
        self.save_s = self.saved_at - start

    def _resume(self) -> None:
        found = checkpoint.load(self.checkpoints) if self.checkpoints else None
        if found:
            tensors, state = found
            self.optimiser.load(tensors)
            self.best_P.copy_(tensors["best"])
            self.progress = Progress(**state["progress"])
            self.told = self.progress.step
            logger.info("resumed at step %d of %d", self.progress.step, self.steps)
        steps = self.group.all_gather(np.array([self.progress.step], np.float32))
        if len(set(steps)) > 1:
            raise StepError(
                f"the processes would go on from different steps ({', '.join(f'{step:.0f}' for step in steps)})",
                where=self.checkpoints,
                remedy="Not all of them could read the newest checkpoint. Run the step again.",
            )


def _evaluation_steps(per_epoch: int, evaluations: int) -> set[int]:
    return {round(per_epoch * (n + 1) / evaluations) % per_epoch for n in range(min(evaluations, per_epoch))}
