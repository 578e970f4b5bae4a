"""Batches of texts that have exactly the same number of tokens, so that no padding is computed."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


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
