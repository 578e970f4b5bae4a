"""Longest-match lookup of the lexicon's phrases, a batch of texts at a time.

An Aho-Corasick automaton runs over token numbers, so a match never starts inside a word. pyahocorasick searches the children
of a node one by one; a token number is therefore spelt as a few digits, each digit position with signs of its own: no node
has more than some 60 children, and a match can only begin and end at a token. What the matches mean together is decided in
`kernel.py`.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import ahocorasick
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tritower import vocabulary
from tritower.entities import kernel
from tritower.entities.lexicon import Key, Lexicon, Meaning
from tritower.entities.spans import LABELS, Found, Span
from tritower.entities.tokens import Tokens
from tritower.vocabulary.text import TOKEN, fold

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
_PROSE = frozenset(
    (
        *("you", "your", "we", "our", "my", "they", "their", "its", "is", "are", "be", "been", "was", "will", "has", "have"),
        *("this", "that", "who", "which", "within", "including", "must", "should", "can"),
    )
)
"""Words of running text."""
_SHORT_WORDS = 12
"""Tokens of a text that is a title or a query rather than prose."""
_ROMAN = frozenset(["i", "ii", "iii", "iv"])
_SIGNS = "".join(map(chr, (*range(33, 127), *range(161, 256))))
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
        self._tokens = Tokens(self._describe)
        self._folded = _Folded(lexicon)
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
        self._longest = max(map(len, lexicon.phrases), default=1)
        self._firsts = np.array(firsts, np.int32)
        self._labels = np.array([LABELS.index(meaning.label) for meaning in meanings], np.int32)
        self._leading = np.array([m.label == "SENIORITY" and m.value in _LEADING for m in meanings], np.int32)
        self._values = pa.array([meaning.value for meaning in meanings], pa.string())

    def find(self, texts: Sequence[str]) -> Iterator[list[Span]]:
        """The entities of each text, outer ones in reading order, each followed by the inner ones it holds."""
        return self.read(pa.array(texts, pa.string()))[0].spans(len(texts))

    def columns(self, texts: pa.StringArray) -> Found:
        """The same as columns; no text is null."""
        return self.read(texts)[0]

    def read(self, texts: pa.StringArray) -> tuple[Found, npt.NDArray[np.bool_]]:
        """The entities, and which texts are short and not explained whole: those hold a word in no entity that could matter."""
        cut = self._tokens.cut(texts)
        word_T, flags_T = self._tokens.describe(cut.code_T)
        begin_N, end_N, label_N, inner_N, meaning_N = self._spans(word_T, flags_T, cut.gap_T)
        open_V = kernel.unexplained(flags_T, cut.text_T, begin_N, end_N, inner_N, len(texts), _SHORT_WORDS)
        made_N = meaning_N < 0
        values = self._values.take(pa.array(meaning_N, mask=made_N))
        if made_N.any():
            made = zip(begin_N[made_N].tolist(), end_N[made_N].tolist(), strict=True)
            titles = [self._title(word_T[begin:end], cut.code_T[begin:end]) for begin, end in made]
            values = pc.replace_with_mask(values, pa.array(made_N), pa.array(titles, pa.string()))
        starts, stops = cut.start_T[begin_N], cut.end_T[end_N - 1]
        return Found(cut.text_T[begin_N], starts, stops, label_N, values, inner_N.astype(np.bool_)), open_V

    def value(self, phrase: str, label: str) -> str:
        """The canonical form of a phrase found by other means.

        That of the list where it is listed under the label, else put together from its listed parts and folded words; for
        SENIORITY the name of the level, `middle` where the word is unknown. Empty where the phrase holds no word: signs,
        or emoji and what joins them.
        """
        folded = self._folded
        words = tuple([word for written in TOKEN.findall(phrase) if (word := folded[written])])
        listed = next((m.value for m in self._lexicon.phrases.get(words, ()) if m.label == label), None)
        if label == "SENIORITY":
            return listed or ("middle" if words else "")
        return listed or (self._composed(words) if label == "TITLE" else " ".join(words))

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

    def _title(self, word_T: kernel.Ints, code_T: kernel.Ints) -> str:
        """The value of a title that no list has: its listed parts' values and its other words, from left to right."""
        names, written = self._words.names, self._tokens.written
        numbers = zip(word_T.tolist(), code_T.tolist(), strict=True)
        return self._composed(tuple([names[word] if word else self._folded[written[code]] for word, code in numbers]))

    def _composed(self, words: Key) -> str:
        known = self._titles.get(words)
        if known is None:
            if len(self._titles) > _CACHE_LIMIT:
                self._titles.clear()
            known = self._titles[words] = " ".join(_parts(words, self._lexicon, self._longest))
        return known

    def _describe(self, written: str) -> tuple[int, int]:
        """Number of the folded word of a token, 0 where no phrase has it, and its flags."""
        norm, word = fold(written), self._folded[written]
        return self._words.get(word, 0), _flags(written, norm, word, self._lexicon)


def _parts(words: Key, lexicon: Lexicon, longest: int) -> Iterator[str]:
    start = 0
    while start < len(words):
        for end in range(min(len(words), start + longest), start, -1):
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


class _Folded(dict[str, str]):
    """Token as written -> as it stands in a key, empty where nothing but accents is left."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def __missing__(self, written: str) -> str:
        norm = fold(written)
        word = self._lexicon.fold(norm) if norm else ""
        if len(self) < _CACHE_LIMIT:
            self[written] = word
        return word


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
        kernel.BLANK: not norm,
        kernel.SAYS_NOTHING: norm in vocabulary.stop_words() or norm.isdigit(),
        kernel.PROSE: norm in _PROSE,
    }
    return sum(bit for bit, held in holds.items() if held)
