"""The figures that training watches. The evaluation step has the full set, with intervals."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def log_loss(click_N: Floats, skip_N: Floats, clicked_N: NDArray[np.bool_]) -> float:
    """Mean negative log likelihood in nats from log probabilities of a click and of no click."""
    return float(-np.where(clicked_N, click_N, skip_N).mean(dtype=np.float64))


def auc(score_N: Floats, clicked_N: NDArray[np.bool_]) -> float:
    """Area under the ROC curve, ties counted half; 0.5 when one class is missing."""
    order = np.argsort(score_N, kind="stable")
    ordered = score_N[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    last = np.r_[first[1:], len(ordered)]
    rank_N = np.repeat((first + 1 + last) / 2.0, last - first)
    positive_N = clicked_N[order]
    positives = int(positive_N.sum())
    negatives = len(ordered) - positives
    if not positives or not negatives:
        return 0.5
    return float((rank_N[positive_N].sum() - positives * (positives + 1) / 2) / (positives * negatives))
