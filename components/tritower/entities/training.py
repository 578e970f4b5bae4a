"""Training of the small NER on synthetic texts."""

import logging
import random
from collections.abc import Sequence
from typing import Any

from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Adam, fix_random_seed

from tritower import logs
from tritower.entities import corpus, model
from tritower.entities.corpus import Annotated
from tritower.entities.spans import LABELS

_LOG = logging.getLogger(__name__)
LEARN_RATE = 0.004
BATCH_FROM, BATCH_TO = 32, 256
"""Texts per update: grows over the first half of training (compounding batches keep the early updates cheap and noisy)."""


def train(count: int, seed: int) -> Any:
    """A pipeline trained on `count` synthetic texts, each seen once. Same count and seed, same weights.

    Args:
        count: number of texts, at least 1. The shipped model took 240,000.
        seed: of the texts and of the initial weights.
    """
    fix_random_seed(seed)
    nlp = model.create()
    texts = list(corpus.texts(count, seed))
    recogniser = nlp.get_pipe("ner")
    for label in LABELS:
        recogniser.add_label(label)
    sample = [_example(nlp.vocab, text) for text in texts[:200]]
    nlp.initialize(lambda: sample)
    optimizer = Adam(LEARN_RATE, L2=0.0, grad_clip=1.0)
    done, steps, loss = 0, 0, 0.0
    random.Random(seed).shuffle(texts)
    with logs.phase(_LOG, "train") as counts:
        while done < count:
            progress = done / count
            size = round(BATCH_FROM + (BATCH_TO - BATCH_FROM) * min(1.0, 2 * progress))
            optimizer.learn_rate = LEARN_RATE * min(1.0, 2 * (1 - progress) + 0.02)
            batch = [_example(nlp.vocab, text) for text in texts[done : done + size]]
            losses = recogniser.update(batch, drop=0.1, sgd=optimizer)
            loss = 0.98 * loss + 0.02 * losses["ner"] / len(batch) if steps else losses["ner"] / len(batch)
            done, steps = done + len(batch), steps + 1
            if steps % 100 == 0:
                _LOG.info("%d texts, loss per text %.3f", done, loss)
        counts.update(texts=count, steps=steps)
    return nlp


def _example(vocab: Any, annotated: Annotated) -> Example:
    words, starts = model.cut(annotated.text)
    tags = ["O"] * len(words)
    for span in annotated.spans:
        inside: Sequence[int] = [i for i, start in enumerate(starts) if span.start <= start < span.end]
        for i in inside:
            tags[i] = f"I-{span.label}"
        if inside:
            tags[inside[0]] = f"B-{span.label}"
            tags[inside[-1]] = f"L-{span.label}" if len(inside) > 1 else f"U-{span.label}"
    return Example.from_dict(Doc(vocab, words=words or ["-"]), {"entities": tags or ["O"]})
