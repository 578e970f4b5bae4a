"""mAP and nDCG from the ranks of the clicked rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score
from tritower.metrics import ranking


def judged(request, score, clicked, seed=0):
    request, clicked = np.asarray(request, np.int64), np.asarray(clicked, bool)
    rows = np.arange(len(request), dtype=np.int64)
    where = ranking.requests(request, clicked)
    return ranking.per_request(np.asarray(score, np.float32), clicked, rows, where, seed=seed)


def average_precision(ranked, most):
    """AP@K of a list of labels, best first, by its definition."""
    hits = [sum(ranked[: k + 1]) / (k + 1) * ranked[k] for k in range(min(most, len(ranked)))]
    return sum(hits) / min(most, sum(ranked))


def test_by_hand():
    # Request 0 by score: no, click, click. AP@1 = 0; AP@3 = (1/2 + 2/3) / 2; nDCG = (1/log2 3 + 1/log2 4) / (1 + 1/log2 3).
    # Request 1 has no click and does not count. Request 2: click on top.
    got = judged([0, 0, 0, 1, 1, 2, 2], [0.2, 0.9, 0.5, 0.1, 0.2, 0.8, 0.3], [1, 0, 1, 0, 0, 1, 0])
    np.testing.assert_allclose(got.map1_Q, [0, 1])
    np.testing.assert_allclose(got.map3_Q, [(1 / 2 + 2 / 3) / 2, 1])
    np.testing.assert_allclose(got.ndcg10_Q, [(1 / np.log2(3) + 1 / 2) / (1 + 1 / np.log2(3)), 1])


@given(st.lists(st.tuples(st.integers(1, 25), st.integers(0, 2**31)), min_size=1, max_size=12))
def test_equals_sorting_each_request(shapes):
    request, score, clicked, expected = [], [], [], []
    for number, (size, seed) in enumerate(shapes):
        rng = np.random.default_rng(seed)
        s, c = rng.permutation(size) / 32, rng.random(size) < 0.4
        request += [number] * size
        score += s.tolist()
        clicked += c.tolist()
        if c.any():
            ranked = c[np.argsort(-s)].astype(int).tolist()
            ndcg = ndcg_score([c], [s], k=10) if size > 1 else 1.0
            expected.append((average_precision(ranked, 1), average_precision(ranked, 3), ndcg))
    got = judged(request, score, clicked)
    np.testing.assert_allclose(np.column_stack([got.map1_Q, got.map3_Q, got.ndcg10_Q]).ravel(), np.ravel(expected), atol=1e-6)


def test_ties_are_shuffled_not_kept_in_logged_order():
    """One click among 4 equal scores, always logged first: on top in a quarter of the requests, not in all."""
    count = 8000
    request = np.repeat(np.arange(count), 4)
    clicked = np.tile([True, False, False, False], count)
    got = judged(request, np.full(4 * count, 0.5), clicked)
    assert got.map1_Q.mean() == pytest.approx(1 / 4, abs=0.02)
    assert got.map3_Q.mean() == pytest.approx((1 + 1 / 2 + 1 / 3) / 4, abs=0.02)


def test_tied_ranks_are_a_permutation_and_follow_the_seed():
    """With every row of a request clicked and tied, ranks 1 to 5 are each taken once."""
    request, score = np.zeros(5), np.full(5, 0.3)
    for seed in range(20):
        assert judged(request, score, np.ones(5), seed).map3_Q[0] == pytest.approx(1.0)
    one = np.array([True, False, False, False, False])
    tops = [judged(request, score, one, seed).map1_Q[0] for seed in range(200)]
    assert tops[:50] == [judged(request, score, one, seed).map1_Q[0] for seed in range(50)]
    assert 0.1 < np.mean(tops) < 0.3
