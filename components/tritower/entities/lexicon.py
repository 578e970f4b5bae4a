"""The phrases the gazetteer knows, and how a single token is folded before it is looked up.

Built once per process from `tritower.vocabulary` (about 2 s); companies are added per dataset.
"""

import collections
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tritower import vocabulary
from tritower.entities.spelling import Speller

Key = tuple[str, ...]
_VENDORS = frozenset(
    ["adobe", "amazon", "apache", "apple", "atlassian", "autodesk", "esri", "google", "ibm", "intuit", "microsoft"]
)
_MAX_SKILL_TOKENS = 4
_COMMON = 8
"""Occurrences in titles and prose that make a word an ordinary one, which says little about a skill or an employer."""
_TITLES_AND_LEVELS = frozenset(
    (
        *(
            "aide",
            "apprentice",
            "assistant",
            "cadet",
            "director",
            "foreman",
            "general manager",
            "head",
            "helper",
            "intern",
            "leader",
        ),
        *("manager", "managing director", "president", "principal", "superintendent", "supervisor", "team leader", "trainee"),
        "vice president",
    )
)
"""Words for a level that are also a title on their own."""


class Meaning(NamedTuple):
    """What a phrase stands for."""

    label: str
    value: str


@dataclass(frozen=True)
class Lexicon:
    """Folded phrases with their meanings.

    `phrases` maps folded tokens to meanings, at most one per label. `heads` are tokens that end a title, `modifiers` tokens
    that occur inside titles before the head, `common` those that do so often. `needs_capitals` are short forms that are also
    words or state codes. `short` are one-word abbreviations by the word they stand for, `expansions` those of several words.
    """

    phrases: dict[Key, tuple[Meaning, ...]]
    heads: frozenset[str]
    modifiers: frozenset[str]
    needs_capitals: frozenset[str]
    common: frozenset[str]
    levels: dict[str, str]
    speller: Speller
    short: dict[str, str]
    expansions: dict[str, str]

    def fold(self, norm: str) -> str:
        """One normalised token as it stands in a key: slips mended, one-word abbreviations expanded, singular."""
        mended = self.speller.mend(norm)
        return vocabulary.singular(self.short.get(mended, mended))

    def value(self, words: Iterable[str]) -> str:
        """Folded words as a canonical phrase: abbreviations of several words written out."""
        return " ".join([self.expansions.get(word, word) for word in words])

    def key(self, text: str) -> Key:
        """The lookup key of a phrase."""
        return tuple([self.fold(word) for word in vocabulary.words(text)])


@functools.cache
def default() -> Lexicon:
    """The lexicon of the package's own vocabulary, without companies."""
    titles = _titles()
    counts = _word_counts(titles)
    mended = {slip: right for slip, right in vocabulary.misspellings().items() if " " not in slip + right}
    short = {
        abbreviation: expansions[0]
        for abbreviation, expansions in vocabulary.abbreviations().items()
        if all(" " not in expansion for expansion in expansions)
    }
    heads = frozenset(vocabulary.title_heads() | {title[0] for title in titles if len(title) == 1})
    titles = frozenset(title for title in titles if not heads.isdisjoint(title))
    lexicon = Lexicon(
        phrases={},
        heads=heads,
        modifiers=frozenset(_modifiers(titles)) - vocabulary.stop_words(),
        needs_capitals=_capitals(),
        common=_common(titles),
        levels={vocabulary.key(word): vocabulary.LEVELS[level] for word, level in vocabulary.seniorities()},
        speller=Speller(counts, mended),
        short=short,
        expansions={
            abbreviation: vocabulary.key(expansions[0])
            for abbreviation, expansions in vocabulary.abbreviations().items()
            if " " not in abbreviation and abbreviation not in short.keys() | _capitals() and len(abbreviation) >= 2
        },
    )
    found: dict[Key, dict[str, str]] = collections.defaultdict(dict)
    for phrase, meaning in _meanings(lexicon, titles):
        if phrase:
            found[phrase].setdefault(meaning.label, meaning.value)
    for slip, right in vocabulary.misspellings().items():
        if " " in slip:
            found[lexicon.key(slip)] = dict(found.get(lexicon.key(right), {}))
    lexicon.phrases.update(
        {phrase: tuple(Meaning(*item) for item in labels.items()) for phrase, labels in found.items() if labels}
    )
    return lexicon


def companies(lexicon: Lexicon, names: Iterable[str]) -> dict[Key, tuple[Meaning, ...]]:
    """Keys of employers, legal forms dropped; names of fewer than three letters are left out."""
    found: dict[Key, tuple[Meaning, ...]] = {}
    for name in names:
        value = vocabulary.employer_key(name)
        if len(value) >= 3:
            found.setdefault(lexicon.key(value), (Meaning("COMPANY", value),))
    return found


def _titles() -> frozenset[Key]:
    """The keys of the listed titles."""
    closed = [*vocabulary.employment_types(), *vocabulary.qualifications(), *(word for word, _ in vocabulary.seniorities())]
    places = [name for place in vocabulary.places("") for name in (place.city, place.region_name)]
    excluded = vocabulary.not_titles() | vocabulary.stop_words() | {vocabulary.key(text) for text in closed + places}
    excluded |= {vocabulary.key(name) for name in (*vocabulary.fields_of_work(), *vocabulary.tools())}
    excluded -= {word for word in excluded if word in _TITLES_AND_LEVELS}
    tables = (vocabulary.titles(), vocabulary.other_titles())
    keys = {vocabulary.key(title) for table in tables for title in table["title"].to_pylist()}
    return frozenset(tuple(key.split()) for key in keys - excluded if key)


@functools.cache
def _prose() -> collections.Counter[str]:
    """Words of running text about work, folded; they are known, so that no verb is taken for a misspelt noun."""
    counts: collections.Counter[str] = collections.Counter()
    for text in vocabulary.descriptions()["description"].to_pylist():
        words = vocabulary.normalise(text).split()
        counts.update(words)
        counts.update({vocabulary.singular(word) for word in words} - set(words))
    return counts


def _modifiers(titles: Iterable[Key]) -> collections.Counter[str]:
    return collections.Counter(word for title in titles for word in title[:-1])


def _common(titles: Iterable[Key]) -> frozenset[str]:
    counts = _modifiers(titles) + _prose()
    return frozenset(word for word, count in counts.items() if count >= _COMMON) | vocabulary.stop_words()


def _word_counts(titles: Iterable[Key]) -> dict[str, int]:
    counts = collections.Counter(word for title in titles for word in title)
    for skill in vocabulary.skills()["skill"].to_pylist():
        for word in vocabulary.key(skill).split():
            counts[word] += 1
    for place in vocabulary.places(""):
        counts.update(vocabulary.normalise(f"{place.city} {place.region_name}").split())
    counts.update(_prose())
    for phrase in [*vocabulary.employment_types(), *vocabulary.qualifications(), *vocabulary.stop_words()]:
        counts.update(vocabulary.normalise(phrase).split())
    return counts


def _capitals() -> frozenset[str]:
    """Two-letter short forms that are also a common word or a state: taken as a title only when written in capitals."""
    words = {
        "as",
        "am",
        "it",
        "is",
        "me",
        "or",
        "so",
        "us",
        "in",
        "ed",
        "le",
        "om",
        "po",
        "ip",
        "pr",
        "ml",
        "cv",
        "super",
        "sub",
        "para",
    }
    return frozenset(words | {code.lower() for code in vocabulary.regions()})


def _meanings(lexicon: Lexicon, titles: frozenset[Key]) -> Iterator[tuple[Key, Meaning]]:
    yield from _abbreviated(lexicon, titles)
    for title in sorted(titles):  # several titles can fold to one key: the order of a set must not choose
        words = tuple([lexicon.fold(word) for word in title])
        yield words, Meaning("TITLE", lexicon.value(words))
    table = vocabulary.titles()
    for title, short in zip(table["title"].to_pylist(), table["short"].to_pylist(), strict=True):
        if short and len(short) >= 3:
            yield lexicon.key(short), Meaning("TITLE", lexicon.value(lexicon.key(title)))
    yield from _skills(lexicon)
    for name in (*vocabulary.fields_of_work(), *vocabulary.tools()):
        yield lexicon.key(name), Meaning("SKILL", vocabulary.key(name))
    for company in vocabulary.companies():
        yield from ((phrase, meaning) for phrase, (meaning,) in companies(lexicon, [company]).items())
    for word, level in vocabulary.seniorities():
        yield lexicon.key(word), Meaning("SENIORITY", vocabulary.LEVELS[level])
    for word, value in vocabulary.employment_types().items():
        yield lexicon.key(word), Meaning("EMPLOYMENT", value)
    for word, value in vocabulary.qualifications().items():
        yield lexicon.key(word), Meaning("QUALIFICATION", value)
    for place in vocabulary.places(""):
        yield lexicon.key(place.city), Meaning("PLACE", vocabulary.normalise(place.city))
        yield lexicon.key(place.region_name), Meaning("PLACE", vocabulary.normalise(place.region_name))
    for code, name in vocabulary.regions().items():
        yield (code.lower(),), Meaning("PLACE", vocabulary.normalise(name))


def _abbreviated(lexicon: Lexicon, titles: frozenset[Key]) -> Iterator[tuple[Key, Meaning]]:
    """Short forms of whole titles ("rn"), and titles with a part cut short ("hr manager")."""
    parts: dict[Key, str] = {}
    for short, expansions in vocabulary.abbreviations().items():
        for expansion in expansions:
            key = tuple(vocabulary.key(expansion).split())
            if key in titles:
                yield lexicon.key(short), Meaning("TITLE", lexicon.value(lexicon.key(expansion)))
            if len(key) > 1 and " " not in short:
                parts.setdefault(key, short)
    longest = max(map(len, parts))
    for title in sorted(titles):
        for start in range(len(title) - 1):
            for end in range(start + 2, min(len(title), start + longest) + 1):
                if title[start:end] in parts and end - start < len(title):
                    value = lexicon.value([lexicon.fold(word) for word in title])
                    words = (*title[:start], parts[title[start:end]], *title[end:])
                    yield tuple(lexicon.fold(word) for word in words), Meaning("TITLE", value)


def _is_common(word: str, lexicon: Lexicon) -> bool:
    """Whether a one-word entry of the skill list is an ordinary word: it says too little then."""
    return len(word) < 3 or word in lexicon.common or word in lexicon.heads


def _skills(lexicon: Lexicon) -> Iterator[tuple[Key, Meaning]]:
    table = vocabulary.skills()
    for skill, hot, short in zip(*(table[name].to_pylist() for name in ("skill", "hot", "short")), strict=True):
        value = vocabulary.key(skill)
        words = value.split()
        if not words or len(words) > _MAX_SKILL_TOKENS or (len(words) == 1 and not hot and _is_common(value, lexicon)):
            continue
        yield lexicon.key(skill), Meaning("SKILL", value)
        if hot and len(words) > 1 and words[0] in _VENDORS:
            yield lexicon.key(" ".join(words[1:])), Meaning("SKILL", value)
        if short and len(short) >= 3:
            yield lexicon.key(short), Meaning("SKILL", value)
