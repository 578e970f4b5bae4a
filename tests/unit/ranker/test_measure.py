"""AUC and log loss against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score
from tritower.ranker import measure


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60))
def test_auc_equals_scikit_learn_with_ties(pairs: list[tuple[int, bool]]):
    score, clicked = np.array([p[0] for p in pairs], np.float32), np.array([p[1] for p in pairs])
    if clicked.all() or not clicked.any():
        assert measure.auc(score, clicked) == 0.5
    else:
        assert measure.auc(score, clicked) == pytest.approx(roc_auc_score(clicked, score))


def test_log_loss_equals_scikit_learn():
    random = np.random.default_rng(0)
    p, clicked = random.uniform(0.01, 0.99, 50).astype(np.float32), random.random(50) < 0.4
    ours = measure.log_loss(np.log(p), np.log1p(-p), clicked)
    assert ours == pytest.approx(log_loss(clicked, p), rel=1e-5)
