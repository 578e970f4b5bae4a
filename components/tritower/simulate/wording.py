"""How titles, searches and profiles are written."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tritower.simulate import lexicon, people
from tritower.simulate.config import SimulateConfig
from tritower.simulate.lexicon import Lexicon
from tritower.simulate.market import Companies
from tritower.simulate.people import Wishes
from tritower.simulate.world import Jobs, Requests, Users
from tritower.vocabulary import Place

LEVELS = (
    ("Intern", "Trainee", "Apprentice"),
    ("Junior", "Jr", "Entry Level", "Jr."),
    ("II", "Experienced"),
    ("Senior", "Sr", "Sr.", "III"),
    ("Lead", "Principal", "Supervisor"),
)
_AFTER = frozenset(("II", "III", "Intern", "Trainee", "Apprentice", "Supervisor"))
_LEVEL_SHOWN = (0.85, 0.55, 0.08, 0.7, 0.75)
VAGUE = (
    "part time", "full time", "work from home", "remote", "no experience", "entry level", "hiring immediately", "night shift",
    "weekend", "warehouse", "office", "healthcare", "driver", "manager", "seasonal", "student", "any", "general labor",
)  # fmt: skip
_NOISE = (
    "- Full Time", "(Part-Time)", "- Night Shift", "- 2nd Shift", "- Hiring Now!", "- Urgently Hiring",
    "- Sign On Bonus", "- Weekends", "- $18/hr", "- $22.50 per hour", "- Immediate Start", "(Contract)",
    "- PRN", "- Temp to Hire",
)  # fmt: skip
_NEEDS = (
    "You work well in a team.", "A valid driver's license is needed.", "Two years in a similar role are a plus.",
    "We train you.",
    "Weekend shifts are part of the job.", "You like to keep things in order.", "Background check required.",
    "Bilingual preferred.",
)  # fmt: skip
# From the least to the most appealing.
_PROMISES = (
    "Pay by commission only.", "On call, no fixed hours.", "Pay on a daily basis.", "Pay depends on experience.",
    "Steady hours.", "Competitive pay.", "Paid time off.", "Health insurance and paid time off.",
    "Sign-on bonus, insurance and 401(k).",
    "Top pay, four-day week, full benefits.",
)  # fmt: skip
_KEYS = {
    "a": "s",
    "e": "r",
    "i": "o",
    "o": "p",
    "r": "t",
    "n": "m",
    "t": "y",
    "s": "d",
    "l": "k",
    "c": "v",
    "m": "n",
    "g": "h",
    "u": "y",
}


def with_level(title: str, level: int, choice: int) -> str:
    """A title with a word of seniority before or after it."""
    word = LEVELS[level][choice % len(LEVELS[level])]
    return f"{title} {word}" if word in _AFTER else f"{word} {title}"


def typo(text: str, u: float) -> str:
    """One slip of the keyboard in the longest word: a letter doubled, dropped, swapped with the next, or a neighbour's."""
    word = max(text.split(), key=len, default="")
    if len(word) < 4:
        return text
    kinds = 4
    at = 1 + int(u * 997) % (len(word) - 2)
    kind = int(u * kinds)
    letter, following = word[at], word[at + 1]
    changed = (letter + letter + following, following, following + letter, _KEYS.get(letter.lower(), letter + "e") + following)[
        kind
    ]
    return text.replace(word, word[:at] + changed + word[at + 2 :], 1)


def job_titles(config: SimulateConfig, words: Lexicon, jobs: Jobs, cities: list[Place], rng: np.random.Generator) -> list[str]:
    """Titles as advertised: the variant, or its short form, with level, requisition noise and sometimes the place."""
    count = len(jobs.variant)
    u = rng.random((count, 5))
    pick = rng.integers(1 << 30, size=(count, 2))
    result = []
    for i in range(count):
        variant = jobs.variant[i]
        text = words.titles[variant]
        if words.shorts[variant] and u[i, 0] < 0.3:
            text = (
                words.shorts[variant] if u[i, 4] < 0.6 or " " in words.shorts[variant] else f"{text} ({words.shorts[variant]})"
            )
        if u[i, 1] < _LEVEL_SHOWN[jobs.seniority[i]]:
            text = with_level(text, int(jobs.seniority[i]), int(pick[i, 0]))
        if jobs.remote[i] and u[i, 4] < 0.7:
            text += " (Remote)"
        if u[i, 2] < config.title_noise:
            kind = int(pick[i, 1] % (len(_NOISE) + 4))
            city = cities[jobs.city[i]]
            text += (
                f" {_NOISE[kind]}"
                if kind < len(_NOISE)
                else (
                    f" #{10_000 + pick[i, 0] % 90_000}",
                    f" - {city.city}, {city.region}",
                    " - Req " + str(pick[i, 0] % 9_999),
                    f" {city.city}",
                )[kind - len(_NOISE)]
            )
        result.append(text.upper() if u[i, 3] < 0.04 else text)
    return result


def descriptions(words: Lexicon, jobs: Jobs, rng: np.random.Generator) -> list[str | None]:
    """A line or two per advert; what it promises goes with the job's appeal. One in ten has none."""
    count = len(jobs.variant)
    pick = rng.integers(1 << 30, size=(count, 3))
    mood = jobs.appeal + rng.normal(0, 0.5, count)
    result: list[str | None] = []
    for i in range(count):
        promise = _PROMISES[int(np.clip(np.floor((mood[i] + 2) / 4 * len(_PROMISES)), 0, len(_PROMISES) - 1))]
        need = _NEEDS[pick[i, 0] % len(_NEEDS)]
        text = f"We are hiring: {words.titles[jobs.variant[i]].lower()}. {need} {promise}"
        result.append(None if pick[i, 1] % 10 == 0 else text)
    return result


def queries(
    config: SimulateConfig,
    words: Lexicon,
    requests: Requests,
    wishes: Wishes,
    seekers: Users,
    cities: list[Place],
    firms: Companies,
    rng: np.random.Generator,
) -> tuple[list[str], NDArray[np.int32], NDArray[np.bool_]]:
    """Every distinct search text, the text of each request, and whether it names what is wanted."""
    count = len(requests.user)
    u = rng.random((count, 6))
    # A user repeats the same text within a visit: the draws belong to (visit, variant), not to the request.
    _, first, group = np.unique(
        wishes.session.astype(np.int64) * 1_000_003 + requests.variant, return_index=True, return_inverse=True
    )
    u = u[first][group]
    favourite = rng.permutation(len(firms.names))
    numbers: dict[str, int] = {}
    query = np.empty(count, np.int32)
    meant = np.ones(count, np.bool_)
    for i in range(count):
        text, meant[i] = _query(config, words, int(requests.variant[i]), u[i])
        if meant[i]:
            text = _dress(config, text, u[i], seekers.seniority[requests.user[i]], cities[requests.city[i]], firms, favourite)
        query[i] = numbers.setdefault(text, len(numbers))
    return list(numbers), query, meant


def _query(config: SimulateConfig, words: Lexicon, variant: int, u: NDArray[np.float64]) -> tuple[str, bool]:
    if u[0] < config.empty_share:
        return "", False
    if u[0] < config.empty_share + config.vague_share:
        return VAGUE[int(u[1] * len(VAGUE))], False
    title, short = words.titles[variant], words.shorts[variant]
    if short and u[1] < config.abbreviation_share:
        return short, True
    if u[2] < 0.08:
        return title.split()[-1], True
    return title, True


def _dress(
    config: SimulateConfig,
    text: str,
    u: NDArray[np.float64],
    seniority: float,
    city: Place,
    firms: Companies,
    favourite: NDArray[Any],
) -> str:
    level = round(float(seniority))
    if u[2] > 0.88 and level != 2:
        text = with_level(text, level, int(u[1] * 1e6))
    text = text if u[3] < 0.2 else text.lower()
    if u[4] < config.typo_share:
        text = typo(text, u[4] / config.typo_share)
    end = u[5]
    if end < 0.06:
        return f"{text} {city.city.lower()}"
    if end < 0.09:
        return f"{text} in {city.city} {city.region}"
    if end < 0.17:
        return f"{text} jobs"
    if end < 0.20:
        return f"{text} near me"
    if end < 0.23:
        return f"{text} {('part time', 'full time', 'remote')[int(u[4] * 3)]}"
    if end < 0.25:
        return f"{text} {firms.names[favourite[int(u[1] ** 3 * len(favourite))]]}"
    return text


def profiles(
    config: SimulateConfig, words: Lexicon, seekers: Users, cities: list[Place], rng: np.random.Generator
) -> dict[str, pa.Array]:
    """The users table's columns after `user_id`: wanted and past titles, partly missing, and the home."""
    count = len(seekers.city)
    columns: dict[str, pa.Array] = {}
    for name, most, stray in (("interests", 3, 0.25), ("past_titles", 4, 0.4)):
        size = 1 + rng.integers(most, size=count)
        size[rng.random(count) < config.profile_missing] = 0
        who = np.repeat(np.arange(count), size)
        occupation = np.where(
            rng.random(len(who)) < config.side_intent, seekers.second_career[who], seekers.career[who]
        ).astype(np.int32)
        strays = rng.random(len(who)) < stray
        occupation[strays] = people.step_to_related(words.relatedness_OO, occupation[strays], rng.random(int(strays.sum())))
        variant = lexicon.draw(words.seeker_cumulative_V, words.variant_start_O1, occupation, rng.random(len(who)))
        text = [
            words.titles[v] if x < 0.6 else words.titles[v].lower() for v, x in zip(variant, rng.random(len(who)), strict=True)
        ]
        offsets = pa.array(np.r_[0, np.cumsum(size)].astype(np.int32))
        lists = pa.ListArray.from_arrays(offsets, pa.array(text, pa.string()), mask=pa.array(size == 0))
        columns[name] = lists
    hidden = rng.random(count) < 0.05
    for name, text in (
        ("city", [p.city for p in cities]),
        ("region", [p.region for p in cities]),
        ("country", [p.country for p in cities]),
    ):
        columns[name] = pa.array(np.array(text, object)[seekers.city], pa.string(), mask=hidden)
    return columns
