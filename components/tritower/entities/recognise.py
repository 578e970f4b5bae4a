"""The entities of texts as rows of `schema.ENTITIES`: what the step writes, and what a server asks for a new text.

Legend: N spans.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from tritower import schema
from tritower.entities import generic, lexicon, model
from tritower.entities.combine import Combined, Guessed
from tritower.entities.config import EntitiesConfig
from tritower.entities.gazetteer import Gazetteer
from tritower.entities.spans import LABELS, Finder

_LABEL_NAMES = pa.array(LABELS)
_LABEL_RANK = np.argsort(np.argsort(LABELS))


def recogniser(config: EntitiesConfig, employers: Sequence[str] = ()) -> Callable[[Sequence[str]], pa.Table]:
    """A function from texts to their entities (`schema.ENTITIES`; `text` is the position among the texts).

    Args:
        config: that of the step whose entities it goes on from.
        employers: all names of companies in the jobs, in alphabetical order, as the step takes them.
    """
    find = finder(config, employers if config.companies else ())

    def recognise(texts: Sequence[str]) -> pa.Table:
        batch = {"text": pa.array(range(len(texts)), pa.int32()), "value": pa.array(texts, pa.string())}
        return table(pa.RecordBatch.from_pydict(batch), find)

    return recognise


def finder(config: EntitiesConfig, employers: Sequence[str] = ()) -> Finder:
    """The recogniser that a config asks for."""
    if config.method == "spacy":
        return generic.Generic(config.spacy_model)
    words = lexicon.default()
    gazetteer = Gazetteer(words, lexicon.companies(words, employers))
    if config.method == "gazetteer":
        return gazetteer
    recogniser = model.read(config.ner_model or None)
    return Guessed(gazetteer, recogniser) if config.method == "ner" else Combined(gazetteer, recogniser)


def table(batch: pa.RecordBatch, find: Finder) -> pa.Table:
    """The entities of a batch of texts (columns `text` and `value`) as rows of `schema.ENTITIES`, each once."""
    found = find.columns(batch.column("value"))
    order = np.lexsort((_LABEL_RANK[found.label_N], found.end_N, found.start_N, found.text_N))
    # A span may be both an inner and an outer one: equal rows follow one another and all but one go.
    found = found.take(order)
    value_N = found.value_N.dictionary_encode().indices.to_numpy()
    keys_5N = np.stack([found.text_N, found.start_N, found.end_N, found.label_N, value_N])
    first_N = np.ones(len(order), np.bool_)
    first_N[1:] = (keys_5N[:, 1:] != keys_5N[:, :-1]).any(axis=0)
    found = found if first_N.all() else found.take(np.flatnonzero(first_N))
    columns = {
        "text": batch.column("text").take(pa.array(found.text_N)), "label": _LABEL_NAMES.take(pa.array(found.label_N)),
        "value": found.value_N, "start": found.start_N, "end": found.end_N,
    }  # fmt: skip
    return pa.table(columns, schema=schema.ENTITIES.arrow())
