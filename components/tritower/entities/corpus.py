"""Synthetic training texts whose entities are known because they were put together from the vocabulary.

A pattern such as "{title} - {skill} - {city}, {state}" is filled from the vocabulary; the filled slots are the entities. Case,
slips of the keyboard and abbreviations are varied, so that the model sees what people type. Same seed, same texts.
"""

import functools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import NamedTuple

from tritower import vocabulary
from tritower.entities import lexicon
from tritower.entities.gazetteer import Gazetteer
from tritower.entities.spans import Span

_SLOT = re.compile(r"\{(\w+)\}")
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_STYLES = {"title": 0.4, "query": 0.4, "sentence": 0.1, "description": 0.1}
_LABELS = {
    "title": "TITLE", "short": "TITLE", "skill": "SKILL", "level": "SENIORITY", "grade": "SENIORITY", "city": "PLACE",
    "state": "PLACE", "company": "COMPANY", "employment": "EMPLOYMENT", "qualification": "QUALIFICATION",
}  # fmt: skip
_LEVELS = (
    *(
        "senior",
        "senior",
        "senior",
        "sr",
        "sr.",
        "Sr",
        "Sr.",
        "snr",
        "junior",
        "junior",
        "jr",
        "jr.",
        "lead",
        "lead",
        "principal",
    ),
    *("entry level", "entry-level", "entry level", "graduate", "trainee", "apprentice", "intern", "internship", "new grad"),
    *(
        "principal",
        "mid level",
        "mid-level",
        "intermediate",
        "experienced",
        "associate level",
        "journeyman",
        "advanced",
        "staff",
    ),
)
_COMMON_EMPLOYMENT = (
    *(
        "full time",
        "full-time",
        "part time",
        "part-time",
        "PT",
        "FT",
        "remote",
        "work from home",
        "temporary",
        "temp",
        "contract",
    ),
    *(
        "seasonal",
        "summer",
        "per diem",
        "PRN",
        "nights",
        "night shift",
        "days",
        "day shift",
        "evenings",
        "weekends",
        "overnight",
    ),
    *("contract", "overnight", "1st shift", "2nd shift", "3rd shift", "casual", "hybrid", "permanent"),
)
_COMPANY_ENDINGS = (
    *("Foods", "Health", "Health System", "Medical Center", "Staffing", "Logistics", "Group", "Industries", "Partners", "Bank"),
    *("Technologies", "Solutions", "Construction", "Motors", "Hospital", "Inn", "Grill", "Electric", "Realty", "Insurance"),
    *("& Sons", "Associates", "Academy", "Services", "Farms", "Energy", "Markets", "Stores", "Labs", "Systems"),
)
_GRADES = ("I", "II", "III", "IV", "1", "2", "3", "Level 2", "Tier 1", "Tier 2")


class Annotated(NamedTuple):
    """A text and its entities, in reading order, not overlapping; values are empty."""

    text: str
    spans: tuple[Span, ...]


class Fillers(NamedTuple):
    """What may stand in each slot, and short forms by the phrase they stand for."""

    choices: dict[str, tuple[str, ...]]
    surnames: tuple[str, ...]
    short_by_phrase: dict[str, tuple[str, ...]]


def texts(count: int, seed: int) -> Iterator[Annotated]:
    """`count` annotated texts in the styles of adverts, queries and advert sentences."""
    chance = random.Random(seed)
    fillers, patterns = _fillers(), _patterns()
    for _ in range(count):
        (style,) = chance.choices(list(_STYLES), list(_STYLES.values()))
        if style == "description":
            yield chance.choice(_described())
            continue
        pattern = chance.choices(*patterns[style])[0]
        yield _vary(_fill(pattern, fillers, chance), style, chance)


def _fill(pattern: str, fillers: Fillers, chance: random.Random) -> Annotated:
    text, position = "", 0
    spans: list[Span] = []
    for slot in _SLOT.finditer(pattern):
        text += pattern[position : slot.start()]
        position = slot.end()
        for label, part in _part(slot[1], fillers, chance):
            text += " " if text and spans and spans[-1].end == len(text) else ""
            if label:
                spans.append(Span(len(text), len(text) + len(part), label, ""))
            text += part
    return Annotated(text + pattern[position:], tuple(spans))


@functools.cache
def _described() -> tuple[Annotated, ...]:
    """Sentences about occupations, labelled by the gazetteer: they teach that most words of running text are no entity."""
    texts = vocabulary.descriptions()["description"].to_pylist()
    sentences = sorted({s for text in texts for s in re.findall(r"[^.]+\.", text) if 20 < len(s) < 250})
    sentences = [sentence.strip() for sentence in sentences]
    found = Gazetteer(lexicon.default()).find(sentences)
    return tuple(Annotated(text, tuple(s for s in spans if not s.inner)) for text, spans in zip(sentences, found, strict=True))


def _part(slot: str, fillers: Fillers, chance: random.Random) -> list[tuple[str, str]]:
    if slot == "title":
        return _title(fillers, chance)
    if slot == "company" and chance.random() < 0.5:
        return [("COMPANY", _invented_company(fillers, chance))]
    words = chance.choice(fillers.choices[slot])
    if slot in ("skill", "employment", "level") and chance.random() < 0.5:
        words = words.title()
    return [(_LABELS.get(slot, ""), words)]


def _title(fillers: Fillers, chance: random.Random) -> list[tuple[str, str]]:
    """A title, with a level in front split off; sometimes one that no list has: a modifier before a listed title."""
    title = chance.choice(fillers.choices["title" if chance.random() < 0.6 else "reported"])
    words = title.split()
    if len(words) <= 3 and chance.random() < 0.12:
        other = chance.choice(fillers.choices["title"]).split()
        words = [other[0], *words] if len(other) > 1 and "," not in other[0] else words
    if chance.random() < 0.25:
        words = _shortened(words, fillers, chance).split()
    if chance.random() < 0.06:
        words = _plural(words)
    level = vocabulary.key(words[0])
    if len(words) > 1 and level in ("senior", "junior", "lead", "principal", "entry level") and words[1].lower() != "living":
        return [("SENIORITY", words[0]), ("TITLE", " ".join(words[1:]))]
    return [("TITLE", " ".join(words))]


def _shortened(words: Sequence[str], fillers: Fillers, chance: random.Random) -> str:
    for width in range(len(words), 0, -1):
        for start in range(len(words) - width + 1):
            shorts = fillers.short_by_phrase.get(vocabulary.key(" ".join(words[start : start + width])))
            if shorts:
                short = chance.choice(shorts)
                short = short.upper() if len(short) <= 3 and width > 1 else short.capitalize()
                return " ".join([*words[:start], short, *words[start + width :]])
    return " ".join(words)


def _plural(words: Sequence[str]) -> list[str]:
    last = words[-1]
    ends = last[-1:].lower() == "s" or not last.isalpha()
    return [*words[:-1], last if ends else last[:-1] + "ies" if last.lower().endswith("ry") else last + "s"]


def _invented_company(fillers: Fillers, chance: random.Random) -> str:
    kind = chance.choice(_COMPANY_ENDINGS)
    ending = chance.choice(["", "", "", " Inc", " Inc.", ", LLC", " LLC", " Corp", " Co."])
    return f"{chance.choice(fillers.surnames)} {kind}{ending}"


def _vary(annotated: Annotated, style: str, chance: random.Random) -> Annotated:
    """Case and slips. A slip changes a word's length, so that the spans behind it move along."""
    slip_rate = {"title": 0.015, "query": 0.06, "sentence": 0.0}[style]
    case = _case(style, chance)
    pieces: list[str] = []
    spans = list(annotated.spans)
    position = moved = 0
    for word in re.finditer(r"\S+", annotated.text):
        pieces.append(annotated.text[position : word.start()])
        written = word[0]
        if written.isalpha() and len(written) >= 4 and chance.random() < slip_rate:
            written = _slip(written, chance)
        pieces.append(case(written))
        by = len(written) - len(word[0])
        if by:
            here = word.start() + moved
            spans = [s._replace(start=s.start + by * (s.start > here), end=s.end + by * (s.end > here)) for s in spans]
            moved += by
        position = word.end()
    return Annotated("".join(pieces) + annotated.text[position:], tuple(spans))


def _case(style: str, chance: random.Random) -> Callable[[str], str]:
    draw = chance.random()
    if style == "query":
        return str.lower if draw < 0.85 else str
    if style == "title":
        if draw < 0.07:
            return _upper
        return str.lower if draw < 0.12 else _capital if draw < 0.8 else str
    return str


def _upper(word: str) -> str:
    return word.upper() if len(word.upper()) == len(word) else word


def _capital(word: str) -> str:
    return (
        word[0].upper() + word[1:]
        if word[0].islower() and word not in ("and", "of", "the", "in", "or", "to", "w/", "at")
        else word
    )


def _slip(word: str, chance: random.Random) -> str:
    """One slip of the keyboard, never at the first letter: swap, drop, double or a neighbouring key."""
    i = chance.randrange(1, len(word) - 1)
    kind = chance.randrange(4)
    if kind == 0:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if kind == 1:
        return word[:i] + word[i + 1 :]
    if kind == 2:
        return word[: i + 1] + word[i:]
    row = next((row for row in _KEYBOARD if word[i].lower() in row), "ab")
    at = row.find(word[i].lower())
    return word[:i] + row[max(0, at - 1) if at else 1] + word[i + 1 :]


@functools.cache
def _fillers() -> Fillers:
    titles = _sorted_titles(vocabulary.titles()["title"].to_pylist() + vocabulary.other_titles()["title"].to_pylist())
    rows = vocabulary.titles().to_pylist()
    reported = _sorted_titles([row["title"] for row in rows if row["kind"] == "reported"])
    codes = vocabulary.abbreviations()
    phrases: dict[str, list[str]] = {}
    for short, expansions in codes.items():
        phrases.setdefault(vocabulary.key(expansions[0]), []).append(short)
    listed = {vocabulary.key(title) for title in titles}
    shorts = [short for short, expansions in codes.items() if vocabulary.key(expansions[0]) in listed]
    choices = {
        "title": titles,
        "reported": reported,
        "short": tuple([short.upper() for short in shorts if " " not in short] + [short for short in shorts if " " in short]),
        "skill": _skill_names(),
        "level": _LEVELS,
        "grade": _GRADES,
        "city": tuple(place.city for place in vocabulary.places("")),
        "state": tuple(vocabulary.regions()),
        "company": vocabulary.companies(),
        "employment": (*vocabulary.employment_types(), *_COMMON_EMPLOYMENT * 10),
        "qualification": _qualifications(),
        "noise": _lines("noise.txt"),
    }
    surnames = tuple(
        sorted({place.city.split()[-1] for place in vocabulary.places("")} | {"Smith", "Miller", "Garcia", "Nguyen"})
    )
    return Fillers(choices, surnames, {phrase: tuple(found) for phrase, found in phrases.items()})


def _sorted_titles(titles: Sequence[str]) -> tuple[str, ...]:
    excluded = vocabulary.not_titles()
    kept = {t for t in titles if len(t.split()) <= 5 and "," not in t and vocabulary.key(t) not in excluded and len(t) > 2}
    return tuple(sorted(kept))


def _skill_names() -> tuple[str, ...]:
    """Skills of up to three words; those asked for most, and fields of work, ten times."""
    words = lexicon.default()
    names: list[str] = []
    for row in vocabulary.skills().to_pylist():
        name = row["skill"]
        if len(name.split()) > 3 or len(name) < 2 or vocabulary.key(name) in words.heads:
            continue
        names += [name] * (10 if row["hot"] else 1)
        names += [row["short"]] * (5 if row["hot"] and row["short"] else 0)
    return tuple(names + list(vocabulary.fields_of_work()) * 20)


def _qualifications() -> tuple[str, ...]:
    return tuple(phrase.upper() if len(phrase) <= 4 else phrase for phrase in vocabulary.qualifications())


def _patterns() -> dict[str, tuple[list[str], list[int]]]:
    found: dict[str, tuple[list[str], list[int]]] = {style: ([], []) for style in _STYLES}
    for line in _lines("patterns.txt"):
        style, weight, pattern = line.split("|", 2)
        found[style][0].append(pattern)
        found[style][1].append(int(weight))
    return found


def _lines(name: str) -> tuple[str, ...]:
    text = resources.files(__package__).joinpath("data", name).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("# "))
