"""What a row of a shuffled list would be expected to earn: examination by position times appeal by score.

In shuffled lists a job's position says nothing about the job, so both factors are plain rates:

    expected = rate of the position * rate of the score's bin / rate of all rows    (position-based model, Craswell et al. 2008)

Each user's rows are judged by rates of the other users only (cross-fitting, Chernozhukov et al. 2018): a model that had seen a
click would foretell it, and the doubly robust estimate would be too sure.

Legend: N rows, L lists, F folds.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from tritower.experiment.off_policy import Floats, Rows

Ints = NDArray[np.int64]


def with_model(rows: Rows, *, position_N: Ints, rank_N: Ints, score_N: Floats, bins: int = 20, folds: int = 5) -> Rows:
    """The rows with `expected_N` and `of_new_L`, for the doubly robust estimate.

    Args:
        rows: shuffled lists, numbered from 0.
        position_N: where each job was shown, from 0.
        rank_N: where the new ranker puts it among the shuffled ones, from 0.
        score_N: what the new ranker gave it.
        bins: kinds of scores, by quantiles.
        folds: groups of users.
    """
    edges = np.unique(np.quantile(score_N, np.arange(1, bins) / bins))
    bin_N, fold_N = np.searchsorted(edges, score_N, side="right"), rows.user_N % folds
    by_position = _rates(fold_N, position_N, rows.clicked_N, folds)
    by_bin = _rates(fold_N, bin_N, rows.clicked_N, folds)
    overall_F = _rates(fold_N, np.zeros_like(fold_N), rows.clicked_N, folds)[:, 0]
    appeal_N = by_bin[fold_N, bin_N] / np.maximum(overall_F[fold_N], 1e-12)
    expected_N = np.minimum(by_position[fold_N, position_N] * appeal_N, 1.0)
    new_N = np.minimum(by_position[fold_N, rank_N] * appeal_N, 1.0)
    of_new_L = np.bincount(rows.list_N, weights=new_N).astype(np.float64)
    return dataclasses.replace(rows, expected_N=expected_N, of_new_L=of_new_L)


def _rates(fold_N: Ints, kind_N: Ints, clicked_N: NDArray[np.bool_], folds: int) -> Floats:
    """Click rate of each kind among the users outside each fold (F, kinds)."""
    kinds = int(kind_N.max()) + 1
    at_N = fold_N * kinds + kind_N
    shown, clicks = (
        np.bincount(at_N, weights=weights, minlength=folds * kinds).reshape(folds, kinds) for weights in (None, clicked_N)
    )
    rates: Floats = (clicks.sum(0) - clicks) / np.maximum(shown.sum(0) - shown, 1)
    return rates
