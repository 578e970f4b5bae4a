"""The figures that training watches. The evaluation step has the full set, with intervals."""

import numpy as np
from numpy.typing import NDArray

from tritower.metrics import auc

Floats = NDArray[np.float32]


def figures(click_N: Floats, skip_N: Floats, clicked_N: NDArray[np.bool_]) -> dict[str, float]:
    """`log_loss` and `auc` of log probabilities of a click and of no click; an `auc` of .5 when one class is missing."""
    one_class = clicked_N.all() or not clicked_N.any()
    return {"log_loss": log_loss(click_N, skip_N, clicked_N), "auc": 0.5 if one_class else auc.auc(click_N, clicked_N)}


def log_loss(click_N: Floats, skip_N: Floats, clicked_N: NDArray[np.bool_]) -> float:
    """Mean negative log likelihood in nats from log probabilities of a click and of no click."""
    return float(-np.where(clicked_N, click_N, skip_N).mean(dtype=np.float64))
