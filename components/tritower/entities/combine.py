"""Gazetteer and NER together: the lists decide what they know, the model what they leave open."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tritower.entities.gazetteer import Gazetteer
from tritower.entities.model import Recogniser
from tritower.entities.spans import Found, Span

_FILLED = frozenset(["TITLE", "SKILL", "COMPANY", "QUALIFICATION", "EMPLOYMENT", "SENIORITY", "PLACE"])
"""Labels the model may add where no list has a match."""


class Combined:
    """Finds entities with a gazetteer, and with a model in the texts that the gazetteer does not explain whole."""

    def __init__(self, gazetteer: Gazetteer, recogniser: Recogniser) -> None:
        self._gazetteer = gazetteer
        self._recogniser = recogniser

    def columns(self, texts: pa.StringArray) -> Found:
        """The entities of each text, outer ones in reading order, each followed by the inner ones it holds.

        The model was trained on titles and queries: longer texts, and those with words of prose, are left to the lists.
        """
        listed, open_V = self._gazetteer.read(texts)
        if not open_V.any():
            return listed
        asked = np.flatnonzero(open_V)
        of_asked = listed.take(np.flatnonzero(open_V[listed.text_N]))
        known = of_asked._replace(text_N=np.searchsorted(asked, of_asked.text_N).astype(np.int32)).spans(len(asked))
        words = texts.take(pa.array(asked)).to_pylist()
        merged = Found.of(
            self.merged(text, spans, guesses)
            for text, spans, guesses in zip(words, known, self._recogniser.find(words), strict=True)
        )
        both = listed.take(np.flatnonzero(~open_V[listed.text_N])).and_(
            merged._replace(text_N=asked[merged.text_N].astype(np.int32))
        )
        return both.take(np.argsort(both.text_N, kind="stable"))

    def merged(self, text: str, listed: Sequence[Span], guesses: Sequence[Span]) -> list[Span]:
        """The listed spans, with guesses added where nothing is listed.

        A guessed title may also swallow listed titles and skills that lie in it whole: "ruby on rails | developer".
        """
        outer = [span for span in listed if not span.inner]
        for guess in valued(text, guesses, self._gazetteer):
            hit = [span for span in outer if span.start < guess.end and guess.start < span.end]
            swallows = guess.label == "TITLE" and all(
                span.label in ("TITLE", "SKILL") and guess.start <= span.start and span.end <= guess.end for span in hit
            )
            if (not hit and guess.label in _FILLED) or (hit and swallows and any(span.label == "TITLE" for span in hit)):
                outer = [span for span in outer if span not in hit] + [guess]
        inner = [span for span in listed if span.inner]
        inner += [
            span._replace(inner=True) for span in listed if not span.inner and span.label == "SKILL" and span not in outer
        ]
        return _nested(outer, inner)


class Guessed:
    """Finds entities with a model alone; their values are those of the lists."""

    def __init__(self, gazetteer: Gazetteer, recogniser: Recogniser) -> None:
        self._gazetteer = gazetteer
        self._recogniser = recogniser

    def columns(self, texts: pa.StringArray) -> Found:
        """The entities of each text in reading order."""
        words = texts.to_pylist()
        return Found.of(
            valued(text, guesses, self._gazetteer) for text, guesses in zip(words, self._recogniser.find(words), strict=True)
        )


def valued(text: str, guesses: Sequence[Span], gazetteer: Gazetteer) -> list[Span]:
    """A model's guesses with the values of the lists; those that hold no word are left out: an emoji is no entity."""
    named = (guess._replace(value=gazetteer.value(text[guess.start : guess.end], guess.label)) for guess in guesses)
    return [span for span in named if span.value]


def _nested(outer: Sequence[Span], inner: Sequence[Span]) -> list[Span]:
    spans: list[Span] = []
    for span in sorted(outer):
        spans.append(span)
        spans += [part for part in inner if span.start <= part.start and part.end <= span.end and part.label != span.label]
    return spans
