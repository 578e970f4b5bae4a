"""The small spaCy NER: how it is built, cut into tokens, run, written and read.

Architecture: hashed embeddings of the lower-case form, first letter, last three letters and shape (width 64), two convolution
layers of window 1, spaCy's transition-based entity recogniser on top. spaCy's own pipeline object is left out at prediction:
documents are made from ready tokens, predicted in one batch.
"""

import gzip
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import spacy
import srsly
from spacy.tokens import Doc
from thinc.api import NumpyOps, set_current_ops

from tritower import storage
from tritower.entities.spans import Span, no_collection
from tritower.errors import ArtifactError

FORMAT = 1
WIDTH, DEPTH, ROWS = 64, 2, 4000
_AT_ONCE = 256
"""Texts predicted in one pass: enough for the matrix products, and what they need stays in the processor's cache."""
_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)*[+#]*|[^\w\s]|_")


def create() -> Any:
    """A blank English pipeline with the recogniser, weights not yet initialised.

    BLIS, thinc's default matrix product, picks a slow kernel on recent AMD processors; NumPy's is used instead.
    """
    set_current_ops(NumpyOps(use_blis=False))
    nlp = spacy.blank("en")
    embed = {
        "@architectures": "spacy.HashEmbedCNN.v2", "pretrained_vectors": None, "width": WIDTH, "depth": DEPTH,
        "embed_size": ROWS, "window_size": 1, "maxout_pieces": 2, "subword_features": True,
    }  # fmt: skip
    parser = {
        "@architectures": "spacy.TransitionBasedParser.v2", "state_type": "ner", "extra_state_tokens": False,
        "hidden_width": 64, "maxout_pieces": 2, "use_upper": False, "tok2vec": embed,
    }  # fmt: skip
    nlp.add_pipe("ner", config={"model": parser})
    return nlp


def cut(text: str) -> tuple[list[str], list[int]]:
    """Tokens as written, signs apart, and the character each starts at."""
    found = list(_TOKEN.finditer(text))
    return [match[0] for match in found], [match.start() for match in found]


class Recogniser:
    """A trained model ready to find entities."""

    def __init__(self, nlp: Any) -> None:
        self._nlp = nlp
        self._recogniser = nlp.get_pipe("ner")

    def find(self, texts: Sequence[str]) -> Iterator[list[Span]]:
        """The entities of each text in reading order; values are empty."""
        for start in range(0, len(texts), _AT_ONCE):
            with no_collection():
                found = self._predicted(texts[start : start + _AT_ONCE])
            yield from found

    def _predicted(self, texts: Sequence[str]) -> list[list[Span]]:
        tokens = [cut(text) for text in texts]
        docs = [Doc(self._nlp.vocab, words=words) for words, _ in tokens]
        filled = [doc for doc in docs if len(doc)]
        if filled:
            self._recogniser.set_annotations(filled, self._recogniser.predict(filled))
        return [
            [
                Span(starts[entity.start], starts[entity.end - 1] + len(words[entity.end - 1]), entity.label_, "")
                for entity in doc.ents
            ]
            for doc, (words, starts) in zip(docs, tokens, strict=True)
        ]


def write(nlp: Any, path: str | Path) -> None:
    """Write the weights as compressed MessagePack; the same weights give the same bytes. No pickle is involved."""
    weights = nlp.get_pipe("ner").to_bytes(exclude=["vocab"])
    packed: bytes = srsly.msgpack_dumps({"format": FORMAT, "width": WIDTH, "depth": DEPTH, "rows": ROWS, "ner": weights})
    with storage.atomic_file(path) as temporary:
        temporary.write_bytes(gzip.compress(packed, 9, mtime=0))


def read(path: str | Path | None = None) -> Recogniser:
    """The model in a file, or the one that ships with the package.

    Raises:
        ArtifactError: the file is no model of this format and shape.
    """
    source = Path(path) if path else Path(str(resources.files(__package__).joinpath("data", "job_ner.gz")))
    try:
        content = srsly.msgpack_loads(gzip.decompress(source.read_bytes()))
        shape = {name: content[name] for name in ("format", "width", "depth", "rows")}
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"the model cannot be read: {error}", where=str(source), remedy="Train it anew.") from error
    if shape != {"format": FORMAT, "width": WIDTH, "depth": DEPTH, "rows": ROWS}:
        raise ArtifactError(f"the model has the shape {shape}", where=str(source), remedy="Train it with this version.")
    nlp = create()
    nlp.get_pipe("ner").from_bytes(content["ner"], exclude=["vocab"])
    return Recogniser(nlp)
