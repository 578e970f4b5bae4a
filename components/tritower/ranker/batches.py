"""Which rows make a batch, and a batch as tensors.

Legend: B rows of a batch (of one process), Q distinct queries, J distinct documents, D embedding width (twice that for
documents with descriptions), F features.

Every batch is a function of (seed, epoch, step) alone: a resumed run, and a run on any number of processes, sees the same
global batches.
"""

import copy
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tritower.ranker.device import may_take
from tritower.ranker.rows import Rows

Array = NDArray[Any]
_ROUND = 64  # distinct texts of a batch, in number
_CPU = torch.device("cpu")
_RESIDENT_SHARE = 0.7  # of the device memory that may be taken; the rest is for activations
COLUMNS = ("query", "document", "description", "position", "clicked", "feature", "occupation")
"""What a batch is made of."""


@dataclass(frozen=True)
class Batch:
    """Tensors of one batch; the text towers run over `query_QD` and `document_JD`, rows pick by index.

    Q and J are rounded up, with texts that no row picks, so that few shapes occur: the matrix library compiles a kernel for
    each new one, which took a third of a training step.
    """

    query_QD: Tensor
    document_JD: Tensor
    query_B: Tensor
    document_B: Tensor
    feature_BF: Tensor
    position_B: Tensor
    clicked_B: Tensor
    class_B: Tensor  # occupation class of each row's job; -1 = unknown
    class_J: Tensor  # of each distinct document

    def inputs(self) -> tuple[Tensor, ...]:
        """The arguments of ClickModel.forward."""
        return self.query_QD, self.document_JD, self.query_B, self.document_B, self.feature_BF, self.position_B

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


class Source:
    """Rows and embeddings as tensors, of which it makes batches: memory-mapped, or on a GPU where they fit.

    One is made for all members of a training; `of` and `learning` give others that share what lies on the device.

    Args:
        rows: as memory-mapped arrays.
        matrix_TD: text embeddings, or what another source has of them.
        device: that the batches are for.
        room: bytes of the device that may be taken; asked of it when None. The embeddings come first, they are read most.
    """

    def __init__(self, rows: Rows, matrix_TD: Array | Tensor, device: torch.device = _CPU, room: int | None = None) -> None:
        self.rows, self.device = rows, device
        self.columns = {name: mapped(getattr(rows, name)) for name in COLUMNS}
        self.matrix_TD = matrix_TD if isinstance(matrix_TD, Tensor) else mapped(matrix_TD)
        if room is None:
            room = int(_RESIDENT_SHARE * may_take(device)) if device.type == "cuda" else sys.maxsize
        new = 0 if self.matrix_TD.device == device != _CPU else self.matrix_TD.nbytes
        self.embedded = new <= room
        """Whether the embeddings lie on the device."""
        self.resident = self.embedded and new + sum(column.nbytes for column in self.columns.values()) <= room
        """Whether the rows do: only their numbers cross the bus then."""
        if self.embedded:
            self.matrix_TD = self.matrix_TD.to(device)
        if self.resident:
            self.columns = {name: column.to(device) for name, column in self.columns.items()}

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, rows: Rows) -> "Source":
        """Other rows with the same embeddings."""
        return Source(rows, self.matrix_TD, self.device)

    def learning(self, clicked: Array) -> "Source":
        """The same rows with other clicks (N,), or with probabilities in the place of them; the rest is shared."""
        other = copy.copy(self)
        other.rows = replace(self.rows, clicked=clicked)
        other.columns = {**self.columns, "clicked": mapped(clicked).to(self.columns["clicked"].device)}
        return other

    def take(self, index_B: Array, names: Sequence[str] = COLUMNS) -> dict[str, Tensor]:
        """Columns of the rows at `index_B`, where the rows lie; pinned where they have to cross a bus.

        It reads the host's memory only, unless the rows are resident: a thread may do it ahead.
        """
        index = torch.from_numpy(index_B).to(self.columns["feature"].device)
        if self.resident or self.device.type != "cuda":
            return {name: self.columns[name].index_select(0, index) for name in names}
        taken = {}
        for name in names:
            column = self.columns[name]
            taken[name] = torch.empty((len(index_B), *column.shape[1:]), dtype=column.dtype, pin_memory=True)
            torch.index_select(column, 0, index, out=taken[name])
        return taken

    def batch(self, taken: Mapping[str, Tensor]) -> Batch:
        """The rows that `take` gave with the embeddings of their distinct texts."""
        taken = {name: column.to(self.matrix_TD.device, non_blocking=True) for name, column in taken.items()}
        query_Q, query_B = _distinct(taken["query"])
        document_J, document_B = _distinct(document_keys(taken["document"], taken["description"]))
        class_B = taken["occupation"].long()
        batch = Batch(
            query_QD=self.matrix_TD.index_select(0, query_Q).float(),
            document_JD=document_vectors(self.matrix_TD, document_J, described=taken["description"].shape[1] > 0),
            query_B=query_B,
            document_B=document_B,
            feature_BF=taken["feature"].float(),
            position_B=taken["position"].long(),
            clicked_B=taken["clicked"].float(),
            class_B=class_B,
            class_J=class_B.new_full((len(document_J),), -1).scatter_(0, document_B, class_B),
        )
        return batch if self.matrix_TD.device == self.device else batch.to(self.device)

    def __call__(self, index_B: Array) -> Batch:
        """The rows at `index_B` with the embeddings of their distinct texts."""
        return self.batch(self.take(index_B))


class Shares:
    """The rows of this process in each step: a function of (seed, step) alone.

    Args:
        rows: of all processes.
        seed: of the order.
        batch_size: rows of a step over all processes.
        rank: of this process.
        world: how many there are.
    """

    def __init__(self, rows: Rows, *, seed: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.rows, self.seed, self.batch_size, self.rank, self.world = rows, seed, batch_size, rank, world
        self.per_epoch = steps_per_epoch(len(rows), batch_size)
        self.size = batch_size // world
        self._last = -1, np.empty(0, np.int32)

    def __call__(self, step: int) -> Array:
        """Row numbers (B,) of a step, counted from the first epoch's start."""
        order_N, within = self.order(step // self.per_epoch), step % self.per_epoch
        return shard(order_N, within, batch_size=self.batch_size, rank=self.rank, world=self.world)

    def window(self, first: int, steps: int) -> Array:
        """Row numbers (W, B) of `steps` steps of one epoch, from step `first` on."""
        order_N = self.order(first // self.per_epoch)
        start = first % self.per_epoch * self.batch_size
        all_WB = order_N[start : start + steps * self.batch_size].reshape(steps, self.world, self.size)
        return np.ascontiguousarray(all_WB[:, self.rank])

    def order(self, epoch: int) -> Array:
        """The order of an epoch; the last one asked for is kept."""
        last = self._last
        if epoch != last[0]:
            last = self._last = epoch, epoch_order(self.rows, seed=self.seed, epoch=epoch)
        return last[1]


def mapped(array: Array) -> Tensor:
    """An array as a tensor without a copy."""
    with warnings.catch_warnings():
        # Nothing writes to what is mapped for reading.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(np.asarray(array))


def document_keys(document_B: Tensor, description_B1: Tensor) -> Tensor:
    """One number for each pair of document and description text; the document itself where there are no descriptions."""
    if not description_B1.shape[1]:
        return document_B
    return (document_B.long() << 32) | (description_B1[:, 0] + 1)


def document_vectors(matrix_TD: Tensor, key_J: Tensor, *, described: bool) -> Tensor:
    """Embeddings of documents by their `document_keys`; with descriptions those beside them, zeros for none."""
    if not described:
        return matrix_TD.index_select(0, key_J).float()
    text_J = (key_J & 0xFFFFFFFF) - 1
    dim = matrix_TD.shape[1]
    out_JD = torch.empty(len(key_J), 2 * dim, device=matrix_TD.device)
    out_JD[:, :dim] = matrix_TD.index_select(0, key_J >> 32)
    out_JD[:, dim:] = matrix_TD.index_select(0, text_J.clamp(min=0))
    out_JD[:, dim:].masked_fill_((text_J < 0)[:, None], 0)  # an index by a mask would ask the device how many there are
    return out_JD


def _distinct(text_B: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct texts, rounded up in number by repeating the last one, and each row's place among them."""
    text_U, place_B = torch.unique(text_B, return_inverse=True)
    spare = -len(text_U) % _ROUND
    return torch.cat([text_U, text_U[-1:].expand(spare)]), place_B


def epoch_order(rows: Rows, *, seed: int, epoch: int) -> Array:
    """The order (N,) int32 of the rows in an epoch: whole searches are shuffled, so that a batch has fewer distinct queries."""
    random = np.random.default_rng([seed, epoch])
    start_R = np.flatnonzero(np.diff(rows.request, prepend=-1))
    length_R = np.diff(start_R, append=len(rows))
    order_R = random.permutation(len(start_R))
    start_R, length_R = start_R[order_R], length_R[order_R]
    offset_N = np.arange(len(rows)) - np.repeat(np.cumsum(length_R) - length_R, length_R)
    order_N: Array = (np.repeat(start_R, length_R) + offset_N).astype(np.int32)
    return order_N


def shard(order_N: Array, step: int, *, batch_size: int, rank: int, world: int) -> Array:
    """This process's equal share of the global batch number `step`: contiguous, `batch_size` / `world` rows."""
    share = batch_size // world
    start = step * batch_size + rank * share
    return order_N[start : start + share]


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Whole global batches in an epoch; the rows left over come in another epoch, at another place of the order."""
    return rows // batch_size
