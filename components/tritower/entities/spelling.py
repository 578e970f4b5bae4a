"""Mending of misspelt words by the symmetric-delete method.

Two words are one edit apart (insertion, deletion, replacement or swap of neighbours) only if they share a form after at
most one deletion each; so the index maps every one-deletion form of a known word to that word. Idea: W. Garbe, SymSpell,
2012.
"""

from collections.abc import Iterator, Mapping

from rapidfuzz.distance import OSA

MIN_LETTERS = 6
"""Shorter words have too many neighbours: "nurse" and "purse"."""


class Speller:
    """Knows words with their counts; mends an unknown word to the likeliest known one a single edit away."""

    def __init__(self, counts: Mapping[str, int], mended: Mapping[str, str]) -> None:
        """Index the words.

        Args:
            counts: known word -> how often it occurs; a word is mended only towards words of MIN_LETTERS - 1 or more.
            mended: slips known by heart, word -> word; they win.
        """
        self._counts = counts
        self._mended = mended
        self._index: dict[str, list[str]] = {}
        for word in sorted(counts):
            if len(word) >= MIN_LETTERS - 1 and word.isalpha() and counts[word] >= 2:
                for form in _forms(word):
                    self._index.setdefault(form, []).append(word)

    def mend(self, word: str) -> str:
        """The known word meant by `word`, or `word` itself when it is known, short or has no neighbour.

        The first letter must agree: slips there are rare, and names differ there.
        """
        known = self._mended.get(word)
        if known is not None:
            return known
        if word in self._counts or len(word) < MIN_LETTERS or not word.isalpha():
            return word
        near = {candidate for form in _forms(word) for candidate in self._index.get(form, ())}
        near = {candidate for candidate in near if candidate[0] == word[0] and OSA.distance(word, candidate) == 1}
        return max(near, key=lambda candidate: (self._counts[candidate], candidate), default=word)


def _forms(word: str) -> Iterator[str]:
    yield word
    for i in range(len(word)):
        yield word[:i] + word[i + 1 :]
