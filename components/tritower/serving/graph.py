"""The text encoder as an OpenVINO graph on the CPU, one inference at a time.

Legend: L tokens of a text, D dimension.
"""

import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import openvino

_GROUP = 32  # numbers with a scale of their own, of what a layer takes in; wider groups were less exact and not faster
_FIRST = 2


class Graph:
    """Token ids in, a unit vector out. Any number of threads may call it.

    Two faults of OpenVINO 2026.4 are kept away from. Two threads that hand it inputs at once can wait for each other for ever,
    about once in ten starts. And a graph whose first input ever has one token gives wrong vectors (by .3) for every text
    of 16 tokens and more.
    """

    def __init__(self, file: Path, precision: Literal["fp32", "bf16", "int8"]) -> None:
        """Compile it.

        Args:
            file: its .xml.
            precision: what it computes in.

        Raises:
            Exception: OpenVINO cannot read it; it raises nothing narrower.
        """
        graph = openvino.Core().read_model(file)
        hint, group = "bf16" if precision == "bf16" else "f32", _GROUP if precision == "int8" else 0
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "DYNAMIC_QUANTIZATION_GROUP_SIZE": group}
        compiled = openvino.Core().compile_model(graph, "CPU", settings | {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1})
        self._request, self._infers = compiled.create_infer_request(), threading.Lock()
        self(np.ones(_FIRST, np.int64))

    def __call__(self, ids_L: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The L2-normalised vector (D,) of a text's tokens."""
        with self._infers:
            self._request.infer({0: ids_L[None]})
            vector_D: npt.NDArray[np.float32] = self._request.get_output_tensor(0).data[0].copy()
        return vector_D

    def warm(self, tokens: int) -> None:
        """Infer once for every length: the first inference of a length costs the most."""
        for length in range(1, tokens + 1):
            self(np.ones(length, np.int64))
