"""The words of the market: occupations, how related they are, and the many titles each of them goes by.

Legend: O occupations, V title variants, D dimensions of a speciality vector.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tritower.simulate import employment

SPECIALITY_DIM = 16
_PLAIN = re.compile(r"^[A-Za-z][A-Za-z0-9 /&.+#'\-]*$")
_WORD = re.compile(r"[a-z0-9+#]+")
_STOP = frozenset(
    ("a", "an", "and", "at", "for", "in", "near", "me", "of", "on", "or", "the", "to", "with", "job", "jobs", "i", "ii", "iii")
)
_FEWEST = 6  # titles of an occupation
# How usual titles of one to four words are.
_LENGTHS = (0.4, 1.0, 0.8, 0.3)
# Likeness of two occupations that share a level of the Standard Occupational Classification (SOC 2018), finest first:
# (characters of the code in common, likeness).
_LEVELS = ((7, 0.85), (6, 0.7), (4, 0.4), (2, 0.12))


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Occupations chosen for one market.

    `variant_start_O1` (O + 1) cuts the variants by occupation. `seeker_cumulative_V` and `employer_cumulative_V` hold, for
    variant v of occupation o, o plus the cumulative share of the variants up to v, so that one `searchsorted` draws variants of
    many occupations at once. `speciality_VD` has unit rows; titles that share words have like rows.
    """

    codes: list[str]
    names: list[str]
    weight_O: NDArray[np.float64]
    relatedness_OO: NDArray[np.float32]
    titles: list[str]
    shorts: list[str]
    variant_occupation_V: NDArray[np.int32]
    variant_start_O1: NDArray[np.int64]
    seeker_cumulative_V: NDArray[np.float64]
    employer_cumulative_V: NDArray[np.float64]
    speciality_VD: NDArray[np.float32]


def words(text: str) -> list[str]:
    """Lower-case words of a text without stop words; a plural s is dropped, as simple search engines do."""
    found = _WORD.findall(text.lower())
    return [w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in found if w not in _STOP]


def build(
    titles: pa.Table,
    abbreviations: Mapping[str, tuple[str, ...]],
    *,
    num_occupations: int,
    rng: np.random.Generator,
    max_variants: int = 16,
) -> Lexicon:
    """Choose occupations in whole related groups and the title variants of each.

    Args:
        titles: columns title, occupation (SOC code), occupation_title, kind, short.
        abbreviations: short form -> the phrases it stands for, lower case.
        num_occupations: O, capped by what the table offers.
        rng: decides which groups and variants are chosen.
        max_variants: most title variants per occupation.
    """
    variants, names = _gather(titles)
    short_of = _short_forms(abbreviations)
    plain = Counter(w for known in variants.values() for title in known for w in words(title))
    chosen = _choose(variants, num_occupations, rng)
    telling = _telling(variants, chosen)
    titles_V: list[str] = []
    shorts_V: list[str] = []
    occupation_V: list[int] = []
    seeker_V: list[float] = []
    employer_V: list[float] = []
    start = [0]
    for number, code in enumerate(chosen):
        picked = _pick(telling[code], plain, max_variants, rng)
        seeker, employer = _shares(len(picked), rng), _shares(len(picked), rng)
        titles_V += picked
        shorts_V += [variants[code][title].acronym or shorten(title, short_of) for title in picked]
        occupation_V += [number] * len(picked)
        seeker_V += list(number + np.cumsum(seeker))
        employer_V += list(number + np.cumsum(employer))
        start.append(len(titles_V))
    # A root of employment: boards advertise rare occupations more than their share of jobs.
    weight = np.array([employment.thousands(c) for c in chosen]) ** 0.6 * rng.lognormal(0, 0.4, len(chosen))
    return Lexicon(
        codes=chosen,
        names=[names[c] for c in chosen],
        weight_O=weight / weight.sum(),
        relatedness_OO=_relatedness(chosen, variants),
        titles=titles_V,
        shorts=["" if short == title else short for short, title in zip(shorts_V, titles_V, strict=True)],
        variant_occupation_V=np.array(occupation_V, np.int32),
        variant_start_O1=np.array(start, np.int64),
        seeker_cumulative_V=np.array(seeker_V),
        employer_cumulative_V=np.array(employer_V),
        speciality_VD=_specialities(titles_V, rng),
    )


def draw(
    cumulative_V: NDArray[np.float64], start_O1: NDArray[np.int64], occupation: NDArray[np.int32], u: NDArray[np.float64]
) -> NDArray[np.int32]:
    """A variant of each occupation by its share, for uniform numbers `u`."""
    found = np.searchsorted(cumulative_V, occupation + u, side="right")
    return np.clip(found, start_O1[occupation], start_O1[occupation + 1] - 1).astype(np.int32)


class _Title(NamedTuple):
    acronym: str  # "" where there is none
    reported: bool  # by people who hold the job


_Variants = dict[str, dict[str, _Title]]  # occupation code -> title as written -> what is known of it


def _gather(titles: pa.Table) -> tuple[_Variants, dict[str, str]]:
    """The usable titles of each civilian occupation that has enough of them, and the occupations' names."""
    variants: _Variants = defaultdict(dict)
    names: dict[str, str] = {}
    columns = (titles[name].to_pylist() for name in ("title", "occupation", "occupation_title", "kind", "short"))
    for title, code, name, kind, acronym in zip(*columns, strict=True):
        if code.startswith("55") or name.endswith("All Other") or kind == "occupation":
            continue
        if len(title) > 40 or title.count(" ") > 3 or not _PLAIN.match(title):
            continue
        names.setdefault(code, name)
        known = variants[code].get(title, _Title("", False))
        variants[code][title] = _Title(acronym or known.acronym, kind == "reported" or known.reported)
    return {c: v for c, v in variants.items() if len(v) >= _FEWEST}, names


def shorten(title: str, short_of: Mapping[str, str]) -> str:
    """The title with known phrases replaced by their short forms, longest phrase first; unchanged where there is none.

    Args:
        title: such as "Psychiatric Registered Nurse".
        short_of: lower-case phrase -> short form, such as "registered nurse" -> "RN".
    """
    parts = title.split()
    result: list[str] = []
    at = 0
    while at < len(parts):
        for length in range(min(4, len(parts) - at), 0, -1):
            short = short_of.get(" ".join(parts[at : at + length]).lower())
            if short:
                break
        result.append(short or parts[at])
        at += length
    return " ".join(result)


def _short_forms(abbreviations: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Phrase -> short form as written in a title: acronyms in capitals (RN), clipped words like words (Tech)."""
    chosen: dict[str, str] = {}
    for short, phrases in abbreviations.items():
        if phrases:
            chosen.setdefault(phrases[0], short.upper() if " " in phrases[0] else short.capitalize())
    return chosen


def _choose(variants: _Variants, count: int, rng: np.random.Generator) -> list[str]:
    """Occupation codes in groups: minor SOC groups drawn by employment, the larger occupations of each."""
    groups: dict[str, list[str]] = defaultdict(list)
    for code in sorted(variants):
        groups[code[:4]].append(code)
    keys = sorted(groups)
    weight = np.array([max(employment.thousands(c) for c in groups[k]) for k in keys])
    order = rng.choice(len(keys), len(keys), replace=False, p=weight / weight.sum())
    chosen: list[str] = []
    for g in order:
        # At most six of a group, so that a small market still spans several fields.
        members = sorted(groups[keys[g]], key=lambda c: -employment.thousands(c))
        chosen += members[:6]
        if len(chosen) >= count:
            break
    return sorted(chosen[:count])


def _telling(variants: _Variants, chosen: list[str]) -> _Variants:
    """Without the titles that several occupations of the market go by, where an occupation keeps six others.

    What a title does not tell, no ranking can know: such titles would only widen the gap between the truth and the best that
    can be learned.
    """
    holders: dict[frozenset[str], set[str]] = defaultdict(set)
    for code in chosen:
        for title in variants[code]:
            holders[frozenset(words(title))].add(code)
    kept: _Variants = {}
    for code in chosen:
        own = {title: known for title, known in variants[code].items() if len(holders[frozenset(words(title))]) == 1}
        kept[code] = own if len(own) >= _FEWEST else variants[code]
    return kept


def _pick(options: dict[str, _Title], plain: Counter[str], most: int, rng: np.random.Generator) -> list[str]:
    """What holders of the job report, then alternate titles made of plain words: many of the others are hardly in use."""
    titles = sorted(options)
    reported = np.array([options[t].reported for t in titles])
    fame = np.array([np.mean([np.log(plain[w] + 1) for w in words(t)] or [0.0]) for t in titles])
    length = np.array([_LENGTHS[t.count(" ")] for t in titles])
    weight = np.exp(fame) * length * np.where(reported, 1_000.0, 1.0)
    picked = rng.choice(len(titles), min(most, len(titles)), replace=False, p=weight / weight.sum())
    return [titles[i] for i in picked]


def _shares(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Zipf-like shares in random order: seekers and employers each have their own favourite words, and a long tail."""
    share = (1.0 + rng.permutation(count)) ** -0.85
    return np.asarray(share / share.sum())


def _relatedness(codes: list[str], variants: _Variants) -> NDArray[np.float32]:
    """(O, O) in 0..1, symmetric, 1 on the diagonal: levels of the SOC in common, raised by titles in common."""
    related = np.zeros((len(codes), len(codes)), np.float32)
    for length, likeness in _LEVELS:
        prefix = np.array([c[:length] for c in codes])
        related = np.maximum(related, np.where(prefix[:, None] == prefix[None, :], likeness, 0)).astype(np.float32)
    holders: dict[str, list[int]] = defaultdict(list)
    for number, code in enumerate(codes):
        for title in variants[code]:
            holders[title.lower()].append(number)
    shared = Counter((a, b) for held in holders.values() for a in held for b in held if a != b)
    for (a, b), times in shared.items():
        few = min(len(variants[codes[a]]), len(variants[codes[b]]))
        related[a, b] = min(0.9, related[a, b] + 1.5 * times / few)
    np.fill_diagonal(related, 1.0)
    return related


def _specialities(titles: list[str], rng: np.random.Generator) -> NDArray[np.float32]:
    vocabulary = sorted({w for title in titles for w in words(title)} | {""})
    vectors = rng.standard_normal((len(vocabulary), SPECIALITY_DIM))
    number = {w: i for i, w in enumerate(vocabulary)}
    sums = np.array([vectors[[number[w] for w in (words(t) or [""])]].sum(0) for t in titles])
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True), np.float32)
