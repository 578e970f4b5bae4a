"""Position offsets: how much a row's log-odds of a click owe to where it stood on the page.

Legend: N rows, P position slots (slot 0 is position 1, the last slot pools the rest of the page).
"""

import numpy as np
import numpy.typing as npt

from tritower.baseline import exact

Floats = npt.NDArray[np.floating]
_STEPS = 25


def slots(position_N: npt.NDArray[np.integer], cap: int) -> npt.NDArray[np.int16]:
    """Position slot of each row: position - 1, pooled at `cap` - 1; a missing position (0) takes slot 0."""
    slot_N: npt.NDArray[np.int16] = (np.clip(position_N, 1, cap) - 1).astype(np.int16)
    return slot_N


def offsets(
    margin_N: Floats, slot_N: npt.NDArray[np.integer], clicked_N: npt.NDArray[np.bool_], count: int, prior: float = 20.0
) -> npt.NDArray[np.float64]:
    """Log-odds of each slot relative to slot 0, given what the model says of the rows without position.

    For each slot, Newton's method finds the intercept c with sum(clicked) = sum(sigmoid(margin + c)): maximum likelihood
    of a logistic regression with one dummy per slot and the margin as offset. `prior` pulls a slot with few rows to the
    slot above it, with the weight of that many rows.

    Args:
        margin_N: model log-odds, position left out.
        count: P.

    Returns:
        (P,), the first 0.
    """
    intercept_P = np.zeros(count)
    previous = 0.0
    for slot in range(count):
        rows = slot_N == slot
        margin, clicks = margin_N[rows].astype(np.float64), float(clicked_N[rows].sum())
        weight = prior if slot else 0.0
        c = previous
        if len(margin) == 0 or (clicks == 0 and slot == 0):
            intercept_P[slot] = previous
            continue
        for _ in range(_STEPS):
            p = exact.sigmoid(margin + c)
            mean_slope = float(np.mean(p * (1 - p)))
            gradient = clicks - p.sum() - weight * mean_slope * (c - previous)
            step = float(gradient / (mean_slope * (len(margin) + weight) + 1e-9))
            c += float(np.clip(step, -2.0, 2.0))
            if abs(step) < 1e-6:
                break
        intercept_P[slot] = previous = c
    relative_P: npt.NDArray[np.float64] = intercept_P - intercept_P[0]
    return relative_P


def top_shift(margin_N: Floats, clicked_N: npt.NDArray[np.bool_], slot_N: npt.NDArray[np.integer]) -> float:
    """What to add to every margin so that the mean probability of the rows at the top equals their click rate.

    The scores' contract is the probability as seen at the top position; a model trained without positions speaks of the
    average one. A constant shift repairs the level and leaves every ranking as it is. 0 where no row is at the top.
    """
    top = slot_N == 0
    rate = float(clicked_N[top].mean()) if top.any() else 0.0
    if not 0 < rate < 1:
        return 0.0
    margin = margin_N[top].astype(np.float64)
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if exact.sigmoid(margin + middle).mean() < rate else (low, middle)
    return (low + high) / 2
