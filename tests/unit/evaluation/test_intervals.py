"""Intervals: by hand, in A/A tests, and where there are none."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t
from tritower.evaluation import estimate as module
from tritower.evaluation import gate, wording
from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.estimate import RANKING, estimate
from tritower.evaluation.rows import Rows
from tritower.metrics import intervals
from tritower.metrics.intervals import Figure

from tests.bench import intervals as bench

FLAT = np.ones(2)
CONFIG = EvaluationConfig()


def hits(theirs, ours, user):
    """Searches of two jobs with the first clicked: 1 where a ranker puts it first."""
    count = len(user)
    clicked = np.tile([True, False], count)
    score = {
        name: np.stack([first, 1 - np.asarray(first)], axis=1).ravel()
        for name, first in (("baseline", theirs), ("model", ours))
    }
    return Rows(
        row=np.arange(2 * count), request=np.repeat(np.arange(count), 2), user=np.repeat(user, 2).astype(np.int32),
        job=np.tile([0, 1], count).astype(np.int32), query_text=np.zeros(2 * count, np.int32), clicked=clicked,
        position=np.zeros(2 * count, np.int16), randomised=np.ones(2 * count, bool),
        score={name: value.astype(np.float32) for name, value in score.items()},
    )  # fmt: skip


def test_the_interval_of_a_lift_by_hand():
    # 8 users with 4 searches each; ours hits a = 2 3 3 4 4 2 3 3 of 4, theirs 2 each: log(24 / 16), and without one user
    # log((24 - a) / 14). These differ by log((24 - a) / 21): log(22 / 21) twice, 0 four times, log(20 / 21) twice.
    ours = [2, 3, 3, 4, 4, 2, 3, 3]
    user = np.repeat(np.arange(8), 4)
    model = np.concatenate([np.arange(4) < a for a in ours]).astype(float)
    value = estimate(hits(np.tile([1.0, 1, 0, 0], 8), model, user), FLAT, EvaluationConfig(min_users=5))
    lift = value.lift("model", "baseline", "map@1", 0.95)
    error = math.sqrt((2 * math.log(22 / 21) ** 2 + 2 * math.log(20 / 21) ** 2) * (1 - 1 / 8))
    half = t.ppf(0.975, 7) * error
    assert lift.value == pytest.approx(0.5)
    assert (lift.low, lift.high) == pytest.approx((1.5 * math.exp(-half) - 1, 1.5 * math.exp(half) - 1))


def test_users_of_unequal_weight_count_as_fewer():
    assert intervals.effective(np.full(40, 1 / 40)) == pytest.approx(40)
    # One with half of the searches, ten with a twentieth each: 1 / (.25 + 10 / 400).
    assert intervals.effective(np.array([0.5] + [0.05] * 10)) == pytest.approx(1 / 0.275)
    assert intervals.effective(np.zeros(3)) == 0


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=6, max_size=30).flatmap(
        lambda sizes: st.tuples(st.just(sizes), st.lists(st.floats(0, 1), min_size=len(sizes), max_size=len(sizes)))
    )
)
def test_ends_stay_within_what_a_metric_can_be(sizes_and_means):
    size, mean = (np.array(part, float) for part in sizes_and_means)
    total = size @ mean
    figure = Figure(value=total / size.sum(), without_U=(total - size * mean) / (size.sum() - size))
    interval = intervals.level(figure, size / size.sum(), 0.95)
    if interval.reason:
        assert math.isnan(interval.low) and math.isnan(interval.high)
    elif 0 < figure.value < 1 and ((figure.without_U > 0) & (figure.without_U < 1)).all():
        assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_two_equal_rankers_are_apart_in_one_of_twenty_tests():
    """400 logs of 100 users, most with one search and some with fifty: 5 % +- 1.1 %. With 10 users nothing is judged."""
    ends = bench.tests(100, 400, 7, noise=1.0)
    for metric in bench.METRICS:
        assert np.isfinite(ends[metric]).all()
        assert 0.015 <= bench.apart(ends[metric]) <= 0.085
        assert np.isnan(bench.tests(10, 20, 7, noise=1.0)[metric]).all()


def test_a_real_lift_is_found_and_held_by_its_interval():
    ends = bench.tests(500, 40, 8, noise=bench.BETTER)
    assert bench.apart(ends["auc"]) > 0.9
    real = bench.truth(9, users=5000)["auc"]
    assert ((ends["auc"][:, 0] <= real) & (real <= ends["auc"][:, 1])).mean() >= 0.8


@pytest.mark.parametrize("users", [2, 5, 10])
def test_with_few_users_nothing_is_judged_and_the_gate_holds(users):
    rng = np.random.default_rng(users)
    rows = bench.log(rng, 300, noise=3.0)
    rows = replace(rows, user=rows.user % users)
    value = estimate(rows, FLAT, CONFIG)
    for metric in RANKING:
        for interval in (value.lift("model", "baseline", metric, 0.95), value.interval("model", metric, 0.95)):
            assert math.isnan(interval.low) and math.isnan(interval.high) and f"{users} users, fewer than 20" in interval.reason
            assert math.isfinite(interval.value)
    decision = gate.decide(value, wording.NAMES, CONFIG)
    assert decision.verdict() == "hold" and decision.reasons[0].startswith("Nothing can be judged")
    assert gate.decide(estimate(bench.log(rng, 300, noise=3.0), FLAT, CONFIG), wording.NAMES, CONFIG).verdict() == "pass"


def test_one_user_with_most_searches_is_not_outvoted_by_many_with_one():
    user = np.concatenate([np.zeros(400), np.arange(1, 41)])
    rng = np.random.default_rng(0)
    value = estimate(hits(rng.integers(0, 2, 440), rng.integers(0, 2, 440), user), FLAT, CONFIG)
    assert value.effective_users() == pytest.approx(1 / ((400 / 440) ** 2 + 40 / 440**2))
    assert "a few users hold most searches" in value.lift("model", "baseline", "map@1", 0.95).reason


def test_nine_searches_say_nothing():
    value = estimate(hits(np.zeros(9), np.ones(9), np.arange(9)), FLAT, CONFIG)
    lift = value.lift("baseline", "model", "map@1", 0.95)
    assert lift.value == -1 and math.isnan(lift.high) and lift.reason == "there are 9 searches with a click, fewer than 30"


def test_there_is_no_lift_over_next_to_nothing():
    """60 users with a search each; the rival hits none, or two."""
    for found in (0, 2):
        value = estimate(hits(np.arange(60) < found, np.arange(60) % 3 > 0, np.arange(60)), FLAT, CONFIG)
        assert value.lift("model", "baseline", "map@1", 0.95).reason == "the rival's figure is too near 0 for a ratio"
        assert value.lift("baseline", "model", "map@1", 0.95).reason == "the model's figure is too near 0 for a ratio"
        assert gate.decide(value, wording.NAMES, EvaluationConfig(gate_metric="map@1")).verdict() == "hold"


def test_a_figure_that_is_the_same_for_every_user_is_not_sure():
    value = estimate(hits(np.tile([1.0, 0.0], 60), np.ones(120), np.repeat(np.arange(60), 2)), FLAT, CONFIG)
    for interval in (value.lift("model", "baseline", "map@1", 0.95), value.interval("model", "map@1", 0.95)):
        assert interval.reason == "it is the same whoever is left out"


def test_many_users_are_left_out_in_groups(monkeypatch):
    rows = bench.log(np.random.default_rng(3), 3000, noise=bench.BETTER)
    one_by_one = estimate(rows, FLAT, CONFIG)
    monkeypatch.setattr(module, "GROUPS", 300)
    grouped = estimate(rows, FLAT, CONFIG)
    assert len(grouped.share_U) == 300 and grouped.users == one_by_one.users == 3000
    for metric in RANKING:
        wide, narrow = (value.lift("model", "baseline", metric, 0.95) for value in (grouped, one_by_one))
        assert wide.value == pytest.approx(narrow.value, rel=1e-9)
        assert (wide.high - wide.low) == pytest.approx(narrow.high - narrow.low, rel=0.25)
