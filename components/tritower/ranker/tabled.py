"""Steps that ask nothing of Python and tell it nothing: everything they need lies in tables on the device.

Legend: W steps of a window, B rows of a batch, T steps of the training, R losses that are kept.

A window is a part of an epoch whose batches' texts are found at once (`tables`). A counter on the device picks the batch and
the learning rate, losses are collected there. So one step is the same list of kernels as the next, which is what a CUDA graph
replays. Without a GPU the same functions run one by one: that is how they are tested against `EagerSteps`.
"""

import logging
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tritower.ranker import graphs, tables
from tritower.ranker.ahead import ahead
from tritower.ranker.batches import COLUMNS, Batch, Shares, Source
from tritower.ranker.config import RankerConfig
from tritower.ranker.losses import click_loss, fixed_class_loss
from tritower.ranker.network import ClickLogProbs, ClickModel
from tritower.ranker.optimiser import FlatAdamW, lr_factor
from tritower.ranker.process_group import ProcessGroup
from tritower.ranker.tables import Tables

logger = logging.getLogger(__name__)
_WINDOW_ROWS = 1 << 22  # tables of 30 to 40 bytes a row and, while they are made, a few times that
_KEYS = ("query", "document", "description", "occupation")  # what the tables are made of
_Host = tuple[NDArray[np.int32], dict[str, Tensor]]


class TabledSteps:
    """Takes the steps of `EagerSteps` from tables.

    Args:
        model: on its device.
        optimiser: of its weights.
        source: of the batches; its embeddings lie on the device.
        shares: which rows each batch has.
        config: the knobs.
        steps: of the whole training.
        bf16: whether the network runs under autocast.
        group: puts the mean over processes in the place of the gradients, between two graphs.
        graph: whether to replay a graph; without a GPU nothing is.
        compiled: whether torch compiles the loss.
        window_rows: rows of a window, about.
        apart: whether gradients and update are two graphs, also where there is one process only.
    """

    every = 256

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
        group: ProcessGroup,
        graph: bool = True,
        compiled: bool = False,
        window_rows: int = _WINDOW_ROWS,
        apart: bool = False,
    ) -> None:
        assert source.embedded
        self.apart = apart or group.world_size > 1
        self.model, self.optimiser, self.source, self.shares = model, optimiser, source, shares
        self.config, self.steps, self.group = config, steps, group
        # Without a cache: a graph would keep the casts that it was recorded with.
        self.autocast = torch.autocast(source.device.type, dtype=torch.bfloat16, enabled=bf16, cache_enabled=False)
        self.ways = [way for way in ((graph, compiled), (graph, False)) if any(way)]
        device = source.device
        widest = (2**63 - 1) // (len(source.matrix_TD) + 1) ** 2  # of steps whose numbered pairs of texts are told apart
        self.window = max(1, min(window_rows // shares.size, shares.per_epoch, widest))
        rates = [lr_factor(step, steps, config.optimiser.warmup_ratio) for step in range(steps)]
        self.rate_T = torch.tensor(rates, dtype=torch.float32, device=device)
        self.loss_R, self.number_R = torch.zeros(self.every, device=device), torch.arange(self.every, device=device)
        self.step_1, self.slot_1 = (torch.zeros(1, dtype=torch.int64, device=device) for _ in range(2))
        self.row_WB = torch.zeros(self.window, shares.size, dtype=torch.int32, device=device)
        self.static = {} if source.resident else self._empty_rows()
        self.tables: Tables | None = None
        self.sizes: tuple[int, int] | None = None
        self.end = -1
        self.compiled: Callable[..., Tensor] | None = None
        self.run: list[Callable[[], None]] = []
        self.windows: Generator[_Host] | None = None
        self.rows: Generator[dict[str, Tensor]] | None = None

    def take(self, step: int) -> None:
        """Take a step; returns before the device has."""
        if step >= self.end:
            self._open(step)
        if self.rows is not None:
            for name, column in next(self.rows).items():
                self.static[name].copy_(column, non_blocking=True)
        first, *second = self.run
        first()
        for part in second:
            self.group.all_reduce_mean(self.optimiser.gradient_P)
            part()

    def losses(self, first: int, end: int) -> list[float]:
        """The losses of steps `first` to `end` - 1; waits for the device."""
        loss_R = self.loss_R.tolist()
        return [loss_R[step % self.every] for step in range(first, end)]

    def close(self) -> None:
        """End the threads, and give the graphs' memory back."""
        for running in (self.rows, self.windows):
            if running is not None:
                running.close()
        self.run, self.compiled, self.tables, self.end = [], None, None, -1

    def _open(self, step: int) -> None:
        """Go to the window of a step: the next one, or any at the start."""
        if self.windows is None:
            self.windows = ahead(self._host, self._firsts(self._first(step)), self.source.device)
        if self.sizes is None:
            # Of the first window, wherever the training goes on: sizes decide the order of sums, so the last bits.
            index_WB, taken = self._host(0)
            self.sizes = tables.roomy(tables.need(self._there(index_WB, taken), len(index_WB)))
        first = self._first(step)
        index_WB, taken = next(self.windows)
        made = tables.make(self._there(index_WB, taken), len(index_WB), self.sizes)
        self.row_WB[: len(index_WB)].copy_(torch.from_numpy(index_WB))
        fits = self.tables is not None and self.tables.sizes == made.sizes
        if not fits:
            self.tables = Tables(**{name: value.new_zeros(self.window, value.shape[1]) for name, value in vars(made).items()})
        for name, value in vars(made).items():
            getattr(self.tables, name)[: len(index_WB)].copy_(value)
        self._count(step, step - first)
        if not fits:
            self._prepare(step, step - first)
        if not self.source.resident:
            if self.rows is not None:
                self.rows.close()
            self.rows = ahead(lambda w: self.source.take(index_WB[w]), range(step - first, len(index_WB)), self.source.device)
        self.end = first + len(index_WB)

    def _first(self, step: int) -> int:
        """The first step of a step's window; an epoch begins a window."""
        within = step % self.shares.per_epoch
        return step - within % self.window

    def _firsts(self, first: int) -> list[int]:
        epochs = range(0, self.steps, self.shares.per_epoch)
        all_firsts = (epoch + within for epoch in epochs for within in range(0, self.shares.per_epoch, self.window))
        return [other for other in all_firsts if other >= first]

    def _host(self, first: int) -> _Host:
        """The rows (W, B) of a window, and the columns that its tables are made of where they lie on the host."""
        count = min(self.window, self.shares.per_epoch - first % self.shares.per_epoch)
        index_WB = self.shares.window(first, count)
        return index_WB, {} if self.source.resident else self.source.take(index_WB.reshape(-1), _KEYS)

    def _there(self, index_WB: NDArray[Any], taken: dict[str, Tensor]) -> dict[str, Tensor]:
        found = taken or self.source.take(index_WB.reshape(-1), _KEYS)
        return {name: column.to(self.source.device, non_blocking=True) for name, column in found.items()}

    def _empty_rows(self) -> dict[str, Tensor]:
        columns = self.source.columns
        return {name: torch.zeros_like(columns[name][: self.shares.size], device=self.source.device) for name in COLUMNS}

    def _count(self, step: int, slot: int) -> None:
        self.step_1.fill_(step)
        self.slot_1.fill_(slot)

    def _prepare(self, step: int, slot: int) -> None:
        """Make the list of functions that is a step: graphs where they can be, else the parts themselves."""
        self.run = []  # the memory of the last ones is free before it is needed again
        parts = [self._gradients, self._apply] if self.apart else [self._both]
        kept, loss_R = self.optimiser.saved(), self.loss_R.clone()

        def again() -> None:
            self._count(step, slot)

        while self.ways:
            graph, compiled = self.ways[0]
            try:
                self.compiled = torch.compile(self._loss, dynamic=False) if compiled else None
                graphs.warm_up([again, *parts], self.source.device)
                replayed = graphs.record(parts) if graph else parts
            except RuntimeError as error:
                told = (str(error).strip() or type(error).__name__).splitlines()[0]
                del self.ways[0]
                goes_on = "one by one" if not self.ways else "as a graph that is not compiled" if graph else "uncompiled"
                logger.info("steps go on %s: %s", goes_on, told)
                self.compiled = None
            else:
                self.run = replayed
                break
            finally:
                self.optimiser.put_back(kept)
                self.loss_R.copy_(loss_R)
                again()
        self.run = self.run or parts

    def _both(self) -> None:
        self._gradients()
        self._apply()

    def _gradients(self) -> None:
        loss = self.forward()
        loss.backward()  # type: ignore[no-untyped-call]
        self.keep(loss)
        self.optimiser.collect()

    def forward(self) -> Tensor:
        """The loss of the step that the counters show."""
        assert self.tables is not None
        if self.source.resident:
            row_B = self.row_WB.index_select(0, self.slot_1).squeeze(0)
            taken = {name: column.index_select(0, row_B) for name, column in self.source.columns.items()}
        else:
            taken = self.static
        batch = tables.batch(self.tables, self.slot_1, taken, self.source.matrix_TD)
        return (self.compiled or self._loss)(*vars(batch).values())

    def keep(self, loss: Tensor) -> None:
        """Put a loss where `losses` reads it."""
        self.loss_R.copy_(torch.where(self.number_R == self.step_1 % self.every, loss.detach(), self.loss_R))

    def _apply(self) -> None:
        self.optimiser.apply(self.rate_T.index_select(0, self.step_1).squeeze(0))
        self.step_1.add_(1)
        self.slot_1.add_(1)

    def _loss(self, *columns: Tensor) -> Tensor:
        """The loss of a batch from its tensors, in the order of `Batch`."""
        batch = Batch(*columns)
        with self.autocast:
            said: ClickLogProbs = self.model(*batch.inputs())
        loss = click_loss(said.click_B, said.skip_B, batch.clicked_B)
        if said.query_QC is not None and said.document_JC is not None:
            loss = loss + self.config.training.occupation_weight * fixed_class_loss(said.query_QC, said.document_JC, batch)
        return loss
