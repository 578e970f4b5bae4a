"""The text encoder of a bundle, without torch: an OpenVINO graph on the CPU and the tokeniser's file.

encoder.json     {"encoder", "dim", "max_tokens", "prompt", "precision", "fidelity"}: `encoder` is the hash that embeddings of
                 this encoder carry
graph.xml, .bin  token ids (B, L) int64 in, L2-normalised vectors (B, D) float32 out; no padding, no mask
tokenizer.json   of the package tokenizers

Legend: X texts, L tokens of a text, D dimension.
"""

import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from tokenizers import Tokenizer

from tritower import storage
from tritower.errors import ArtifactError

FILE = "encoder.json"
_FIRST = 2
_KEPT = 8192  # vectors of the texts asked for last: 12 MB with 384 dimensions
Vectors = npt.NDArray[np.float32]


class TextEncoder:
    """Texts in, unit vectors out. Any number of threads may call it; each text is one inference on one core, one at a time.

    Two faults of OpenVINO 2026.4 are kept away from. Two threads that hand it inputs at once can wait for each other for ever,
    about once in ten starts. And a graph whose first input ever has one token gives wrong vectors (by .3) for every text
    of 16 tokens and more.

    Attributes:
        identity: the encoder's hash.
        dim: D.
    """

    def __init__(self, folder: Path, kept: int = _KEPT) -> None:
        """Load it.

        Args:
            folder: the part `encoder` of a bundle.
            kept: vectors remembered, those of the texts asked for last; 0 = none.

        Raises:
            ArtifactError: the graph or the tokeniser cannot be read.
        """
        facts = storage.read_json(folder / FILE)
        self.identity, self.dim, self.max_tokens = str(facts["encoder"]), int(facts["dim"]), int(facts["max_tokens"])
        self._prompt = str(facts["prompt"])
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            graph = openvino.Core().read_model(folder / "graph.xml")
            compiled = openvino.Core().compile_model(graph, "CPU", self._settings(str(facts["precision"])))
        except Exception as error:  # the tokenisers raise nothing narrower
            remedy = "Make the bundle again."
            raise ArtifactError(f"the encoder cannot be read: {error}", where=str(folder), remedy=remedy) from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_tokens)
        self._request, self._infers = compiled.create_infer_request(), threading.Lock()
        self._infer(np.ones((1, _FIRST), np.int64))
        self._vector = functools.lru_cache(kept)(self._encoded) if kept else self._encoded

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Vectors (X, D) of texts, L2-normalised; an empty text has its special tokens only."""
        out_XD: Vectors = np.empty((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            out_XD[row] = self._vector(text)
        return out_XD

    def warm(self, tokens: int = 64) -> None:
        """Infer once for every length up to `tokens`: the first inference of a length costs the most."""
        for length in range(1, min(tokens, self.max_tokens) + 1):
            self._infer(np.ones((1, length), np.int64))

    @staticmethod
    def _settings(precision: str) -> dict[str, Any]:
        hint = "bf16" if precision == "bf16" else "f32"
        return {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}

    def _encoded(self, text: str) -> Vectors:
        ids = self._tokenizer.encode(self._prompt + text).ids
        return self._infer(np.array([ids], np.int64))

    def _infer(self, ids_1L: npt.NDArray[np.int64]) -> Vectors:
        with self._infers:
            self._request.infer({0: ids_1L})
            vector_D: Vectors = self._request.get_output_tensor(0).data[0].copy()
        return vector_D
