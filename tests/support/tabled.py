"""Two ways to take the same steps, side by side, on a small made-up log."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tritower.ranker.batches import Shares, Source
from tritower.ranker.config import NetworkConfig, RankerConfig, TrainingConfig
from tritower.ranker.eager import EagerSteps
from tritower.ranker.loops import Steps
from tritower.ranker.network import ClickModel
from tritower.ranker.optimiser import FlatAdamW
from tritower.ranker.process_group import ProcessGroup
from tritower.ranker.rows import Rows
from tritower.ranker.tabled import TabledSteps

TEXTS, FEATURES, DIM, CLASSES = 200, 5, 12, 7
CONFIG = RankerConfig(
    network=NetworkConfig(
        query_tower=(16,), document_tower=(16,), interaction_tower=(16,), head=(16, 8), occupation_classes=CLASSES,
        descriptions=False, positions=4,
    ),
    training=TrainingConfig(epochs=4, batch_size=64, precision="fp32"),
)  # fmt: skip


def log(rows: int = 1000, *, described: bool = False, seed: int = 0) -> tuple[Rows, np.ndarray]:
    """Searches of 1 to 9 rows, popular documents, unknown values of each kind, and the embeddings."""
    random = np.random.default_rng(seed)
    request = np.repeat(np.arange(rows), random.integers(1, 10, rows))[:rows]
    feature = random.normal(size=(rows, FEATURES))
    feature[random.random(feature.shape) < 0.2] = np.nan
    document = (random.random(rows) ** 2 * 140).astype(np.int32) + 60
    made = Rows(
        query=random.integers(0, 60, rows)[request].astype(np.int32),
        document=document,
        description=random.integers(-1, 40, (rows, int(described))).astype(np.int32),
        request=request.astype(np.int32),
        position=random.integers(0, 7, rows).astype(np.int16),
        clicked=random.random(rows) < 0.2,
        randomised=np.zeros(rows, bool),
        feature=feature.astype(np.float16),
        # Now and then a job has no class: rows of one document differ.
        occupation=np.where(random.random(rows) < 0.1, -1, document % CLASSES).astype(np.int16),
    )
    return made, random.normal(size=(TEXTS, DIM)).astype(np.float16)


class Training:
    """A fresh network and its steps.

    Args:
        config: the knobs.
        data: rows and embeddings.
        tabled: whether steps come from tables; else they are eager.
        room: see `Source`.
        device: of the training.
        more: for `TabledSteps`.
    """

    def __init__(
        self,
        config: RankerConfig,
        data: tuple[Rows, np.ndarray],
        *,
        tabled: bool,
        room: int | None = None,
        device: str = "cpu",
        group: ProcessGroup | None = None,
        **more: Any,
    ) -> None:
        rows, matrix_TD = data
        place, group = torch.device(device), group or ProcessGroup(device=torch.device(device))
        torch.manual_seed(config.training.seed)
        self.model = ClickModel(config.network, dim=DIM, features=FEATURES).to(place)
        with torch.no_grad():
            for weight in self.model.parameters():  # a part that starts at 0 would not be missed
                weight += 0.01 * torch.randn(weight.shape).to(place)
        self.optimiser = FlatAdamW(self.model, config.optimiser, all_reduce_mean=group.all_reduce_mean)
        source = Source(rows, matrix_TD, place, room)
        shares = Shares(
            rows, seed=config.training.seed, batch_size=config.training.batch_size, rank=group.rank, world=group.world_size
        )
        self.total = shares.per_epoch * config.training.epochs
        common = {"config": config, "steps": self.total, "bf16": config.training.precision == "bf16"}
        self.steps: Steps = (
            TabledSteps(self.model, self.optimiser, source, shares, group=group, **common, **more)
            if tabled
            else EagerSteps(self.model, self.optimiser, source, shares, **common)
        )
        self.done = 0

    def take(self, count: int | None = None) -> list[float]:
        """The losses of the next steps; all that are left when None."""
        losses: list[float] = []
        for step in range(self.done, self.total if count is None else self.done + count):
            self.steps.take(step)
            losses += self.steps.losses(step, step + 1)
        self.done += len(losses)
        return losses

    def weights(self) -> Tensor:
        """All weights and their moving average."""
        average = self.optimiser.ema_P
        parts = [self.optimiser.weight_P] + ([average] if average is not None else [])
        return torch.cat(parts).cpu().clone()

    def close(self) -> None:
        """End what runs beside the steps."""
        self.steps.close()


def with_network(**knobs: Any) -> RankerConfig:
    """CONFIG with another network."""
    return replace(CONFIG, network=replace(CONFIG.network, **knobs))
