"""A spaCy pipeline made for general English, as a comparison and as a choice for those who have one of their own."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import spacy

from tritower import vocabulary
from tritower.entities.spans import LABELS, Found, Span
from tritower.errors import ArtifactError

_LABELS = {"ORG": "COMPANY", "GPE": "PLACE", "LOC": "PLACE", **{label: label for label in LABELS}}


class Generic:
    """Entities by a spaCy pipeline: ORG is COMPANY, GPE and LOC are PLACE, labels of ours are kept, others dropped.

    General models have no label for a job title; where the pipeline parses, noun chunks without an entity are given as TITLE,
    the nearest thing it can say.
    """

    def __init__(self, name: str) -> None:
        try:
            self._nlp: Any = spacy.load(name)
        except OSError as error:
            remedy = "Install the pipeline's package, or give its folder in spacy_model."
            raise ArtifactError(f"spaCy cannot load the pipeline: {error}", where=name, remedy=remedy) from error

    def columns(self, texts: pa.StringArray) -> Found:
        """The entities of each text in reading order; values are lookup keys."""
        return Found.of(self._spans(texts.to_pylist()))

    def _spans(self, texts: list[str]) -> Iterator[list[Span]]:
        for doc in self._nlp.pipe(texts):
            found = [(e.start_char, e.end_char, _LABELS[e.label_]) for e in doc.ents if e.label_ in _LABELS]
            if doc.has_annotation("DEP"):
                taken = {token.i for entity in doc.ents if entity.label_ in _LABELS for token in entity}
                chunks = [chunk for chunk in doc.noun_chunks if taken.isdisjoint(token.i for token in chunk)]
                found += [(chunk.start_char, chunk.end_char, "TITLE") for chunk in chunks]
            spans = [Span(start, end, label, vocabulary.key(doc.text[start:end])) for start, end, label in sorted(found)]
            yield [span for span in spans if span.value]
