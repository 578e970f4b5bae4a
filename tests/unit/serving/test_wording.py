"""Figures in plain words."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritower.serving import wording
from tritower.serving.messages import Reason

MINUTE = 60_000_000


@pytest.mark.parametrize(
    ("probability", "words", "percent"),
    [
        (0.97, "nearly everybody clicks it", "97 %"),
        (0.62, "about 6 in 10 click it", "62 %"),
        (0.15, "about 2 in 10 click it", "15 %"),
        (0.125, "about 1 in 8 clicks it", "12 %"),
        (0.01, "about 1 in 100 clicks it", "1 %"),
        (0.002, "fewer than 1 in 100 click it", "0.2 %"),
    ],
)
def test_a_chance_is_told_as_a_frequency(probability: float, words: str, percent: str) -> None:
    assert wording.chance(probability) == words
    assert wording.percent(probability) == percent


@given(st.floats(0, 1))
def test_a_frequency_is_near_its_probability(probability: float) -> None:
    words = wording.chance(probability)
    told = [int(word) for word in words.split() if word.isdigit()]
    if not words.startswith("about"):
        assert probability < 0.01 or probability >= 0.95
        return
    assert told[0] / told[1] == pytest.approx(probability, abs=0.051)


@pytest.mark.parametrize(
    ("minutes", "told", "ago"),
    [
        (-5, "new", "just now"),
        (0, "new", "just now"),
        (1, "1 minute old", "1 minute ago"),
        (59, "59 minutes old", "59 minutes ago"),
        (60 * 30, "1 day old", "1 day ago"),
        (60 * 24 * 13, "13 days old", "13 days ago"),
        (60 * 24 * 15, "2 weeks old", "2 weeks ago"),
        (60 * 24 * 31, "1 month old", "1 month ago"),
        (60 * 24 * 800, "2 years old", "2 years ago"),
    ],
)
def test_an_age_is_told_in_the_largest_unit_that_fits(minutes: int, told: str, ago: str) -> None:
    now = 1_700_000_000_000_000
    assert wording.age(now - minutes * MINUTE, now) == told
    assert wording.ago(now - minutes * MINUTE, now) == ago
    assert wording.age(None, now) == ""


def test_reasons_are_told_from_what_lifts_most() -> None:
    reasons = [
        Reason(group="place", value=-math.log(2)),
        Reason(group="meaning", value=math.log(4)),
        Reason(group="you", value=0.1),
    ]
    reasons += [Reason(group="words", value=0.04), Reason(group="of_its_own", value=0.3)]
    assert wording.because(reasons) == "it means what the search means and you clicked and searched for similar jobs"
    told = wording.told(reasons, math.log(4))
    assert [(one.name, one.odds, one.tone) for one in told] == [
        ("meaning", "× 4.0", "good"),
        ("of its own", "× 1.3", "good"),
        ("your clicks", "× 1.1", "good"),
        ("words", "≈ 1", ""),
        ("place", "÷ 2.0", "bad"),
    ]
    assert (told[0].start, told[0].width) == (50, 50)
    assert (told[-1].start, told[-1].width) == (25, 25)
    assert told[-1].words == "it is far from the place" and told[3].words == "it matters little here"
    assert wording.because([]) == "" and wording.told([], 0.0) == []
    bars = wording.profile(reasons, math.log(4))
    assert [bar.tone for bar in bars] == ["good", "", "good", "bad", "good"]  # in one order for every job
    assert (bars[2].top, bars[2].height) == (0, 12) and (bars[3].top, bars[3].height) == (12, 6)
