"""Which rows make a batch, and a batch as tensors.

Legend: B rows of a batch (of one process), Q distinct queries, J distinct documents, U distinct texts of past clicks, D
embedding width (twice that for documents with descriptions), F features, C keys, H past clicks.

Every batch is a function of (seed, epoch, step) alone: a resumed run, and a run on any number of processes, sees the same
global batches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tritower.ranker.rows import Rows

Array = NDArray[Any]
_ROUND = 64  # distinct texts of a batch, in number
_RESIDENT_SHARE = 0.7  # of the free device memory; the rest is for activations


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
    key_BC: Tensor
    past_UD: Tensor
    past_BH: Tensor
    position_B: Tensor
    clicked_B: Tensor
    request_B: Tensor
    class_B: Tensor  # occupation class of each row's job; -1 = unknown
    class_J: Tensor  # of each distinct document

    def inputs(self) -> tuple[Tensor, ...]:
        """The arguments of ClickModel.forward."""
        texts = self.query_QD, self.document_JD, self.query_B, self.document_B
        return *texts, self.feature_BF, self.key_BC, self.past_UD, self.past_BH, self.position_B

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


def gather(rows: Rows, index_B: Array, matrix_TD: Array) -> Batch:
    """The rows at `index_B` with the embeddings of their distinct texts."""
    taken = rows.take(index_B)
    query_Q, query_B = _distinct(taken.query)
    document_J, document_B = _distinct(document_keys(taken.document, taken.description))
    past_U, past_BH = distinct_past(taken.past)
    class_J = np.full(len(document_J), -1, dtype=np.int16)
    class_J[document_B] = taken.occupation
    # torch converts float16 several times as fast as numpy does.
    return Batch(
        query_QD=torch.from_numpy(matrix_TD[query_Q]).float(),
        document_JD=document_vectors(matrix_TD, document_J, described=taken.description.shape[1] > 0),
        query_B=torch.from_numpy(query_B),
        document_B=torch.from_numpy(document_B),
        feature_BF=torch.from_numpy(taken.feature).float(),
        key_BC=torch.from_numpy(taken.key).long(),
        past_UD=torch.from_numpy(matrix_TD[past_U]).float(),
        past_BH=torch.from_numpy(past_BH),
        position_B=torch.from_numpy(taken.position).long(),
        clicked_B=torch.from_numpy(taken.clicked).float(),
        request_B=torch.from_numpy(taken.request),
        class_B=torch.from_numpy(taken.occupation).long(),
        class_J=torch.from_numpy(class_J).long(),
    )


def document_keys(document_B: Array, description_B1: Array) -> Array:
    """One number for each pair of document and description text; the document itself where there are no descriptions."""
    if not description_B1.shape[1]:
        return document_B
    key_B: Array = (document_B.astype(np.int64) << 32) | (description_B1[:, 0] + 1)
    return key_B


def document_vectors(matrix_TD: Array, key_J: Array, *, described: bool) -> Tensor:
    """Embeddings of documents by their `document_keys`; with descriptions those beside them, zeros for none."""
    if not described:
        return torch.from_numpy(matrix_TD[key_J]).float()
    text_J = (key_J & 0xFFFFFFFF) - 1
    description_JD = matrix_TD[np.maximum(text_J, 0)]
    description_JD[text_J < 0] = 0
    return torch.from_numpy(np.concatenate([matrix_TD[key_J >> 32], description_JD], axis=1)).float()


def _distinct(text_B: Array) -> tuple[Array, Array]:
    """The distinct texts, rounded up in number by repeating the last one, and each row's place among them."""
    text_U, place_B = np.unique(text_B, return_inverse=True)
    return np.pad(text_U, (0, -len(text_U) % _ROUND), mode="edge"), place_B


def distinct_past(past_BH: Array) -> tuple[Array, Array]:
    """The distinct texts (U,) of past clicks and, for each click, its place among them (B, H); -1 = none."""
    past_U, place_BH = np.unique(past_BH, return_inverse=True)
    none = int(len(past_U) > 0 and past_U[0] < 0)
    return past_U[none:], place_BH.reshape(past_BH.shape).astype(np.int64) - none


def source(rows: Rows, matrix_TD: Array, device: torch.device) -> Callable[[Array], Batch]:
    """A function from row indices to their batch on `device`; on a GPU the data lies there too, where it fits."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        needed = matrix_TD.nbytes + sum(array.nbytes for array in vars(rows).values())
        if needed < free * _RESIDENT_SHARE:
            return Resident(rows, matrix_TD, device)
    return lambda index_B: gather(rows, index_B, matrix_TD).to(device)


class Resident:
    """Rows and embeddings on a device, gathered there: only row indices cross the bus."""

    def __init__(self, rows: Rows, matrix_TD: Array, device: torch.device) -> None:
        self.columns = {name: torch.from_numpy(np.array(array)).to(device) for name, array in vars(rows).items()}
        self.matrix_TD = torch.from_numpy(np.array(matrix_TD)).to(device)
        self.device = device

    def __call__(self, index_B: Array) -> Batch:
        """What `gather` gives, on the device."""
        index = torch.from_numpy(index_B).to(self.device)
        taken = {name: column.index_select(0, index) for name, column in self.columns.items()}
        query_Q, query_B = torch.unique(taken["query"], return_inverse=True)
        document_J, document_B = torch.unique(self._document_keys(taken), return_inverse=True)
        past_U, past_BH = torch.unique(taken["past"], return_inverse=True)
        none = int(len(past_U) > 0 and past_U[0] < 0)
        class_B = taken["occupation"].long()
        return Batch(
            query_QD=self.matrix_TD.index_select(0, query_Q).float(),
            document_JD=self._document_vectors(document_J, described=taken["description"].shape[1] > 0),
            query_B=query_B,
            document_B=document_B,
            feature_BF=taken["feature"].float(),
            key_BC=taken["key"].long(),
            past_UD=self.matrix_TD.index_select(0, past_U[none:]).float(),
            past_BH=past_BH - none,
            position_B=taken["position"].long(),
            clicked_B=taken["clicked"].float(),
            request_B=taken["request"],
            class_B=class_B,
            class_J=torch.full_like(document_J, -1, dtype=torch.long).scatter_(0, document_B, class_B),
        )

    @staticmethod
    def _document_keys(taken: dict[str, Tensor]) -> Tensor:
        if not taken["description"].shape[1]:
            return taken["document"]
        return (taken["document"].long() << 32) | (taken["description"][:, 0] + 1)

    def _document_vectors(self, key_J: Tensor, *, described: bool) -> Tensor:
        if not described:
            return self.matrix_TD.index_select(0, key_J).float()
        text_J = (key_J & 0xFFFFFFFF) - 1
        description_JD = self.matrix_TD.index_select(0, text_J.clamp(min=0)) * (text_J >= 0)[:, None]
        return torch.cat([self.matrix_TD.index_select(0, key_J >> 32), description_JD], dim=1).float()


def epoch_order(rows: Rows, *, seed: int, epoch: int, shuffle: str) -> Array:
    """The order (N,) int32 of the rows in an epoch: `rows` shuffles rows, `requests` whole searches."""
    random = np.random.default_rng([seed, epoch])
    if shuffle == "rows":
        order_N: Array = random.permutation(np.arange(len(rows), dtype=np.int32))
        return order_N
    start_R = np.flatnonzero(np.diff(rows.request, prepend=-1))
    length_R = np.diff(start_R, append=len(rows))
    order_R = random.permutation(len(start_R))
    start_R, length_R = start_R[order_R], length_R[order_R]
    offset_N = np.arange(len(rows)) - np.repeat(np.cumsum(length_R) - length_R, length_R)
    whole_N: Array = (np.repeat(start_R, length_R) + offset_N).astype(np.int32)
    return whole_N


def shard(order_N: Array, step: int, *, batch_size: int, rank: int, world: int) -> Array:
    """This process's equal share of the global batch number `step`: contiguous, `batch_size` / `world` rows."""
    share = batch_size // world
    start = step * batch_size + rank * share
    return order_N[start : start + share]


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Whole global batches in an epoch; the rows left over come in another epoch, at another place of the order."""
    return rows // batch_size
