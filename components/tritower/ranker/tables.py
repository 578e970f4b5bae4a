"""The batches of many steps as tables on the device, from which a step picks its own by number.

Legend: W steps of a window, B rows of a batch, N = W x B, Q distinct queries and J distinct documents of a batch (the most of
any step, the others are padded), K distinct pairs of step and text, U one of Q and J.

The distinct texts of all steps are found at once: one sort of N numbers takes a GPU some 10 ms per million, where a sort for
each step took a tenth of the step to launch.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tritower.ranker.batches import Batch, document_vectors

_ROUND = 64
_ROOM = 1.05  # over the first window's need; another window's most differs by a few in a hundred


@dataclass(frozen=True)
class Tables:
    """What the batches of a window have in them; row w belongs to its w-th step."""

    query_WQ: Tensor
    query_WB: Tensor  # place of each row's query among the distinct ones
    document_WJ: Tensor  # as `batches.document_keys` gives them
    document_WB: Tensor
    class_WJ: Tensor  # -1 = unknown, and where it is padding

    @property
    def sizes(self) -> tuple[int, int]:
        """Q and J."""
        return self.query_WQ.shape[1], self.document_WJ.shape[1]


@dataclass(frozen=True)
class Distinct:
    """The distinct values of each step, in order, as one list over all steps."""

    value_K: Tensor
    start_W: Tensor
    count_W: Tensor
    place_N: Tensor  # of each row among its step's
    entry_N: Tensor  # of each row in the list

    @property
    def most(self) -> int:
        """Of one step; the device is asked."""
        return int(self.count_W.max())

    def padded(self, width: int) -> tuple[Tensor, Tensor]:
        """Numbers (W, width) in the list, each step's last one repeated, and which of them are no repetition."""
        place_U = torch.arange(width, device=self.value_K.device)
        entry_WU = self.start_W[:, None] + torch.minimum(place_U, self.count_W[:, None] - 1)
        return entry_WU, place_U < self.count_W[:, None]


def distinct(value_N: Tensor, steps: int) -> Distinct:
    """The distinct values of each of `steps` equal parts; values are >= 0 and, times `steps`, below 2^63."""
    span = int(value_N.max()) + 1
    assert steps * span < 2**63, (steps, span)
    step_N = torch.arange(steps, device=value_N.device).repeat_interleave(len(value_N) // steps)
    key_K, entry_N = torch.unique(step_N * span + value_N, return_inverse=True)
    first_W = torch.arange(steps + 1, device=value_N.device) * span
    edge_W = torch.searchsorted(key_K, first_W)
    start_W = edge_W[:-1]
    return Distinct(key_K % span, start_W, edge_W.diff(), entry_N - start_W[step_N], entry_N)


def need(taken: Mapping[str, Tensor], steps: int) -> tuple[int, int]:
    """The most distinct queries and documents of one step."""
    return distinct(taken["query"].long(), steps).most, distinct(_documents(taken), steps).most


def roomy(sizes: tuple[int, int]) -> tuple[int, int]:
    """Sizes that the need of other windows fits into, most likely: another size is another graph."""
    return up(int(sizes[0] * _ROOM)), up(int(sizes[1] * _ROOM))


def up(size: int) -> int:
    """Rounded up, so that few sizes occur."""
    return size + -size % _ROUND


def make(taken: Mapping[str, Tensor], steps: int, sizes: tuple[int, int]) -> Tables:
    """The tables of a window.

    Args:
        taken: columns (N,) of its rows, step by step, on the device.
        steps: W.
        sizes: Q and J. What a window needs beyond them, its tables have.
    """
    query, document = distinct(taken["query"].long(), steps), distinct(_documents(taken), steps)
    query_U, document_U = (
        size if found.most <= size else up(found.most) for found, size in zip((query, document), sizes, strict=True)
    )
    query_WQ, _ = query.padded(query_U)
    document_WJ, real_WJ = document.padded(document_U)
    # Of rows with one document and several classes the last one tells, as in `Source.batch`.
    row_N = torch.arange(len(document.entry_N), device=document.entry_N.device)
    last_K = torch.zeros_like(document.value_K).scatter_reduce_(0, document.entry_N, row_N, "amax", include_self=False)
    class_K = taken["occupation"].index_select(0, last_K).long()
    return Tables(
        query_WQ=query.value_K[query_WQ],
        query_WB=query.place_N.view(steps, -1),
        document_WJ=_keys(document.value_K[document_WJ], taken),
        document_WB=document.place_N.view(steps, -1),
        class_WJ=torch.where(real_WJ, class_K[document_WJ], -1),
    )


def batch(tables: Tables, slot: Tensor, taken: Mapping[str, Tensor], matrix_TD: Tensor) -> Batch:
    """The batch of the step whose number in the window `slot` (1,) holds, from its rows' columns."""
    query_Q, query_B, document_J, document_B, class_J = (
        table.index_select(0, slot).squeeze(0) for table in vars(tables).values()
    )
    return Batch(
        query_QD=matrix_TD.index_select(0, query_Q).float(),
        document_JD=document_vectors(matrix_TD, document_J, described=taken["description"].shape[1] > 0),
        query_B=query_B,
        document_B=document_B,
        feature_BF=taken["feature"].float(),
        position_B=taken["position"].long(),
        clicked_B=taken["clicked"].float(),
        class_B=taken["occupation"].long(),
        class_J=class_J,
    )


def _documents(taken: Mapping[str, Tensor]) -> Tensor:
    """Pairs of document and description as dense numbers: half as many bits as `batches.document_keys`, in their order."""
    document_N = taken["document"].long()
    if not taken["description"].shape[1]:
        return document_N
    return document_N * _descriptions(taken) + taken["description"][:, 0] + 1


def _keys(value: Tensor, taken: Mapping[str, Tensor]) -> Tensor:
    """What `_documents` made as `batches.document_keys`."""
    if not taken["description"].shape[1]:
        return value
    span = _descriptions(taken)
    return ((value // span) << 32) | (value % span)


def _descriptions(taken: Mapping[str, Tensor]) -> int:
    return int(taken["description"].max()) + 2
