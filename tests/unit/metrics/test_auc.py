"""AUC: exact, ties half, and without each user."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score
from tritower.metrics import auc


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


@given(hnp.arrays(np.float32, st.integers(2, 300), elements=st.floats(width=32, allow_nan=False)), st.integers(0, 2**32 - 1))
def test_equals_scikit_learn_over_the_whole_range_of_floats(score, seed):
    clicked = np.random.default_rng(seed).random(len(score)) < 0.3
    clicked[:2] = True, False
    expected = roc_auc_score(clicked, np.unique(score, return_inverse=True)[1])  # its own check refuses infinities
    assert auc.auc(score, clicked) == pytest.approx(expected, abs=1e-12)
    assert auc.without_each(score, clicked, np.zeros(len(score), np.int32), 1)[0] == auc.auc(score, clicked)


def test_minus_zero_ties_with_zero():
    score, clicked = np.array([-0.0, 0.0], np.float32), np.array([True, False])
    assert auc.auc(score, clicked) == auc.without_each(score, clicked, np.zeros(2, np.int32), 1)[0] == 0.5


def test_there_is_no_auc_where_a_score_is_nan():
    score, clicked = np.array([0.1, np.nan, 0.3], np.float32), np.array([True, False, False])
    assert np.isnan(auc.auc(score, clicked)) and np.isnan(auc.auc(score, ~clicked))
    value, without = auc.without_each(score, clicked, np.zeros(3, np.int32), 2)
    assert np.isnan([value, *without]).all()


@pytest.mark.parametrize("reweighted", [False, True])
def test_without_each_user_equals_leaving_out_its_rows(reweighted):
    rng = np.random.default_rng(1)
    score = np.round(rng.random(400), 2).astype(np.float32)  # many ties
    clicked = rng.random(400) < score / 4
    user = rng.integers(0, 30, 400).astype(np.int32)
    weight = clicked / rng.choice([1.0, 0.5, 0.3], 400) if reweighted else clicked.astype(float)

    def by_pairs(chosen):
        """All pairs of a row, as far as it counts as clicked, and a row, as far as it does not."""
        difference = score[chosen][:, None].astype(np.float64) - score[chosen][None, :]
        pairs = weight[chosen][:, None] * (1 - weight[chosen])[None, :]
        return float((pairs * ((difference > 0) + 0.5 * (difference == 0))).sum() / pairs.sum())

    if reweighted:
        value, without = auc.reweighted_without_each(score, weight, user, 31)
    else:
        value, without = auc.without_each(score, clicked, user, 31)
        assert value == auc.auc(score, clicked) == pytest.approx(roc_auc_score(clicked, score), abs=1e-12)
    assert value == pytest.approx(by_pairs(np.ones(400, bool)), abs=1e-12)
    np.testing.assert_allclose(without, [by_pairs(user != left) for left in range(31)], rtol=1e-9)


def test_without_the_only_user_who_clicked_there_is_no_auc():
    score, clicked = np.array([0.9, 0.1, 0.5], np.float32), np.array([True, False, False])
    value, without = auc.without_each(score, clicked, np.array([0, 0, 1], np.int32), 2)
    assert value == without[1] == 1.0 and np.isnan(without[0])


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
