"""The examination slope of a randomised slice."""

import numpy as np
import pytest
from tritower.ranker import curve
from tritower.ranker.config import NetworkConfig
from tritower.ranker.network import ClickModel, examination


@pytest.mark.parametrize("true", [0.0, 0.45, 1.2])
def test_the_slope_is_recovered(true: float):
    random, n = np.random.default_rng(1), 60_000
    position = random.integers(0, 11, n)
    clicked = random.random(n) < 0.3 * np.maximum(position, 1.0) ** -true
    assert curve.slope(position, clicked) == pytest.approx(true, abs=0.05)


def test_two_positions_by_hand():
    """Rates 0.5 and 0.25 at positions 1 and 2: a slope of 1."""
    position = np.repeat([1, 2], [400, 400])
    clicked = np.concatenate([np.arange(400) < 200, np.arange(400) < 100])
    assert curve.slope(position, clicked) == pytest.approx(1.0)


def test_too_few_clicks_or_one_position_say_nothing():
    position = np.tile([1, 2], 500)
    assert curve.slope(position, np.arange(1000) < 199) is None
    assert curve.slope(np.ones(1000, int), np.ones(1000, bool)) is None
    assert curve.slope(np.zeros(1000, int), np.ones(1000, bool)) is None
    assert curve.slope(np.empty(0, int), np.empty(0, bool)) is None


def test_weights_start_on_the_curve():
    model = ClickModel(NetworkConfig(positions=4), dim=2, features=1)
    model.bias.start_at(0.5)
    np.testing.assert_allclose(examination(model), [1, 2**-0.5, 3**-0.5, 0.5], rtol=1e-6)
