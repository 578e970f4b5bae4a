"""AUC by radix sort: exact, ties half, and its weighted bootstrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score
from tritower.errors import DataError
from tritower.evaluation import auc


def pairs(score, clicked):
    """AUC by its definition: all pairs of a clicked and another row."""
    difference = score[clicked][:, None].astype(np.float64) - score[~clicked][None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def test_by_hand():
    # Pairs (0.9, 0.5), (0.9, 0.2) won, (0.5, 0.5) tied, (0.5, 0.2) won: 3.5 of 4.
    score = np.array([0.9, 0.5, 0.5, 0.2], np.float32)
    assert auc.auc(score, np.array([True, True, False, False])) == 3.5 / 4


@given(st.data(), st.integers(2, 60), st.integers(1, 8))
def test_equals_all_pairs_with_ties(data, rows, levels):
    level = data.draw(hnp.arrays(np.int64, rows, elements=st.integers(0, levels)))
    clicked = data.draw(hnp.arrays(bool, rows))
    score = (level / levels).astype(np.float32)
    if clicked.all() or not clicked.any():
        assert np.isnan(auc.auc(score, clicked))
    else:
        assert auc.auc(score, clicked) == pytest.approx(pairs(score, clicked), abs=1e-12)


@given(hnp.arrays(np.float32, st.integers(2, 300), elements=st.floats(0, 2.0**100, width=32)), st.integers(0, 2**32 - 1))
def test_equals_scikit_learn_over_the_whole_range_of_floats(score, seed):
    clicked = np.random.default_rng(seed).random(len(score)) < 0.3
    clicked[:2] = True, False
    assert auc.auc(score, clicked) == pytest.approx(roc_auc_score(clicked, score), abs=1e-12)


def test_minus_zero_ties_with_zero():
    assert auc.auc(np.array([-0.0, 0.0], np.float32), np.array([True, False])) == 0.5


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_a_score_that_is_no_probability_is_refused(bad):
    with pytest.raises(DataError, match="negative, NaN or infinite"):
        auc.auc(np.array([0.1, bad], np.float32), np.array([True, False]))


def test_bootstrap_equals_repeating_each_users_rows():
    rng = np.random.default_rng(1)
    score = np.round(rng.random(400), 2).astype(np.float32)  # many ties
    clicked = rng.random(400) < score
    user = rng.integers(0, 30, 400).astype(np.int32)
    weight = rng.poisson(1.0, (30, auc.LANES)).astype(np.float32)
    replicates = auc.bootstrap(auc.sort_with_user(score, clicked, user), weight)
    for lane in range(auc.LANES):
        times = weight[user, lane].astype(int)
        repeated = np.repeat(np.arange(400), times)
        assert replicates[lane] == pytest.approx(roc_auc_score(clicked[repeated], score[repeated]), abs=1e-9)


def test_roc_runs_from_corner_to_corner_and_its_area_is_the_auc():
    rng = np.random.default_rng(2)
    score = np.round(rng.random(2000), 3).astype(np.float32)
    clicked = rng.random(2000) < score
    fpr, tpr, thresholds = auc.roc(score, clicked, points=5000)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(fpr) >= 0) and np.all(np.diff(tpr) >= 0) and np.all(np.diff(thresholds) <= 0)
    assert np.isfinite(thresholds).all()
    assert np.trapezoid(tpr, fpr) == pytest.approx(auc.auc(score, clicked), abs=1e-9)
    assert len(auc.roc(score, clicked, points=100)[0]) <= 101
