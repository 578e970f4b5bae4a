"""What a visitor of the page reads of figures: chances, ages and reasons in plain words."""

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tritower.serving.messages import Reason

_MINUTE_US = 60_000_000
_UNITS = (
    (365 * 24 * 60, "year"),
    (30 * 24 * 60, "month"),
    (7 * 24 * 60, "week"),
    (24 * 60, "day"),
    (60, "hour"),
    (1, "minute"),
)
_LITTLE = math.log(1.05)
"""Groups that move the odds by less than a twentieth are not worth a word."""
_ORDINALS = {1: "st", 2: "nd", 3: "rd"}
_WORDS = {
    "you": ("your clicks", "you clicked and searched for similar jobs", "it is unlike what you clicked and searched for"),
    "words": ("words", "its words are those of the search", "it shares few words with the search"),
    "meaning": ("meaning", "it means what the search means", "it means something else than the search"),
    "entities": ("occupation and skills", "its occupation and skills fit", "its occupation or skills do not fit"),
    "place": ("place", "it is close to the place", "it is far from the place"),
    "popularity": ("popularity", "many who see it click it", "few who see it click it"),
    "time": ("time", "the advert is fresh", "the advert is not fresh"),
}
"""Group of features -> its name, what is said where it helps, and where it does not."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A reason as the page shows it.

    Attributes:
        name: of the group.
        words: a clause.
        odds: what it does to the odds of a click, such as `× 1.8`.
        tone: good, bad or empty where it matters little.
        start, width: of the bar, in percent of the drawing's width; the middle is no effect.
    """

    name: str
    words: str
    odds: str
    tone: str
    start: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A group's part of a job's profile, a drawing 24 high whose middle is no effect; `tone` as in `Told`."""

    tone: str
    top: float
    height: float


def chance(probability: float) -> str:
    """A probability in natural frequencies, which most people read right.

    >>> chance(0.31), chance(0.04), chance(0.0001)
    ('about 3 in 10 click it', 'about 1 in 25 clicks it', 'fewer than 1 in 100 click it')
    """
    if probability >= 0.95:
        return "nearly everybody clicks it"
    if probability >= 0.15:
        return f"about {max(2, round(10 * probability))} in 10 click it"
    return f"about 1 in {round(1 / probability)} clicks it" if probability >= 0.01 else "fewer than 1 in 100 click it"


def percent(probability: float) -> str:
    """Such as 31 %; below one, with a decimal."""
    return f"{100 * probability:.0f} %" if probability >= 0.01 else f"{100 * probability:.1f} %"


def age(posted_at: int | None, ts: int) -> str:
    """How old an advert is at a time, both in microseconds since 1970; empty where that is unknown.

    >>> age(0, 3 * 86_400_000_000), age(0, 30), age(None, 0)
    ('3 days old', 'new', '')
    """
    if posted_at is None:
        return ""
    minutes = (ts - posted_at) // _MINUTE_US
    for size, unit in _UNITS:
        if (count := minutes // size) >= (1 if unit != "week" else 2):
            return f"{count} {unit}{'s' if count > 1 else ''} old"
    return "new"


def ago(then: int, ts: int) -> str:
    """How long before a time something was."""
    told = age(then, ts)
    return "just now" if told == "new" else told.replace(" old", " ago")


def date(ts: int) -> str:
    """A day, such as 30 January 2026, of a time in microseconds since 1970."""
    day = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=ts)
    return f"{day.day} {day:%B %Y}"


def ordinal(number: int) -> str:
    """
    >>> [ordinal(n) for n in (1, 2, 3, 11, 21, 112)]
    ['1st', '2nd', '3rd', '11th', '21st', '112th']
    """
    return f"{number}{'th' if 10 < number % 100 < 14 else _ORDINALS.get(number % 10, 'th')}"


def because(reasons: Sequence[Reason]) -> str:
    """The one or two reasons that lift a job most, as the end of a sentence; empty where none does."""
    lifting = [_WORDS[one.group][1] for one in _by_value(reasons) if one.value >= _LITTLE and one.group in _WORDS]
    return " and ".join(lifting[:2])


def told(reasons: Sequence[Reason], largest: float) -> list[Told]:
    """All reasons for the page, what lifts the job most first.

    Args:
        reasons: of one job.
        largest: the magnitude that fills half of the bar's width.
    """
    out = []
    for one in _by_value(reasons):
        name, good, bad = _WORDS.get(one.group, (one.group.replace("_", " "), "it helps", "it does not help"))
        tone = _tone(one.value)
        words = {"": "it matters little here", "good": good, "bad": bad}[tone]
        half = 50 * min(1.0, abs(one.value) / largest) if largest > 0 else 0.0
        start = 50.0 if one.value >= 0 else 50 - half
        out.append(Told(name=name, words=words, odds=_odds(one.value), tone=tone, start=round(start, 1), width=round(half, 1)))
    return out


def profile(reasons: Sequence[Reason], largest: float) -> list[Bar]:
    """A small bar for each group, in the same order for every job; see `told`."""
    out = []
    for one in sorted(reasons, key=lambda one: list(_WORDS).index(one.group) if one.group in _WORDS else len(_WORDS)):
        height = max(1.0, 12 * min(1.0, abs(one.value) / largest)) if largest > 0 else 1.0
        out.append(Bar(tone=_tone(one.value), top=round(12 - height if one.value > 0 else 12, 1), height=round(height, 1)))
    return out


def _tone(value: float) -> str:
    return "" if abs(value) < _LITTLE else "good" if value > 0 else "bad"


def _by_value(reasons: Sequence[Reason]) -> list[Reason]:
    return sorted(reasons, key=lambda one: -one.value)


def _odds(value: float) -> str:
    """Such as × 1.8 or ÷ 2.5."""
    if abs(value) < _LITTLE:
        return "≈ 1"
    return f"{'×' if value >= 0 else '÷'} {math.exp(min(abs(value), 20)):.{1 if abs(value) < 2.3 else 0}f}"
