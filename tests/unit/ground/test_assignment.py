"""Assignment: even, independent between salts, stable under a ramp; values that another language must find again."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2, chi2_contingency, kstest
from tritower.assignment import Arm, Experiment, fraction
from tritower.errors import ConfigError

UNITS = [f"user-{number}" for number in range(40_000)]
GOLDEN = [0.5484941802237421, 0.46869182936359, 0.5818916442384907, 0.8634285306595876]
GOLDEN_ARMS = "bcaacccaabcccbbbcccbccccccaccc"
PAIR = (Arm(name="main"), Arm(name="other"))


def test_golden_values() -> None:
    """By hand: blake2b with 8 bytes of digest, its upper 53 bits as a fraction."""
    assert fraction("u1", "salt") == int(hashlib.blake2b(b"salt\0u1", digest_size=8).hexdigest(), 16) // 2**11 / 2**53
    assert [fraction(*pair) for pair in (("u1", "salt"), ("u2", "salt"), ("", ""), ("Zoë", "été"))] == GOLDEN
    three = Experiment(name="x", arms=(Arm(name="a", share=0.2), Arm(name="b", share=0.3), Arm(name="c", share=0.5)))
    assert "".join(three.assign(f"u{number}").arm for number in range(30)) == GOLDEN_ARMS


def test_fractions_are_even() -> None:
    drawn = np.array([fraction(unit, "one") for unit in UNITS])
    assert drawn.min() >= 0 and drawn.max() < 1
    assert kstest(drawn, "uniform").pvalue > 0.001
    counts = np.bincount((drawn * 1_000).astype(int), minlength=1_000)
    assert chi2.sf(((counts - 40) ** 2 / 40).sum(), 999) > 0.001


def test_salts_are_independent() -> None:
    one, two = (np.array([fraction(unit, salt) for unit in UNITS]) for salt in ("one", "two"))
    table = np.histogram2d(one, two, bins=20)[0]
    assert chi2_contingency(table).pvalue > 0.001
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(len(UNITS))


def test_where_salt_ends_and_unit_begins_is_no_matter_of_taste() -> None:
    assert fraction("bc", "a") != fraction("c", "ab")
    with pytest.raises(ConfigError, match="zero byte"):
        fraction("b", "a\0")


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.1, 0.9), (0.2, 0.3, 0.5)])
def test_arms_get_their_shares(shares: tuple[float, ...]) -> None:
    arms = tuple(Arm(name=str(number), share=share) for number, share in enumerate(shares))
    found = Counter(Experiment(name="x", arms=arms).assign(unit).arm for unit in UNITS)
    statistic = sum((found[str(i)] - share * len(UNITS)) ** 2 / (share * len(UNITS)) for i, share in enumerate(shares))
    assert chi2.sf(statistic, len(shares) - 1) > 0.001


def test_a_ramp_moves_nobody_back() -> None:
    before: dict[str, str] = {}
    for share in (0.0, 0.01, 0.1, 0.5, 1.0):
        ramped = Experiment(name="x", arms=PAIR, share=share, slice_start=0.2, slice_stop=0.9, holdout=0.1)
        now = {unit: ramped.assign(unit).arm for unit in UNITS[:10_000]}
        assert all(now[unit] == arm for unit, arm in before.items() if arm)
        taking_part = sum(map(bool, now.values())) / 10_000
        assert taking_part == pytest.approx(0.9 * 0.7 * share, abs=0.02)
        before = now


def test_slices_of_a_layer_share_nobody_and_layers_overlap() -> None:
    left = Experiment(name="left", arms=PAIR, slice_stop=0.5)
    right = Experiment(name="right", arms=PAIR, slice_start=0.5)
    beside = Experiment(name="beside", arms=PAIR, layer="second")
    arms = [[one.assign(unit).arm for unit in UNITS[:10_000]] for one in (left, right, beside)]
    assert all(bool(a) != bool(b) for a, b in zip(*arms[:2], strict=True)), "each in one, none in both"
    pairs = Counter((a, c) for a, c in zip(arms[0], arms[2], strict=True) if a)
    assert chi2_contingency([[pairs[a, c] for c in ("main", "other")] for a in ("main", "other")]).pvalue > 0.001


def test_the_held_out_are_the_same_for_all_and_nobody_has_no_arm() -> None:
    one, two = (Experiment(name=name, arms=PAIR, layer=name, holdout=0.05) for name in ("one", "two"))
    out = [{unit for unit in UNITS[:10_000] if x.assign(unit).why == "holdout"} for x in (one, two)]
    assert out[0] == out[1] and len(out[0]) == pytest.approx(500, abs=100)
    assert (one.assign("").arm, one.assign("").why) == ("", "no unit")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"arms": PAIR[:1]}, "arms"),
        ({"arms": (Arm(name="a", share=0.5), Arm(name="a", share=0.5))}, "name of its own"),
        ({"arms": (Arm(name="a", share=0.5), Arm(name="b", share=0.6))}, "sum to 1"),
        ({"slice_start": 0.6, "slice_stop": 0.5}, "slice"),
        ({"share": 1.5}, "share"),
        ({"holdout": 1.0}, "holdout"),
    ],
)
def test_bad_experiments_are_refused(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Experiment(**{"name": "x", "arms": PAIR} | knobs)  # type: ignore[arg-type]
