"""Batches of training examples in which every distinct text is encoded once and little is padded.

Legend: C clicks, K negatives per click, U distinct texts of a batch, L tokens of the longest of them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers.base.sampler import DefaultBatchSampler

Ints = npt.NDArray[np.int64]
_WINDOW = 64  # batches that are sorted by length together: enough to pad little, few enough to keep the order random


def epoch_batches(length_C2: Ints, size: int, *, seed: int, epoch: int, anchor_C: Ints | None = None) -> list[Ints]:
    """Split the clicks into batches of exactly `size` whose texts are of like length, in random order.

    A remainder smaller than `size` is left out of this epoch.

    Args:
        length_C2: tokens of the query, and of the longest document, of each click.
        anchor_C: text numbers of the queries; when given, no batch holds a query twice as far as that can be had (for losses
            that take the other documents of a batch as negatives).
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(length_C2))
    batches: list[Ints] = []
    for start in range(0, len(order), size * _WINDOW):
        window = order[start : start + size * _WINDOW]
        window = window[np.lexsort((length_C2[window, 0], length_C2[window, 1]))]
        if anchor_C is not None:
            window = _spread(window, anchor_C, size)
        batches.extend(window[at : at + size] for at in range(0, len(window) - size + 1, size))
    return [batches[i] for i in random.permutation(len(batches))]


class LengthBatchSampler(DefaultBatchSampler):
    """`epoch_batches` for the Trainer: each global batch is cut into one piece per process, in order.

    With W processes, process r gets pieces r, r + W, ...: the same global batches as one process, whatever W is.
    """

    def __init__(self, dataset: Any, *, length_C2: Ints, anchor_C: Ints | None, world: int, **settings: Any) -> None:
        super().__init__(dataset, **settings)
        self.length_C2, self.anchor_C, self.world = length_C2, anchor_C, world

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch_size
        for batch in epoch_batches(self.length_C2, size * self.world, seed=self.seed, epoch=self.epoch, anchor_C=self.anchor_C):
            for at in range(0, len(batch), size):
                yield batch[at : at + size].tolist()

    def __len__(self) -> int:
        size = self.batch_size * self.world
        window = size * _WINDOW
        full, rest = divmod(len(self.length_C2), window)
        return (full * _WINDOW + rest // size) * self.world


class Collator:
    """Rows of text numbers in, token tensors of the distinct texts and the indices into them out.

    Queries and documents make one padded tensor each, as their lengths differ. `label` is (C, 2 + K): the row of the query
    among the queries, of the positive and of the negatives among the documents. Where both together have up to `together`
    tokens, padding included, they make one tensor, queries first, and `label` has its rows.

    Args:
        tokens: the token ids of each text.
        pad: the padding token's id.
        together: tokens; 0 for never.
    """

    valid_label_columns: Sequence[str] = ()

    def __init__(self, tokens: dict[int, npt.NDArray[np.int32]], pad: int, together: int = 0) -> None:
        self.tokens, self.pad, self.together = tokens, pad, together

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        anchors, anchor_C = np.unique([row["anchor"] for row in rows], return_inverse=True)
        documents, document_CK = np.unique([[row["positive"], *row["negatives"]] for row in rows], return_inverse=True)
        document_CK = document_CK.reshape(len(rows), -1)
        parts = {"anchor": self._rows(anchors), "document": self._rows(documents)}
        both = [row for part in parts.values() for row in part]
        if len(both) * max(map(len, both)) <= self.together:
            parts, document_CK = {"text": both}, document_CK + len(anchors)
        batch: dict[str, torch.Tensor] = {}
        for name, part in parts.items():
            batch[f"{name}_input_ids"], batch[f"{name}_attention_mask"] = self._padded(part)
        batch["label"] = torch.from_numpy(np.column_stack([anchor_C, document_CK]).astype(np.int64))
        return batch

    def _rows(self, texts: Ints) -> list[npt.NDArray[np.int32]]:
        return [self.tokens[int(text)] for text in texts]

    def _padded(self, rows: list[npt.NDArray[np.int32]]) -> tuple[torch.Tensor, torch.Tensor]:
        ids_UL = np.full((len(rows), max(map(len, rows))), self.pad, np.int64)
        mask_UL = np.zeros_like(ids_UL)
        for i, row in enumerate(rows):
            ids_UL[i, : len(row)] = row
            mask_UL[i, : len(row)] = 1
        return torch.from_numpy(ids_UL), torch.from_numpy(mask_UL)


def _spread(order: Ints, anchor_C: Ints, size: int) -> Ints:
    waiting: list[int] = order.tolist()
    spread: list[int] = []
    while waiting:
        seen: set[int] = set()
        batch: list[int] = []
        later: list[int] = []
        for click in waiting:
            if len(batch) < size and int(anchor_C[click]) not in seen:
                seen.add(int(anchor_C[click]))
                batch.append(click)
            else:
                later.append(click)
        if len(batch) < size:
            batch, later = batch + later, []
        spread.extend(batch)
        waiting = later
    return np.asarray(spread, np.int64)
