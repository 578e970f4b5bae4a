"""Gazetteer and NER together: the lists decide what they know, the model what they leave open."""

from collections.abc import Iterator, Sequence

from tritower import vocabulary
from tritower.entities.gazetteer import Gazetteer
from tritower.entities.model import Recogniser
from tritower.entities.spans import Span

_FILLED = frozenset(["TITLE", "SKILL", "COMPANY", "QUALIFICATION", "EMPLOYMENT", "SENIORITY", "PLACE"])
"""Labels the model may add where no list has a match."""
_SHORT_WORDS = 12
_PROSE = frozenset(
    (
        *("you", "your", "we", "our", "my", "they", "their", "its", "is", "are", "be", "been", "was", "will", "has", "have"),
        *("this", "that", "who", "which", "within", "including", "must", "should", "can"),
    )
)
"""The model was trained on titles and queries: longer texts, and those with such a word, are left to the lists."""


class Combined:
    """Finds entities with a gazetteer, and with a model in the texts that the gazetteer does not explain whole."""

    def __init__(self, gazetteer: Gazetteer, recogniser: Recogniser) -> None:
        self._gazetteer = gazetteer
        self._recogniser = recogniser

    def find(self, texts: Sequence[str]) -> Iterator[list[Span]]:
        """The entities of each text, outer ones in reading order, each followed by the inner ones it holds."""
        listed = list(self._gazetteer.find(texts))
        unexplained = [i for i, text in enumerate(texts) if _is_open(text, listed[i])]
        guessed = self._recogniser.find([texts[i] for i in unexplained])
        for i, guesses in zip(unexplained, guessed, strict=True):
            listed[i] = self.merged(texts[i], listed[i], guesses)
        yield from listed

    def merged(self, text: str, listed: Sequence[Span], guesses: Sequence[Span]) -> list[Span]:
        """The listed spans, with guesses added where nothing is listed.

        A guessed title may also swallow listed titles and skills that lie in it whole: "ruby on rails | developer".
        """
        outer = [span for span in listed if not span.inner]
        for guess in guesses:
            hit = [span for span in outer if span.start < guess.end and guess.start < span.end]
            swallows = guess.label == "TITLE" and all(
                span.label in ("TITLE", "SKILL") and guess.start <= span.start and span.end <= guess.end for span in hit
            )
            if (not hit and guess.label in _FILLED) or (hit and swallows and any(span.label == "TITLE" for span in hit)):
                value = self._gazetteer.value(text[guess.start : guess.end], guess.label)
                outer = [span for span in outer if span not in hit] + [guess._replace(value=value)]
        inner = [span for span in listed if span.inner]
        inner += [
            span._replace(inner=True) for span in listed if not span.inner and span.label == "SKILL" and span not in outer
        ]
        return _nested(outer, inner)


def with_values(text: str, guesses: Sequence[Span], gazetteer: Gazetteer) -> list[Span]:
    """The model's spans with the canonical values of the lists."""
    return [guess._replace(value=gazetteer.value(text[guess.start : guess.end], guess.label)) for guess in guesses]


def _is_open(text: str, spans: Sequence[Span]) -> bool:
    """Whether the text is short and a token that could matter lies in no span."""
    stop = vocabulary.stop_words()
    outer = [span for span in spans if not span.inner]
    tokens = vocabulary.tokenise(text)
    if len(tokens) > _SHORT_WORDS or any(token.norm in _PROSE for token in tokens):
        return False
    tokens = [token for token in tokens if token.norm not in stop and not token.norm.isdigit()]
    return any(all(not span.start <= token.start < span.end for span in outer) for token in tokens)


def _nested(outer: Sequence[Span], inner: Sequence[Span]) -> list[Span]:
    spans: list[Span] = []
    for span in sorted(outer):
        spans.append(span)
        spans += [part for part in inner if span.start <= part.start and part.end <= span.end and part.label != span.label]
    return spans
