"""Steps one by one: the reference, and the CPU's way.

`tabled.TabledSteps` is the other way, for a GPU. Both see the same batches and compute the same losses; what they add up in
another order differs in the last bits (docs/decisions/0033).
"""

import math
from collections.abc import Generator

import torch
from torch import Tensor

from tritower.ranker.ahead import ahead
from tritower.ranker.batches import Batch, Shares, Source
from tritower.ranker.config import RankerConfig
from tritower.ranker.losses import class_loss, click_loss
from tritower.ranker.network import ClickLogProbs, ClickModel
from tritower.ranker.optimiser import FlatAdamW, lr_factor


class EagerSteps:
    """Makes each batch, computes its loss, reads it and stops before a step on one that is not finite.

    Args:
        model: on its device.
        optimiser: of its weights.
        source: of the batches.
        shares: which rows each has.
        config: the knobs.
        steps: of the whole training.
        bf16: whether the network runs under autocast.
    """

    every = 1

    def __init__(
        self,
        model: ClickModel,
        optimiser: FlatAdamW,
        source: Source,
        shares: Shares,
        *,
        config: RankerConfig,
        steps: int,
        bf16: bool,
    ) -> None:
        self.model, self.optimiser, self.source, self.shares = model, optimiser, source, shares
        self.config, self.steps = config, steps
        self.autocast = torch.autocast(source.device.type, dtype=torch.bfloat16, enabled=bf16)
        self.loss = 0.0
        self._ahead: Generator[dict[str, Tensor]] | None = None

    def take(self, step: int) -> None:
        """Take a step; a loss that is not finite changes no weight."""
        loss = self._loss(self.source.batch(self._taken(step)))
        self.loss = loss.item()
        if math.isfinite(self.loss):
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step(lr_factor(step, self.steps, self.config.optimiser.warmup_ratio))

    def losses(self, first: int, end: int) -> list[float]:
        """The loss of the step that was taken last."""
        return [self.loss] * (end - first)

    def close(self) -> None:
        """End the thread that gathers ahead."""
        if self._ahead is not None:
            self._ahead.close()

    def _taken(self, step: int) -> dict[str, Tensor]:
        if self.source.resident:
            return self.source.take(self.shares(step))
        if self._ahead is None:
            self._ahead = ahead(lambda n: self.source.take(self.shares(n)), range(step, self.steps), self.source.device)
        return next(self._ahead)

    def _loss(self, batch: Batch) -> Tensor:
        with self.autocast:
            said: ClickLogProbs = self.model(*batch.inputs())
        loss = click_loss(said.click_B, said.skip_B, batch.clicked_B)
        if said.query_QC is not None and said.document_JC is not None:
            loss = loss + self.config.training.occupation_weight * class_loss(said.query_QC, said.document_JC, batch)
        return loss
