"""Texts as token ids, and batches of texts that have exactly the same number of tokens, so that no padding is computed.

Legend: T texts, N tokens of all of them, B texts in a batch, L tokens of each.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Ragged:
    """The token ids of many texts, one after another in one array."""

    flat_N: Tokens
    start_T: Indices
    length_T: npt.NDArray[np.int32]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Ragged":
        """From the ids of each text."""
        length_T = np.fromiter(map(len, rows), np.int32, len(rows))
        end_T = np.cumsum(length_T, dtype=np.int64)
        total = int(end_T[-1]) if len(rows) else 0
        return cls(np.fromiter(chain.from_iterable(rows), np.int32, total), end_T - length_T, length_T)

    def __len__(self) -> int:
        return len(self.start_T)

    def __getitem__(self, number: int) -> Tokens:
        start = self.start_T[number]
        row: Tokens = self.flat_N[start : start + self.length_T[number]]
        return row

    def __iter__(self) -> Iterator[Tokens]:
        return (self[number] for number in range(len(self)))

    def stack(self, batch_B: Indices) -> Tokens:
        """The ids of texts of one length (B, L)."""
        at_L = np.arange(self.length_T[batch_B[0]])
        ids_BL: Tokens = self.flat_N[self.start_T[batch_B][:, None] + at_L]
        return ids_BL


def exact_length_batches(length_N: npt.NDArray[np.int32], token_budget: int) -> list[Indices]:
    """Split 0..N-1 into batches of one token length each, longest first, of at most `token_budget` tokens.

    Longest first shows a lack of memory at once. A text longer than the budget makes a batch of its own. The plan depends on
    nothing but the lengths, so every process of a run makes the same one.

    Args:
        length_N: tokens per text, at least 1.
        token_budget: tokens per batch.
    """
    order_N = np.argsort(-length_N, kind="stable")
    sorted_N = length_N[order_N]
    edges = np.flatnonzero(sorted_N[1:] != sorted_N[:-1]) + 1
    batches: list[Indices] = []
    for start, end in pairwise([0, *edges.tolist(), len(sorted_N)]):
        if start == end:
            break
        size = max(1, token_budget // int(sorted_N[start]))
        batches.extend(order_N[at : min(at + size, end)] for at in range(start, end, size))
    return batches
