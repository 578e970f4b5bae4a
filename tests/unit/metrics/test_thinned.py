"""A ROC curve of 40 points has the shape and the area of the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower.metrics import auc


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(50, 4000), st.floats(-1, 4), st.sampled_from([1, 2, 3, 8]))
def test_the_area_stays(seed: int, rows: int, gain: float, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    clicked = rng.random(rows) < 0.2
    clicked[:2] = [True, False]
    score = np.round(1 / (1 + np.exp(-rng.normal(size=rows) - gain * clicked)), decimals).astype(np.float32)
    whole = auc.roc(score, clicked)
    fpr, tpr, thresholds = auc.thinned(*whole)
    assert len(fpr) <= 40 and len(fpr) == len(tpr) == len(thresholds)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert set(zip(fpr, tpr, thresholds, strict=True)) <= set(zip(*whole, strict=True))
    assert fpr == sorted(fpr) and tpr == sorted(tpr) and thresholds == sorted(thresholds, reverse=True)
    assert np.trapezoid(tpr, fpr) == pytest.approx(np.trapezoid(whole[1], whole[0]), abs=4e-3)
    assert np.isfinite([fpr, tpr, thresholds]).all()


def test_corners_are_kept_and_straight_lines_are_not() -> None:
    steps = np.linspace(0, 1, 101).tolist()
    corner = auc.thinned([0.0, *[0.0] * 100, *steps[1:]], [*steps, *[1.0] * 100], list(range(201))[::-1])
    assert corner[:2] == ([0, 0, 1], [0, 1, 1])
    assert auc.thinned([0.0], [0.0], [0.5]) == ([0.0], [0.0], [0.5])
