"""Longest-match lookup of the lexicon's phrases, a batch of texts at a time.

An Aho-Corasick automaton runs over token numbers, so a match never starts inside a word. pyahocorasick searches the children
of a node one by one; a token number is therefore spelt as a few digits, each digit position with signs of its own: no node
has more than some 60 children, and a match can only begin and end at a token. What the matches mean together is decided in
`kernel.py`.
"""

import gc
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import ahocorasick
import numpy as np

from tritower import vocabulary
from tritower.entities import kernel
from tritower.entities.lexicon import Key, Lexicon, Meaning
from tritower.entities.spans import LABELS, Span
from tritower.vocabulary.text import TOKEN, fold

_JOINTS = frozenset(["", " ", "-", "  ", "'", "’", ". ", "–"])
"""What may stand between two tokens of one phrase."""
_SLASHES = frozenset(["/", " / "])
"""What separates titles, but may stand within a listed phrase: "cook/cashier" are two titles."""
_LEADING = frozenset(["trainee", "entry", "middle", "senior", "lead"])
"""Levels that are cut from the front of a title."""
_STAYS = frozenset(
    ["assistant", "aide", "helper", "associate", "staff", "charge", "master", "shift", "team", "student", "leader"]
)
"""Words with such a level that belong to the title even in front of it."""
_OLD_AGE = frozenset(["living", "care", "citizen", "center", "housing", "community", "companion"])
"""Words before which "senior" speaks of old age."""
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
"""Words that end a title but are none without words before them, or "of" behind."""
_LOCATIVES = frozenset(["in", "near", "at", "around"])
_ROMAN = frozenset(["i", "ii", "iii", "iv"])
_PIECES = re.compile(f"({TOKEN.pattern})")
_SIGNS = "".join(map(chr, (*range(33, 127), *range(161, 256))))
_LABEL_NAMES = np.array(LABELS, object)
_CACHE_LIMIT = 500_000


class Gazetteer:
    """Finds the phrases of a lexicon (and a dataset's companies) in texts."""

    def __init__(self, lexicon: Lexicon, extra: Mapping[Key, tuple[Meaning, ...]] | None = None) -> None:
        """Build the automaton.

        Args:
            lexicon: the phrases.
            extra: further phrases, such as `lexicon.companies`; a phrase the lexicon has keeps both meanings.
        """
        self._lexicon = lexicon
        self._words = _Numbered()
        self._tokens = _Tokens(lexicon, self._words)
        self._gaps = _Gaps()
        self._titles: dict[Key, str] = {}
        self._automaton = ahocorasick.Automaton(ahocorasick.STORE_INTS)
        meanings: list[Meaning] = []
        lengths: list[int] = []
        firsts = [0]
        extra = extra or {}
        phrases = sorted(lexicon.phrases.keys() | extra.keys())
        for word in itertools.chain.from_iterable(phrases):
            self._words[word]
        spellings = _spellings(len(self._words.names))
        self._width, self._spelt = len(spellings[0]), np.array(spellings, object)
        for phrase in phrases:
            self._automaton.add_word("".join([spellings[self._words[word]] for word in phrase]), len(lengths))
            meanings += (*lexicon.phrases.get(phrase, ()), *extra.get(phrase, ()))
            lengths.append(len(phrase))
            firsts.append(len(meanings))
        self._automaton.make_automaton()
        self._lengths = np.array(lengths, np.int32)
        self._firsts = np.array(firsts, np.int32)
        self._labels = np.array([LABELS.index(meaning.label) for meaning in meanings], np.int32)
        self._leading = np.array([m.label == "SENIORITY" and m.value in _LEADING for m in meanings], np.int32)
        self._values = np.array([*(meaning.value for meaning in meanings), None], object)

    def find(self, texts: Sequence[str]) -> Iterator[list[Span]]:
        """The entities of each text, outer ones in reading order, each followed by the inner ones it holds."""
        if not texts:
            return
        joined = "\n".join(texts)
        if joined.count("\n") >= len(texts):
            joined = "\n".join([text.replace("\n", ";") for text in texts])
        pieces = _PIECES.split(joined)
        bounds = np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)))
        written, gaps = pieces[1::2], pieces[0:-1:2]
        codes = np.fromiter(map(self._tokens.__getitem__, written), np.int32, len(written))
        gap_T = np.fromiter(map(self._gaps.__getitem__, gaps), np.int32, len(gaps))
        gap_T[:1] = kernel.START
        words, flags = self._tokens.arrays()
        word_T = words[codes]
        begin_N, end_N, label_N, inner_N, meaning_N = self._spans(word_T, flags[codes], gap_T)
        first_of_text = np.concatenate(([0], np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)[:-1]))
        start_T, stop_T = bounds[0:-1:2], bounds[1::2]
        text_N = np.searchsorted(first_of_text, start_T[begin_N], side="right") - 1
        offset_N = first_of_text[text_N]
        values = self._values[meaning_N]
        for n in np.flatnonzero(meaning_N < 0).tolist():
            values[n] = self._title(word_T[begin_N[n] : end_N[n]], written[begin_N[n] : end_N[n]])
        starts, stops = start_T[begin_N] - offset_N, stop_T[end_N - 1] - offset_N
        columns = (starts, stops, _LABEL_NAMES[label_N], values, inner_N.astype(bool))
        spans = _built(zip(*(column.tolist() for column in columns), strict=True))
        until = np.searchsorted(text_N, np.arange(len(texts) + 1)).tolist()
        for begin, end in itertools.pairwise(until):
            yield spans[begin:end]

    def value(self, phrase: str, label: str) -> str:
        """The canonical form of a phrase found by other means.

        That of the list where it is listed under the label, else put together from its listed parts and folded words; for
        SENIORITY the name of the level, `middle` where the word is unknown.
        """
        words = self._lexicon.key(phrase)
        listed = next((m.value for m in self._lexicon.phrases.get(words, ()) if m.label == label), None)
        if label == "SENIORITY":
            return listed or "middle"
        return listed or " ".join(_parts(words, self._lexicon) if label == "TITLE" else words)

    def _spans(self, word_T: kernel.Ints, flags_T: kernel.Ints, gap_T: kernel.Ints) -> tuple[kernel.Ints, ...]:
        """First token, token after, label, inner and meaning (-1 for a title put together) of each span of the batch."""
        found = self._automaton.iter("".join(self._spelt[word_T]))
        last, entry = np.fromiter(itertools.chain.from_iterable(found), np.int32).reshape(-1, 2).T
        last //= self._width
        counts = self._firsts[entry + 1] - self._firsts[entry]
        which = np.repeat(np.arange(len(entry)), counts)
        within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        meaning_M = (self._firsts[entry][which] + within).astype(np.int32)
        end_M = (last[which] + 1).astype(np.int32)
        start_M = end_M - self._lengths[entry][which]
        begin_N, end_N, label_N, inner_N, match_N = kernel.read(
            flags_T, gap_T, start_M, end_M, self._labels[meaning_M], self._leading[meaning_M]
        )
        meaning_N = np.where(match_N >= 0, meaning_M[match_N] if len(meaning_M) else -1, -1).astype(np.int32)
        return begin_N, end_N, label_N, inner_N, meaning_N

    def _title(self, numbers: kernel.Ints, written: Sequence[str]) -> str:
        """The value of a title that no list has: its listed parts' values and its other words, from left to right."""
        names = self._words.names
        words = tuple([names[n] if n else self._lexicon.fold(fold(w)) for n, w in zip(numbers, written, strict=True)])
        known = self._titles.get(words)
        if known is None:
            if len(self._titles) > _CACHE_LIMIT:
                self._titles.clear()
            known = self._titles[words] = " ".join(_parts(words, self._lexicon))
        return known


def _built(rows: Iterable[tuple[object, ...]]) -> list[Span]:
    """The rows as spans.

    A named tuple's own constructor is a Python function, and creating many tuples sets off garbage collections that walk
    the whole lexicon, although tuples of numbers and strings cannot be garbage in a cycle. Without both this takes a tenth
    of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        return list(map(tuple.__new__, itertools.repeat(Span), rows))
    finally:
        if enabled:
            gc.enable()


def _parts(words: Key, lexicon: Lexicon) -> Iterator[str]:
    start = 0
    while start < len(words):
        for end in range(len(words), start, -1):
            value = next((m.value for m in lexicon.phrases.get(words[start:end], ()) if m.label == "TITLE"), None)
            if value is not None or end == start + 1:
                yield value or lexicon.value(words[start:end])
                start = end
                break


def _spellings(size: int) -> list[str]:
    """Each number below `size` in as few digits as its size allows; a digit position has its own signs, 0 is all blanks."""
    width = next(width for width in range(1, len(_SIGNS)) if (len(_SIGNS) // width) ** width > size)
    base = len(_SIGNS) // width
    rows = [" " * width]
    for number in range(1, size):
        digits = []
        for position in range(width):
            number, digit = divmod(number, base)
            digits.append(_SIGNS[position * base + digit])
        rows.append("".join(digits))
    return rows


class _Numbered(dict[str, int]):
    """Folded word -> number from 1; 0 is any word that no phrase has."""

    def __init__(self) -> None:
        self.names = [""]

    def __missing__(self, word: str) -> int:
        self[word] = len(self.names)
        self.names.append(word)
        return self[word]


class _Gaps(dict[str, int]):
    """Characters between two tokens -> kind of gap."""

    def __missing__(self, gap: str) -> int:
        kind = kernel.BREAK
        if "\n" in gap:
            kind = kernel.START
        elif gap in _JOINTS:
            kind = kernel.JOINT
        elif gap in _SLASHES:
            kind = kernel.SLASH
        if len(self) < _CACHE_LIMIT:
            self[gap] = kind
        return kind


class _Tokens(dict[str, int]):
    """Token as written -> its row in two arrays: number of the folded word, and flags. Filled as tokens are met."""

    def __init__(self, lexicon: Lexicon, words: _Numbered) -> None:
        self._lexicon = lexicon
        self._numbers = words
        self._words: list[int] = []
        self._flags: list[int] = []
        self._arrays = (np.empty(0, np.int32), np.empty(0, np.int32))

    def __missing__(self, written: str) -> int:
        norm = fold(written)
        word = self._lexicon.fold(norm) if norm else ""
        code = len(self._words)
        self._words.append(self._numbers.get(word, 0))
        self._flags.append(_flags(written, norm, word, self._lexicon))
        self[written] = code
        return code

    def arrays(self) -> tuple[kernel.Ints, kernel.Ints]:
        """Word number and flags by row. When the table has grown too large it is emptied after this batch."""
        if len(self._arrays[0]) != len(self._words):
            self._arrays = (np.array(self._words, np.int32), np.array(self._flags, np.int32))
        arrays = self._arrays
        if len(self) > _CACHE_LIMIT:
            self.clear()
            self._words, self._flags = [], []
        return arrays


def _flags(written: str, norm: str, word: str, lexicon: Lexicon) -> int:
    holds = {
        kernel.HEAD: word in lexicon.heads,
        kernel.MODIFIER: word in lexicon.modifiers,
        kernel.COMMON: word in lexicon.common,
        kernel.STAYS: word in _STAYS,
        kernel.OLD_AGE: word in _OLD_AGE,
        kernel.NOT_ALONE: word in _NOT_ALONE,
        kernel.AND: norm == "and",
        kernel.OF: norm == "of",
        kernel.ROMAN: norm in _ROMAN,
        kernel.REGION: norm.upper() in vocabulary.regions(),
        kernel.LOCATIVE: norm in _LOCATIVES,
        kernel.AT: norm == "at",
        kernel.NEEDS_CAPITALS: norm in lexicon.needs_capitals,
        kernel.UPPER: written.isupper(),
        kernel.CAPITALISED: written.istitle(),
        kernel.LOWER: written != written.upper(),
    }
    return sum(bit for bit, held in holds.items() if held)
