"""The text encoder of a bundle, without torch.

encoder.json     {"encoder", "dim", "max_tokens", "prompt", "fidelity"}: `encoder` is the hash that embeddings of this encoder
                 carry; `fidelity` says of each precision how near its vectors come to those of torch in fp32
tokenizer.json   of the package tokenizers
halves.*, ...    weights in float16, for `encoder/transformer.py`; absent where the encoder is not one that it computes, and
                 in older bundles
graph.xml, .bin  for OpenVINO (`graph.py`): token ids (B, L) int64 in, L2-normalised vectors (B, D) float32 out; no padding, no
                 mask
graph_int8.*     the same with weights in bytes; not in bundles of format 1

fp32 and bf16 are one graph, computed otherwise. Decisions 0037 and 0045 have the figures of all four.

Legend: X texts, L tokens of a text, D dimension.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from tritower import storage
from tritower.encoder.transformer import FACTS, Transformer
from tritower.errors import ArtifactError
from tritower.serving import bundle
from tritower.serving.config import Precision

if TYPE_CHECKING:
    from tritower.serving.graph import Graph

FILE, FLOAT, INT8 = "encoder.json", "graph.xml", "graph_int8.xml"
_KEPT = 8192  # vectors of the texts asked for last: 12 MB with 384 dimensions
_WITHOUT: dict[Precision, tuple[str, str]] = {
    "fp16": (FACTS, "It has them where the encoder is BERT with mean pooling."),
    "int8": (INT8, bundle.AGAIN),
}
"""Precision -> the file that a bundle may lack, and what to do then."""
Vectors = npt.NDArray[np.float32]


class TextEncoder:
    """Texts in, unit vectors out. Any number of threads may call it; each text is one inference on one core.

    Attributes:
        identity: the encoder's hash.
        dim: D.
        precision: what it computes in, never `auto`.
    """

    def __init__(self, folder: Path, precision: Precision = "auto", kept: int = _KEPT) -> None:
        """Load it.

        Args:
            folder: the part `encoder` of a bundle.
            precision: what it computes in; `auto` is fp16 where the bundle has the weights for it, else fp32.
            kept: vectors remembered, those of the texts asked for last; 0 = none.

        Raises:
            ArtifactError: weights, graph or tokeniser cannot be read, or the bundle has none for this precision.
        """
        if precision == "auto":
            precision = "fp16" if (folder / FACTS).exists() else "fp32"
        file, remedy = _WITHOUT.get(precision, (FILE, ""))
        if not (folder / file).exists() and remedy:
            problem = f"the encoder of this bundle has no weights in {precision}"
            raise ArtifactError(problem, where=str(folder), remedy=f"{remedy} Or serve it with precision=fp32.")
        self.precision = precision
        facts = storage.read_json(folder / FILE)
        self.identity, self.dim, self.max_tokens = str(facts["encoder"]), int(facts["dim"]), int(facts["max_tokens"])
        self._prompt = str(facts["prompt"])
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._network = Transformer(folder) if precision == "fp16" else _graph(folder, precision)
        except ArtifactError:
            raise
        except Exception as error:  # the tokenisers raise nothing narrower
            raise ArtifactError(f"the encoder cannot be read: {error}", where=str(folder), remedy=bundle.AGAIN) from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_tokens)
        self._vector = functools.lru_cache(kept)(self._encoded) if kept else self._encoded

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Vectors (X, D) of texts, L2-normalised; an empty text has its special tokens only."""
        out_XD: Vectors = np.empty((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            out_XD[row] = self._vector(text)
        return out_XD

    def warm(self, tokens: int = 64) -> None:
        """Do once what costs more the first time, for texts of up to `tokens` tokens."""
        self._network.warm(min(tokens, self.max_tokens))

    def _encoded(self, text: str) -> Vectors:
        return self._network(np.array(self._tokenizer.encode(self._prompt + text).ids, np.int64))


def _graph(folder: Path, precision: Precision) -> "Graph":
    """OpenVINO takes half a second to import: only where it computes."""
    from tritower.serving.graph import Graph

    assert precision in ("fp32", "bf16", "int8"), precision
    return Graph(folder / (INT8 if precision == "int8" else FLOAT), precision)
