"""Intervals, lifts and calibration against known answers."""

from dataclasses import replace

import numpy as np
import pytest
from tritower.evaluation import calibration
from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.estimate import Estimate, estimate
from tritower.evaluation.rows import Rows


def rows_of(rng, requests, users, noise, size=6):
    """Requests of `size` jobs; rankers see relevance through noise; half of a row's logit belongs to its user."""
    user = rng.integers(0, users, requests)
    taste = rng.normal(size=(users, 40))
    job = rng.integers(0, 40, (requests, size))
    logit = (taste[user][np.arange(requests)[:, None], job] - 1 + 0.5 * rng.normal(size=(requests, size))).ravel()
    relevance = 1 / (1 + np.exp(-logit))
    count = requests * size
    score = {
        name: (1 / (1 + np.exp(-(logit + rng.normal(scale=scale, size=count))))).astype(np.float32)
        for name, scale in noise.items()
    }
    return Rows(
        row=np.arange(count), request=np.repeat(np.arange(requests), size), user=np.repeat(user, size).astype(np.int32),
        job=job.ravel().astype(np.int32), query_text=np.zeros(count, np.int32), position=np.zeros(count, np.int16),
        clicked=rng.random(count) < relevance, randomised=np.ones(count, bool), score=score,
    )  # fmt: skip


FLAT = np.ones(2)


def test_intervals_cover_the_population_value_about_as_often_as_they_say():
    """60 logs of one market, 40 users each: a 90 % interval of the AUC should hold the large-sample value about 54 times."""
    big = estimate(rows_of(np.random.default_rng(99), 20_000, 5000, {"model": 0.5}), FLAT, EvaluationConfig())
    target = big.value["model"]["auc"]
    covered = 0
    for seed in range(60):
        small = estimate(rows_of(np.random.default_rng(seed), 240, 40, {"model": 0.5}), FLAT, EvaluationConfig())
        interval = small.interval("model", "auc", 0.9)
        covered += interval.low <= target <= interval.high
    assert 44 <= covered <= 60


def test_paired_lifts_are_narrower_than_unpaired_ones():
    value = estimate(rows_of(np.random.default_rng(3), 2000, 300, {"model": 0.5, "baseline": 0.6}), FLAT, EvaluationConfig())
    paired = value.lift("model", "baseline", "auc", 0.95)
    without = value.without_U | {"baseline": {"auc": np.roll(value.without_U["baseline"]["auc"], 1)}}
    unpaired = replace(value, without_U=without).lift("model", "baseline", "auc", 0.95)
    assert paired.low < paired.value < paired.high
    assert paired.high - paired.low < 0.8 * (unpaired.high - unpaired.low)


def test_a_ranker_has_no_lift_over_itself():
    rows = rows_of(np.random.default_rng(4), 300, 50, {"model": 0.5})
    value = estimate(rows.with_score("baseline", rows.score["model"]), FLAT, EvaluationConfig())
    for metric in ("auc", "map@1", "map@3", "ndcg@10"):
        lift = value.lift("model", "baseline", metric, 0.95)
        assert (lift.value, lift.low, lift.high) == (0, 0, 0)


def test_share_by_hand():
    value = {"model": {"auc": 0.8}, "baseline": {"auc": 0.7}, "oracle": {"auc": 0.9}}
    without = {name: {"auc": np.full(100, metrics["auc"])} for name, metrics in value.items()}
    known = Estimate(rows=1, requests=1, clicks=1, users=1, value=value, without_U=without, share_U=np.full(100, 0.01))
    assert known.share("model", "baseline", "oracle", "auc", 0.95).value == pytest.approx(0.5)


def test_calibration_error_by_hand():
    # Two bins: scores .2 with 1 click in 4 rows, scores .8 with 2 clicks in 4 rows: (4 * .05 + 4 * .3) / 8.
    score = np.repeat([0.2, 0.8], 4).astype(np.float32)
    clicked = np.array([1, 0, 0, 0, 1, 1, 0, 0], bool)
    got = calibration.curve(score, np.ones(8), clicked, 2)
    assert got.error == pytest.approx((4 * 0.05 + 4 * 0.3) / 8, abs=1e-6)
    np.testing.assert_allclose(got.rate_B, [0.25, 0.5])
    assert got.rows_B.tolist() == [4, 4]


def test_true_probabilities_seen_through_examination_are_calibrated():
    rng = np.random.default_rng(5)
    relevance, examined = rng.beta(1, 4, 200_000), rng.choice([1.0, 0.5, 0.2], 200_000)
    clicked = rng.random(200_000) < relevance * examined
    assert calibration.curve(relevance.astype(np.float32), examined, clicked, 20).error < 0.004
    assert calibration.curve(relevance.astype(np.float32), np.ones(200_000), clicked, 20).error > 0.05


def test_log_loss_by_hand():
    got = calibration.losses(np.array([0.5, 0.5], np.float32), np.array([1.0, 0.5]), np.array([True, False]))
    np.testing.assert_allclose(got, [np.log(2), -np.log(0.75)])


def test_inverse_examination_undoes_the_logged_order():
    """The same pages with every job examined are what the reweighted logged clicks must tell of."""
    rng = np.random.default_rng(8)
    rows = rows_of(rng, 30_000, 3000, {"model": 0.3, "baseline": 1.5})
    examination_P = np.array([1.0, 1.0, 0.6, 0.4, 0.3, 0.25, 0.2])
    logit = np.log(rows.score["model"] / (1 - rows.score["model"]))
    order = np.argsort(-(logit + rng.normal(size=len(rows))).reshape(-1, 6), axis=1)  # the policy knows what the model knows
    position = np.argsort(order, axis=1).ravel() + 1
    seen = rng.random(len(rows)) < examination_P[position]
    logged = replace(rows, position=position.astype(np.int16), clicked=rows.clicked & seen)
    config = EvaluationConfig()
    full, biased, mended = (
        estimate(rows, FLAT, config),
        estimate(logged, examination_P, config),
        estimate(logged, examination_P, config, reweighted=True),
    )
    for ranker in ("model", "baseline"):
        for metric, left in (("auc", 0.25), ("map@1", 0.6)):
            wrong = abs(biased.value[ranker][metric] - full.value[ranker][metric])
            assert abs(mended.value[ranker][metric] - full.value[ranker][metric]) < left * wrong
        interval = mended.interval(ranker, "auc", 0.99)
        assert interval.low < full.value[ranker]["auc"] < interval.high
