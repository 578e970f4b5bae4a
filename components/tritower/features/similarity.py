"""Cosines between texts: query and document, profile titles and the job's title; and the best string match of a profile.

Legend: N rows, U users, T texts, D dimensions, E entries of all profile lists (CSR: offsets of U + 1, texts of E).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tritower.half import dot, dot_half, widen
from tritower.numba_cache import njit

Array = npt.NDArray[Any]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Lists:
    """A list of text numbers per user."""

    offset_U: npt.NDArray[np.int64]
    text_E: Int32

    @staticmethod
    def of(column: pa.ChunkedArray, blank_T: npt.NDArray[np.bool_]) -> "Lists":
        """From a `list<int32>` column without its blank texts; null counts as empty."""
        length = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        text_E = pc.list_flatten(column).to_numpy().astype(np.int32)
        user_E = np.repeat(np.arange(len(length)), length)
        kept = ~blank_T[text_E]
        length = np.bincount(user_E[kept], minlength=len(length))
        return Lists(offset_U=np.concatenate([[0], np.cumsum(length)]).astype(np.int64), text_E=text_E[kept])

    def padded(self, users: int) -> "Lists":
        """The same with `users` more users, whose lists are empty."""
        more = np.full(users, self.offset_U[-1])
        return Lists(offset_U=np.concatenate([self.offset_U, more]), text_E=self.text_E)


@njit(cache=True)
def pair_cosine(left_N: Array, right_N: Array, matrix_TD: Array, plain_T: Array, out_N: Array) -> None:
    """Write the cosine of the unit vectors of each pair of texts; leave rows with a blank text (`plain_T` -1) alone."""
    for i in range(left_N.shape[0]):
        if plain_T[left_N[i]] >= 0 and plain_T[right_N[i]] >= 0:
            value = dot_half(matrix_TD, left_N[i], right_N[i])
            out_N[i] = min(np.float32(1.0), max(np.float32(-1.0), value))


@njit(cache=True)
def list_cosine(
    user_N: Array, text_N: Array, offset_U: Array, text_E: Array, matrix_TD: Array, plain_T: Array, out_N: Array
) -> None:
    """Write the largest cosine of a text and the user's list; leave blank texts (`plain_T` -1) and empty lists alone."""
    dims = matrix_TD.shape[1]
    wide_1D, i = np.empty((1, dims), np.float32), 0
    while i < user_N.shape[0]:
        user, first = user_N[i], i
        while i < user_N.shape[0] and user_N[i] == user:
            i += 1
        for e in range(offset_U[user], offset_U[user + 1]):
            widen(matrix_TD, text_E[e], wide_1D, 0)  # once for a run of rows of one user
            for j in range(first, i):
                if plain_T[text_N[j]] >= 0:
                    value = dot(matrix_TD, text_N[j], wide_1D[0])
                    best = np.float32(-1.0) if np.isnan(out_N[j]) else out_N[j]
                    out_N[j] = min(np.float32(1.0), max(best, value))


@njit(cache=True)
def explode(user_N: Array, text_N: Array, offset_U: Array, text_E: Array) -> tuple[Array, Array, Array]:
    """All pairs (list text, row text) with the row of each; of a run of rows of one user, list text by list text."""
    total = 0
    for i in range(user_N.shape[0]):
        total += offset_U[user_N[i] + 1] - offset_U[user_N[i]]
    left, right, row = np.empty(total, np.int32), np.empty(total, np.int32), np.empty(total, np.int64)
    at = i = 0
    while i < user_N.shape[0]:
        user, first = user_N[i], i
        while i < user_N.shape[0] and user_N[i] == user:
            i += 1
        for e in range(offset_U[user], offset_U[user + 1]):
            for j in range(first, i):
                left[at], right[at], row[at] = text_E[e], text_N[j], j
                at += 1
    return left, right, row


@njit(cache=True)
def fold_max(row: Array, score: Array, out_N: Array) -> None:
    """Write the largest score of each row, NaN where no pair has one."""
    for at in range(row.shape[0]):
        if score[at] == score[at] and not out_N[row[at]] >= score[at]:
            out_N[row[at]] = score[at]
