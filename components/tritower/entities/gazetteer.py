"""Longest-match lookup of the lexicon's phrases with an Aho-Corasick automaton over token numbers.

The automaton works on whole tokens, not characters, so a match never starts inside a word. What the matches mean together
is decided in `reading.py`.
"""

from collections.abc import Mapping, Sequence

import ahocorasick

from tritower import vocabulary
from tritower.entities.lexicon import Key, Lexicon, Meaning
from tritower.entities.reading import Match, Reading, read
from tritower.entities.spans import LABELS, Span

_PRIORITY = {label: rank for rank, label in enumerate(LABELS)}
_CACHE_LIMIT = 200_000


class Gazetteer:
    """Finds the phrases of a lexicon (and a dataset's companies) in texts."""

    def __init__(self, lexicon: Lexicon, extra: Mapping[Key, tuple[Meaning, ...]] | None = None) -> None:
        """Build the automaton.

        Args:
            lexicon: the phrases.
            extra: further phrases, such as `lexicon.companies`; a phrase the lexicon has keeps both meanings.
        """
        self._lexicon = lexicon
        self._words = [""]
        self._numbers: dict[str, int] = {}
        self._ids: dict[str, int] = {}
        self._entries: list[tuple[int, tuple[Meaning, ...]]] = []
        self._automaton = ahocorasick.Automaton(ahocorasick.STORE_INTS, ahocorasick.KEY_SEQUENCE)
        extra = extra or {}
        for phrase in sorted(lexicon.phrases.keys() | extra.keys()):
            meanings = lexicon.phrases.get(phrase, ()) + extra.get(phrase, ())
            self._automaton.add_word(tuple(self._number(word) for word in phrase), len(self._entries))
            self._entries.append((len(phrase), tuple(sorted(meanings, key=lambda meaning: _PRIORITY[meaning.label]))))
        self._automaton.make_automaton()

    def find(self, text: str) -> list[Span]:
        """The entities of one text in reading order, outer ones before the inner ones they hold."""
        tokens = vocabulary.tokenise(text)
        ids = self.ids(tokens)
        if not any(ids):
            return []
        matches: list[Match] = []
        for last, entry in self._automaton.iter(tuple(ids)):
            length, meanings = self._entries[entry]
            matches += [Match(last + 1 - length, last + 1, meaning.label, meaning.value) for meaning in meanings]
        return read(Reading(text, tokens, [self._words[number] for number in ids], self._lexicon), matches)

    def ids(self, tokens: Sequence[vocabulary.Token]) -> list[int]:
        """Token numbers; 0 for a word no phrase has."""
        known = self._ids
        result = []
        for token in tokens:
            number = known.get(token.norm)
            if number is None:
                number = self._numbers.get(self._lexicon.fold(token.norm), 0)
                if len(known) < _CACHE_LIMIT:
                    known[token.norm] = number
            result.append(number)
        return result

    def _number(self, word: str) -> int:
        number = self._numbers.get(word)
        if number is None:
            number = self._numbers[word] = len(self._words)
            self._words.append(word)
        return number
