"""Examination measured on rows in random order: the curve, and the slope."""

import numpy as np
import pytest
from tritower.metrics import examination


@pytest.mark.parametrize("true", [0.0, 0.45, 1.2])
def test_the_slope_is_recovered(true: float):
    random, n = np.random.default_rng(1), 60_000
    position = random.integers(0, 11, n)
    clicked = random.random(n) < 0.3 * np.maximum(position, 1.0) ** -true
    assert examination.slope(position, clicked) == pytest.approx(true, abs=0.05)


def test_two_positions_by_hand():
    """Rates 0.5 and 0.25 at positions 1 and 2: a slope of 1."""
    position = np.repeat([1, 2], [400, 400])
    clicked = np.concatenate([np.arange(400) < 200, np.arange(400) < 100])
    assert examination.slope(position, clicked) == pytest.approx(1.0)


def test_too_few_clicks_or_one_position_say_nothing():
    position = np.tile([1, 2], 500)
    assert examination.slope(position, np.arange(1000) < 199) is None
    assert examination.slope(np.ones(1000, int), np.ones(1000, bool)) is None
    assert examination.slope(np.zeros(1000, int), np.ones(1000, bool)) is None
    assert examination.slope(np.empty(0, int), np.empty(0, bool)) is None


def test_randomised_rows_recover_examination():
    rng = np.random.default_rng(6)
    true = np.array([1.0, 0.6, 0.4, 0.25])
    position = rng.integers(1, 5, 60_000).astype(np.int16)
    clicked = rng.random(60_000) < 0.3 * true[position - 1]
    curve = examination.curve(position, clicked, 0.01)
    np.testing.assert_allclose(curve[1:], true, atol=0.03)
    assert examination.at(curve, np.array([0, 1, 4, 9], np.int16)).tolist() == [1.0, 1.0, curve[4], curve[4]]


def test_the_curve_by_hand():
    """Rates .5 and .25 at positions 1 and 2; positions 3 and 4 have 49 clicks each of 400, too few to stand alone."""
    position = np.repeat([1, 2, 3, 4], 400)
    clicked = np.concatenate([np.arange(400) < clicks for clicks in (200, 100, 49, 49)])
    assert examination.curve(position, clicked, 0.01).tolist() == pytest.approx([1, 1, 0.5, 0.245, 0.245])
    assert examination.curve(position, clicked, 0.3).tolist() == pytest.approx([1, 1, 0.5, 0.3, 0.3])


def test_too_few_clicks_give_no_curve():
    assert examination.curve(np.ones(1000, np.int16), np.arange(1000) < 150, 0.01) is None
    assert examination.curve(np.empty(0, np.int16), np.empty(0, bool), 0.01) is None
