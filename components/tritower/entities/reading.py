"""From phrase matches to entities: which matches hold in their context, where a title begins and ends, what lies inside it.

Rules, in order:
1. a match does not run across a separator (comma, bracket, dash between spaces);
2. short forms that are also words ("it", "or", "pa") and cities that are also words ("Mobile") need support from their context;
3. of overlapping matches the longer wins, then the label earlier in LABELS;
4. a title grows to the left over words that occur inside titles ("night | stock clerk"), and over "of ..." to the right;
   titles that touch become one;
5. "senior", "junior", "lead" and the like in front of a title are a SENIORITY of their own;
6. levels, skills and licences inside a title are given as inner spans.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tritower import vocabulary
from tritower.entities.lexicon import Lexicon
from tritower.entities.spans import LABELS, Span

_JOINTS = frozenset(["", " ", "-", "/", " / ", "  ", "'", "’", ". ", "–"])
"""What may stand between two tokens of one phrase."""
_SPLITS = frozenset(["/", " / "])
"""Joints at which a title neither grows nor merges: "cook/cashier" are two titles."""
_PRIORITY = {label: rank for rank, label in enumerate(LABELS)}
_LEADING = frozenset(["trainee", "entry", "middle", "senior", "lead"])
"""Levels that are cut from the front of a title."""
_STAYS = frozenset(
    ["assistant", "aide", "helper", "associate", "staff", "charge", "master", "shift", "team", "student", "leader"]
)
"""Words with such a level that belong to the title even in front of it."""
_AFTER_SENIOR = frozenset(["living", "care", "citizen", "center", "housing", "community", "service", "home", "companion"])
"""Words before which "senior" speaks of old age."""
_ROMAN = frozenset(["i", "ii", "iii", "iv"])
_LOCATIVES = frozenset(["in", "near", "at", "around"])


class Match(NamedTuple):
    """Tokens `start` to `end` (exclusive) are a phrase with this meaning."""

    start: int
    end: int
    label: str
    value: str


class Reading(NamedTuple):
    """A text cut into tokens, with the folded word of each token ("" where no phrase has it)."""

    text: str
    tokens: Sequence[vocabulary.Token]
    words: Sequence[str]
    lexicon: Lexicon

    def gap(self, i: int) -> str:
        """The characters before token `i`, back to the token before it."""
        return self.text[self.tokens[i - 1].end : self.tokens[i].start] if i else "\n"

    def written(self, i: int) -> str:
        """Token `i` as it stands in the text."""
        return self.text[self.tokens[i].start : self.tokens[i].end]

    def span(self, match: Match, *, inner: bool = False) -> Span:
        """The match in characters."""
        return Span(self.tokens[match.start].start, self.tokens[match.end - 1].end, match.label, match.value, inner)


def read(reading: Reading, matches: Sequence[Match]) -> list[Span]:
    """The entities that the matches of one text amount to, in reading order, each followed by its inner spans."""
    breaks = [i for i in range(1, len(reading.tokens)) if reading.gap(i) not in _JOINTS]
    if breaks:
        matches = [m for m in matches if not any(m.start < i < m.end for i in breaks)]
    held = [match for match in matches if _holds(reading, match, matches, breaks)]
    heads = [
        Match(i, i + 1, "TITLE", word)
        for i, word in enumerate(reading.words)
        if word in reading.lexicon.heads and word not in _NOT_ALONE
    ]
    outer = _without_overlap(held + heads)
    outer = _joined(reading, _grown(reading, outer, breaks), breaks)
    spans: list[Span] = []
    for match in outer:
        for part in _cut(reading, match):
            spans.append(reading.span(part))
            spans += [reading.span(m, inner=True) for m in _inside(part, held)]
    return spans


_NOT_ALONE = frozenset(
    [
        "lead",
        "head",
        "hand",
        "staff",
        "member",
        "person",
        "man",
        "chair",
        "crew",
        "host",
        "guide",
        "professional",
        "student",
        "judge",
    ]
)
"""Words that end a title but are none without the words before them."""


def _holds(reading: Reading, match: Match, matches: Sequence[Match], breaks: Sequence[int]) -> bool:
    """Whether a match with an ambiguous phrase is supported by its context."""
    if match.end - match.start > 1:
        return True
    i, norm = match.start, reading.tokens[match.start].norm
    alone = len(reading.tokens) == 1
    if match.label == "PLACE":
        if norm.upper() in vocabulary.regions():
            after_city = any(m.label == "PLACE" and m.end == i for m in matches)
            return reading.written(i).isupper() and (after_city or i in breaks or _word_before(reading, i) in _LOCATIVES)
        if reading.words[i] in reading.lexicon.modifiers or reading.words[i] in reading.lexicon.heads:
            code_follows = i + 1 < len(reading.tokens) and reading.tokens[i + 1].norm.upper() in vocabulary.regions()
            return code_follows or _word_before(reading, i) in _LOCATIVES or (i in breaks and reading.written(i).istitle())
        return True
    if match.label == "COMPANY" and (reading.words[i] in reading.lexicon.common or reading.words[i] in reading.lexicon.heads):
        return alone or _word_before(reading, i) == "at" or (i in breaks and reading.written(i).istitle())
    if norm in _ROMAN:
        return match.label == "SENIORITY" and i > 0 and i not in breaks and reading.words[i - 1] in reading.lexicon.heads
    if match.label == "TITLE" and any(m.label == "EMPLOYMENT" and m[:2] == match[:2] for m in matches):
        return alone or i in breaks or i == 0
    if match.label in ("TITLE", "SKILL") and norm in reading.lexicon.needs_capitals:
        return alone or (reading.written(i).isupper() and not reading.text.isupper())
    return True


def _word_before(reading: Reading, i: int) -> str:
    return reading.tokens[i - 1].norm if i else ""


def _without_overlap(matches: Sequence[Match]) -> list[Match]:
    kept: list[Match] = []
    for match in sorted(matches, key=lambda m: (m.start - m.end, _PRIORITY[m.label], m.start)):
        if all(match.end <= other.start or match.start >= other.end for other in kept):
            kept.append(match)
    return sorted(kept)


def _grown(reading: Reading, outer: list[Match], breaks: Sequence[int]) -> list[Match]:
    """Titles extended to the left, and over "of ..." to the right; what they swallow (skills) is dropped."""
    taken = {i: match.label for match in outer for i in range(match.start, match.end)}
    grown: list[Match] = []
    for match in outer:
        if match.label == "TITLE":
            start, end = match.start, match.end
            while start > 0 and start not in breaks and reading.gap(start) not in _SPLITS and _joins(reading, taken, start - 1):
                start -= 1
            if end < len(reading.words) and reading.tokens[end].norm == "of" and end not in breaks:
                right = end + 1
                while right < len(reading.words) and right not in breaks and _joins(reading, taken, right):
                    right += 1
                end = right if right > end + 1 else end
            words = (*reading.words[start : match.start], match.value, *reading.words[match.end : end])
            match = Match(start, end, "TITLE", " ".join(word or "of" for word in words))
        grown.append(match)
    return _without_overlap(grown)


def _joins(reading: Reading, taken: dict[int, str], i: int) -> bool:
    return taken.get(i, "SKILL") == "SKILL" and reading.words[i] in reading.lexicon.modifiers


def _joined(reading: Reading, outer: list[Match], breaks: Sequence[int]) -> list[Match]:
    """Titles that touch, without a slash between them, as one."""
    joined: list[Match] = []
    for match in outer:
        last = joined[-1] if joined else None
        touches = last is not None and last.end == match.start and match.start not in breaks
        if last is not None and touches and last.label == match.label == "TITLE" and reading.gap(match.start) not in _SPLITS:
            joined[-1] = Match(last.start, match.end, "TITLE", f"{last.value} {match.value}")
        else:
            joined.append(match)
    return joined


def _cut(reading: Reading, match: Match) -> Iterator[Match]:
    """The match, with the levels in front of a title as matches of their own."""
    while match.label == "TITLE" and match.end - match.start > 1:
        width = next((n for n in (2, 1) if _is_level(reading, match, n)), 0)
        if not width:
            break
        words = " ".join(reading.words[match.start : match.start + width])
        yield Match(match.start, match.start + width, "SENIORITY", reading.lexicon.levels[words])
        rest = match.value.removeprefix(words).strip() if match.value.startswith(words) else ""
        rest = rest or " ".join(reading.words[match.start + width : match.end])
        match = Match(match.start + width, match.end, "TITLE", rest)
    yield match


def _is_level(reading: Reading, match: Match, width: int) -> bool:
    words = reading.words[match.start : match.start + width]
    following = reading.words[match.start + width] if match.start + width < match.end else ""
    if not following or words[0] in _STAYS or reading.lexicon.levels.get(" ".join(words)) not in _LEADING:
        return False
    return not (words[-1] == "senior" and following in _AFTER_SENIOR) and reading.words[match.end - 1] in reading.lexicon.heads


def _inside(outer: Match, held: Sequence[Match]) -> list[Match]:
    """Levels, skills and qualifications within a title; of overlapping ones the longer."""
    if outer.label != "TITLE":
        return []
    inner = ("SENIORITY", "SKILL", "QUALIFICATION")
    within = [
        m for m in held if m.label in inner and outer.start <= m.start and m.end <= outer.end and (m.start, m.end) != outer[:2]
    ]
    return [match for label in inner for match in _without_overlap([m for m in within if m.label == label])]
