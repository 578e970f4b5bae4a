import math

import numpy as np
import pytest
from scipy.stats import norm
from tritower.errors import ConfigError
from tritower.experiment import planning, ratio, sequential
from tritower.experiment.config import Habits
from tritower.experiment.moments import Moments
from tritower.experiment.simulation import play


@pytest.mark.parametrize(
    ("shares", "expected"),
    [  # Lan and DeMets with O'Brien-Fleming spending, two-sided .05: as printed by the usual packages
        ([1.0], [1.9600]),
        ([0.5, 1.0], [2.9626, 1.9686]),
        ([0.2, 0.4, 0.6, 0.8, 1.0], [4.8769, 3.3570, 2.6803, 2.2898, 2.0310]),
    ],
)
def test_bounds_are_the_published_ones(shares: list[float], expected: list[float]) -> None:
    assert sequential.bounds(shares) == pytest.approx(expected, abs=1e-4)


def test_all_of_the_error_is_spent_and_no_more() -> None:
    for looks in (1, 3, 6, 42):
        shares = [look / looks for look in range(1, looks + 1)]
        assert sequential.power(shares, sequential.bounds(shares), 0.0)[-1] == pytest.approx(0.05, abs=1e-6)


def test_bounds_and_power_are_those_of_paths() -> None:
    """Brute force: Brownian paths against the bounds, with looks at uneven times."""
    shares, random = [0.15, 0.5, 0.6, 1.0], np.random.default_rng(0)
    bound_K = sequential.bounds(shares)
    steps = random.standard_normal((400_000, 4)) * np.sqrt(np.diff([0.0, *shares]))
    path_PK = steps.cumsum(axis=1)
    for drift in (0.0, 2.5):
        z_PK = (path_PK + drift * np.array(shares)) / np.sqrt(shares)
        stopped = np.maximum.accumulate(np.abs(z_PK) >= bound_K, axis=1).mean(axis=0)
        assert sequential.power(shares, bound_K, drift) == pytest.approx(stopped, abs=0.003)


def test_what_may_be_spent_can_follow_the_calendar() -> None:
    early = sequential.bounds([1.0, 4.0], spending=[0.5, 1.0])
    assert early[0] == pytest.approx(2.9626, abs=1e-4)  # what half of the planned days allow, whatever has been learnt
    gone = [sequential.power([0.25, 1.0], early, 0.0)[-1], sequential.power([0.25, 1.0], early, 0.0)[0]]
    assert gone == pytest.approx([0.05, sequential.spent(0.5)], abs=1e-6)


@pytest.mark.parametrize("shares", [[], [0.0, 1.0], [0.5, 0.5], [0.6, 0.4]])
def test_looks_must_follow_each_other(shares: list[float]) -> None:
    with pytest.raises(ConfigError, match="do not rise"):
        sequential.bounds(shares)


def test_a_confidence_sequence_holds_on_all_days_and_is_narrowest_where_it_was_asked_to_be() -> None:
    sequence = sequential.ConfidenceSequence(planned_error=0.1)
    reach = {error: sequence.reach(error) / error for error in (0.4, 0.1, 0.02)}
    assert min(reach, key=lambda error: reach[error]) == 0.1 and reach[0.1] == pytest.approx(3.035, abs=1e-3)
    assert sequence.reach(0.0) == sequence.reach(math.inf) == math.inf
    # 1,000 looks at a mean of normal values: it is left on few paths, where 1.96 errors are left on most.
    random = np.random.default_rng(1)
    error_T = 1 / np.sqrt(np.arange(20, 1020))
    mean_PT = random.standard_normal((3000, 1019)).cumsum(axis=1)[:, 19:] * error_T**2
    planned = sequential.ConfidenceSequence(planned_error=float(error_T[500]))
    reach_T = np.array([planned.reach(float(error)) for error in error_T])
    left, naive = (np.abs(mean_PT) > wide_T for wide_T in (reach_T, 1.96 * error_T))
    assert left.any(axis=1).mean() < 0.05 < 0.25 < naive.any(axis=1).mean()


def test_a_plan_by_hand_and_its_reverse() -> None:
    """One click rate for all, one impression each: the variance of log(R) is (1 - p) / p for each user."""
    clicks = [1] * 10 + [0] * 90
    user = Moments.of(clicks, [1] * 100)
    drift = planning.drift(0.05, 0.8)
    assert drift == pytest.approx(norm.isf(0.025) + norm.ppf(0.8))
    variance = 0.9 / 0.1 * 100 / 99  # of a sample
    expected = (drift / math.log(1.05)) ** 2 * variance * 4
    assert planning.users_for(user, 0.05, drift=drift) == pytest.approx(expected, abs=1)
    assert planning.found_with(user, planning.users_for(user, 0.05, drift=drift), drift=drift) == pytest.approx(0.05, abs=1e-4)
    looks = [0.2, 0.4, 0.6, 0.8, 1.0]
    assert sequential.power(looks, sequential.bounds(looks), planning.drift(0.05, 0.8, 5))[-1] == pytest.approx(0.8, abs=1e-4)
    assert 1.02 < planning.drift(0.05, 0.8, 5) ** 2 / drift**2 < 1.03  # what five looks cost


@pytest.mark.slow
def test_a_planned_test_has_the_power_that_was_planned() -> None:
    random, effect = np.random.default_rng(3), 0.15
    habits, days = Habits(click_spread=30), 14
    everybody = play(habits, users=40_000, days=days, random=random).arms()
    user = everybody[0] + everybody[1]
    users = planning.users_for(user, effect, drift=planning.drift(0.05, 0.8))
    seen = user.users / 40_000
    found = 0
    for _ in range(600):
        treated = play(Habits(click_spread=30, effect=effect), users=int(users / seen), days=days, random=random)
        found += ratio.effect(*treated.arms()).z > norm.isf(0.025)
    assert found / 600 == pytest.approx(0.8, abs=0.05)
