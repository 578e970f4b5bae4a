"""The text encoder of a bundle, without torch: an OpenVINO graph on the CPU and the tokeniser's file.

encoder.json     {"encoder", "dim", "max_tokens", "prompt", "fidelity"}: `encoder` is the hash that embeddings of this encoder
                 carry; `fidelity` says of each precision how near its vectors come to those of torch in fp32
graph.xml, .bin  token ids (B, L) int64 in, L2-normalised vectors (B, D) float32 out; no padding, no mask
graph_int8.*     the same with weights in bytes; not in bundles of format 1
tokenizer.json   of the package tokenizers

fp32 and bf16 are one graph, computed otherwise. Decision 0037 has the figures of all three.

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
from tritower.serving import bundle
from tritower.serving.config import Precision

FILE = "encoder.json"
INT8 = "graph_int8.xml"
_FIRST = 2
_GROUP = 32  # numbers with a scale of their own, of what a layer takes in; wider groups were less exact and not faster
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

    def __init__(self, folder: Path, precision: Precision = "fp32", kept: int = _KEPT) -> None:
        """Load it.

        Args:
            folder: the part `encoder` of a bundle.
            precision: what it computes in.
            kept: vectors remembered, those of the texts asked for last; 0 = none.

        Raises:
            ArtifactError: the graph or the tokeniser cannot be read, or the bundle has no graph of this precision.
        """
        file = folder / (INT8 if precision == "int8" else "graph.xml")
        if precision == "int8" and not file.exists():
            remedy = f"{bundle.AGAIN} Or serve it with precision=fp32."
            raise ArtifactError("the encoder of this bundle has no graph in int8", where=str(folder), remedy=remedy)
        facts = storage.read_json(folder / FILE)
        self.identity, self.dim, self.max_tokens = str(facts["encoder"]), int(facts["dim"]), int(facts["max_tokens"])
        self._prompt = str(facts["prompt"])
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            graph = openvino.Core().read_model(file)
            compiled = openvino.Core().compile_model(graph, "CPU", self._settings(precision))
        except Exception as error:  # the tokenisers raise nothing narrower
            raise ArtifactError(f"the encoder cannot be read: {error}", where=str(folder), remedy=bundle.AGAIN) from error
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
    def _settings(precision: Precision) -> dict[str, Any]:
        hint, group = "bf16" if precision == "bf16" else "f32", _GROUP if precision == "int8" else 0
        one = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
        return {"INFERENCE_PRECISION_HINT": hint, "DYNAMIC_QUANTIZATION_GROUP_SIZE": group, **one}

    def _encoded(self, text: str) -> Vectors:
        ids = self._tokenizer.encode(self._prompt + text).ids
        return self._infer(np.array([ids], np.int64))

    def _infer(self, ids_1L: npt.NDArray[np.int64]) -> Vectors:
        with self._infers:
            self._request.infer({0: ids_1L})
            vector_D: Vectors = self._request.get_output_tensor(0).data[0].copy()
        return vector_D
