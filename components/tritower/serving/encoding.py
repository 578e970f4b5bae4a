"""The text encoder of a bundle, without torch: an OpenVINO graph on the CPU and the tokeniser's file.

encoder.json     {"encoder", "dim", "max_tokens", "prompt", "precision", "fidelity"}: `encoder` is the hash that embeddings of
                 this encoder carry
graph.xml, .bin  token ids (B, L) int64 in, L2-normalised vectors (B, D) float32 out; no padding, no mask
tokenizer.json   of the package tokenizers

Legend: X texts, L tokens of a text, D dimension.
"""

import functools
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from tokenizers import Tokenizer

from tritower import storage, threads
from tritower.errors import ArtifactError

FILE = "encoder.json"
_KEPT = 8192  # vectors of the texts asked for last: 12 MB with 384 dimensions
Vectors = npt.NDArray[np.float32]


class TextEncoder:
    """Texts in, unit vectors out. Any number of threads may call it; each text is one inference on one core.

    Attributes:
        identity: the encoder's hash.
        dim: D.
    """

    def __init__(self, folder: Path, streams: int = 0, kept: int = _KEPT) -> None:
        """Load it.

        Args:
            folder: the part `encoder` of a bundle.
            streams: inferences at once; 0 = as many as this process has cores.
            kept: vectors remembered, those of the texts asked for last; 0 = none.

        Raises:
            ArtifactError: the graph or the tokeniser cannot be read.
        """
        facts = storage.read_json(folder / FILE)
        self.identity, self.dim, self.max_tokens = str(facts["encoder"]), int(facts["dim"]), int(facts["max_tokens"])
        self._prompt = str(facts["prompt"])
        self._streams = streams or threads.available()
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            graph = openvino.Core().read_model(folder / "graph.xml")
            compiled = openvino.Core().compile_model(graph, "CPU", self._settings(str(facts["precision"])))
        except Exception as error:
            remedy = "Make the bundle again."
            raise ArtifactError(f"the encoder cannot be read: {error}", where=str(folder), remedy=remedy) from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_tokens)
        self._compiled = compiled
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self._streams):
            self._free.put(compiled.create_infer_request())
        self._vector = functools.lru_cache(kept)(self._encoded) if kept else self._encoded

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Vectors (X, D) of texts, L2-normalised; an empty text has its special tokens only."""
        out_XD: Vectors = np.empty((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            out_XD[row] = self._vector(text)
        return out_XD

    def warm(self, tokens: int = 64) -> None:
        """Infer once for every length up to `tokens`, on every stream: the first inference of a length costs the most."""
        lengths = range(1, min(tokens, self.max_tokens) + 1)
        meet = threading.Barrier(self._streams)

        def all_lengths() -> None:
            for length in lengths:
                meet.wait()  # as many inferences at once as there are streams: each stream takes one
                self._infer(np.ones((1, length), np.int64))

        running = [threading.Thread(target=all_lengths) for _ in range(self._streams)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    def _settings(self, precision: str) -> dict[str, Any]:
        hint = "bf16" if precision == "bf16" else "f32"
        return {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": self._streams, "NUM_STREAMS": self._streams}

    def _encoded(self, text: str) -> Vectors:
        ids = self._tokenizer.encode(self._prompt + text).ids
        return self._infer(np.array([ids], np.int64))

    def _infer(self, ids_1L: npt.NDArray[np.int64]) -> Vectors:
        request = self._free.get()
        try:
            request.infer({0: ids_1L})
            vector_D: Vectors = request.get_output_tensor(0).data[0].copy()
        finally:
            self._free.put(request)
        return vector_D
