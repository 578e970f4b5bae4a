"""AUC and log loss against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from tritower.ranker import measure


def test_figures_equal_those_of_scikit_learn():
    random = np.random.default_rng(0)
    p, clicked = random.uniform(0.01, 0.99, 50).astype(np.float32), random.random(50) < 0.4
    ours = measure.figures(np.log(p), np.log1p(-p), clicked)
    assert ours == pytest.approx({"log_loss": log_loss(clicked, p), "auc": roc_auc_score(clicked, p)}, rel=1e-5)


@pytest.mark.parametrize("clicked", [np.zeros(3, bool), np.ones(3, bool)])
def test_one_class_has_an_auc_of_one_half(clicked: np.ndarray):
    assert measure.figures(np.log([0.1, 0.2, 0.3]), np.log([0.9, 0.8, 0.7]), clicked)["auc"] == 0.5
