import math

import numpy as np
import pyarrow as pa
import pytest
import tea_tasting
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, norm
from tritower.experiment import checks, ratio
from tritower.experiment.config import Habits
from tritower.experiment.moments import Moments
from tritower.experiment.simulation import play

Z = float(norm.isf(0.025))


def test_a_ratio_by_hand() -> None:
    """Clicks 1, 0, 2 of impressions 2, 1, 3: R = 1/2; var(x) = 1, cov(x, y) = 1, var(y) = 1."""
    found = ratio.ratio(Moments.of([1, 0, 2], [2, 1, 3]))
    assert found.value == 0.5
    assert found.variance == pytest.approx((1 - 2 * 0.5 * 1 + 0.25 * 1) / (3 * 2**2))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 20)), min_size=4, max_size=40), st.integers(1, 3))
def test_moments_add_up(rows: list[tuple[int, int]], cut: int) -> None:
    whole, parts = Moments.of(*zip(*rows, strict=True)), [rows[:cut], rows[cut:]]
    one, other = (Moments.of(*zip(*part, strict=True)) for part in parts)
    both = one + other
    assert both.users == whole.users
    assert np.allclose(both.mean_V, whole.mean_V) and np.allclose(both.cov_VV, whole.cov_VV)


@pytest.mark.parametrize("seed", range(4))
def test_intervals_are_those_of_tea_tasting(seed: int) -> None:
    played = play(Habits(effect=0.1), users=3000, days=10, random=np.random.default_rng(seed))
    control, treated = played.arms(past=True)
    seen = played.impressions_UD.sum(axis=1) > 0
    table = pa.table(
        {
            "variant": played.treated_U[seen].astype(int),
            "clicks": played.clicks_UD.sum(axis=1)[seen],
            "shown": played.impressions_UD.sum(axis=1)[seen],
            "past_clicks": played.past_U2[seen, 0],
            "past_shown": played.past_U2[seen, 1],
        }
    )
    asked = {
        "plain": tea_tasting.RatioOfMeans("clicks", "shown", use_t=False),
        "cuped": tea_tasting.RatioOfMeans("clicks", "shown", "past_clicks", "past_shown", use_t=False),
    }
    theirs = tea_tasting.Experiment(**asked).analyze(table)
    ours = {"plain": ratio.effect(control, treated), "cuped": ratio.adjusted(control, treated)[0]}
    for name, effect in ours.items():
        their = theirs[name]
        assert effect.relative == pytest.approx(their.rel_effect_size, abs=1e-6)
        assert effect.absolute == pytest.approx(their.effect_size, rel=1e-4)
        low, high = effect.log_interval(Z)
        assert low == pytest.approx(their.rel_effect_size_ci_lower, abs=1e-4)
        assert high == pytest.approx(their.rel_effect_size_ci_upper, abs=1e-4)


def test_the_past_takes_variance_away_and_moves_nothing_on_average() -> None:
    random, plain, better, saved = np.random.default_rng(7), [], [], []
    for _ in range(60):
        arms = play(Habits(effect=0.2), users=2000, days=7, random=random).arms(past=True)
        plain.append(math.log1p(ratio.effect(*arms).relative))
        effect, share = ratio.adjusted(*arms)
        better.append(math.log1p(effect.relative))
        saved.append(share)
    assert np.mean(better) == pytest.approx(math.log(1.2), abs=3 * np.std(better) / math.sqrt(60))
    assert 1 - np.var(better) / np.var(plain) == pytest.approx(np.mean(saved), abs=0.15)
    assert np.mean(saved) > 0.5


def test_without_a_past_nothing_is_adjusted() -> None:
    control, treated = play(Habits(), users=500, days=5, random=np.random.default_rng(0)).arms()
    assert ratio.adjusted(control, treated) == (ratio.effect(control, treated), 0.0)
    nobody = Moments.of([1, 2, 1], [2, 2, 2], [0, 0, 0], [0, 0, 0])
    assert ratio.adjusted(nobody, nobody)[1] == 0.0


def test_fieller_and_logarithms_agree_where_much_is_known() -> None:
    control, treated = play(Habits(click_spread=50), users=60_000, days=14, random=np.random.default_rng(1)).arms()
    effect = ratio.effect(control, treated)
    assert effect.interval(Z) == pytest.approx(effect.log_interval(Z), abs=1e-3)
    assert ratio.Effect(ratio.Ratio(0.01, 1.0), ratio.Ratio(0.02, 1.0)).interval(Z) == (-1.0, math.inf)


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(1e-4, 0.2), st.floats(1e-4, 0.2), st.floats(0.1, 4))
def test_an_interval_leaves_out_0_where_the_statistic_says_so(a: float, b: float, va: float, vb: float, z: float) -> None:
    """And q is inside just where R_1 - q R_0 is within z errors of 0."""
    effect = ratio.Effect(ratio.Ratio(a, (va * a) ** 2), ratio.Ratio(b, (vb * b) ** 2))
    low, high = effect.interval(z)
    if high < math.inf:
        assert (low <= 0 <= high) == (abs(effect.z) <= z) or abs(abs(effect.z) - z) < 1e-6
        for q in (high, low) if low > -1 else (high,):
            away = (b - (1 + q) * a) / math.sqrt(effect.treated.variance + (1 + q) ** 2 * effect.control.variance)
            assert abs(away) == pytest.approx(z, rel=1e-4)


@pytest.mark.parametrize("arm", [Moments.of([], []), Moments.of([1], [2]), Moments.of([0, 0, 0], [1, 2, 3])])
def test_where_nothing_is_known_nothing_is_claimed(arm: Moments) -> None:
    other = Moments.of([1, 0, 2], [2, 1, 3])
    for pair in ((arm, other), (other, arm)):
        effect = ratio.effect(*pair)
        assert effect.interval(Z) == (-1.0, math.inf) and effect.z == 0 and effect.p == 1


def test_holm_by_hand_and_a_mismatch_by_hand() -> None:
    assert checks.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert checks.holm([]) == []
    # (5100 - 5000)^2 / 5000 * 2 = 4, chi-square with one degree of freedom.
    found = checks.mismatch({"a": 5100, "b": 4900}, {"a": 0.5, "b": 0.5})
    assert found.p == pytest.approx(0.0455, abs=1e-4) and not found.is_bad
    for counts in ([700, 300, 20], [33, 34, 35]):
        users = dict(zip("abc", counts, strict=True))
        theirs = chisquare(counts, [sum(counts) * share for share in (0.5, 0.3, 0.2)])
        assert checks.mismatch(users, {"a": 0.5, "b": 0.3, "c": 0.2}).p == pytest.approx(theirs.pvalue)
    assert checks.mismatch({"a": 5100}, {"a": 0.5, "b": 0.5}).is_bad
