"""From token ids to normalised vectors: PyTorch, or an OpenVINO graph, which is the faster on CPUs.

Legend: T texts, B texts in a batch, L tokens per text, D dimension of a vector.
"""

import contextlib
import importlib.util
import logging
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import openvino
import torch
from sentence_transformers import SentenceTransformer

from tritower.encoder.buckets import Indices, Ragged, Tokens, exact_length_batches
from tritower.encoder.fidelity import compare
from tritower.encoder.models import dimension
from tritower.encoder.unpadded import HalfWeights, Unpadded
from tritower.errors import ConfigError
from tritower.logs import drawn
from tritower.storage import write_json
from tritower.threads import chosen

Vectors = npt.NDArray[np.float32]
_UNDER_WAY = 2  # batches that a GPU has been given and nobody has asked for yet: one that runs, one that waits


class Backend(Protocol):
    """Something that encodes batches of equally long texts.

    `name` identifies its arithmetic, `token_budget` is the tokens per batch that it takes; `apart` says that it computes
    elsewhere than on the CPU, which is then free to tokenise.
    """

    name: str
    token_budget: int
    apart: bool

    def vectors(self, tokens: Ragged, batches: Sequence[Indices]) -> Iterator[Vectors]:
        """The L2-normalised vectors (B, D) of each batch's texts, in the order of the batches.

        Later batches may be under way already while one is looked at.
        """


def tokenise(model: SentenceTransformer, texts: Sequence[str]) -> tuple[Ragged, int]:
    """Token ids of each text with special tokens, cut at the model's maximal length, and how many texts were cut.

    An empty text has its special tokens only.
    """
    if not len(texts):
        return Ragged.of([]), 0
    tokenizer = model.tokenizer
    prompt = model.prompts.get(model.default_prompt_name or "", "")
    encodings = tokenizer(
        [prompt + text for text in texts] if prompt else list(texts),
        truncation=True,
        max_length=model.max_seq_length,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    cut = sum(1 for encoding in encodings.encodings if encoding.overflowing)
    return Ragged.of(encodings["input_ids"]), cut


def encode_all(backend: Backend, tokens: Ragged, dim: int) -> Vectors:
    """Vectors (T, D) of many texts, in the order given."""
    vector_TD: Vectors = np.empty((len(tokens), dim), np.float32)
    batches = exact_length_batches(tokens.length_T, backend.token_budget)
    for batch, vector_BD in zip(batches, backend.vectors(tokens, batches), strict=True):
        vector_TD[batch] = vector_BD
    return vector_TD


def encode_texts(model: SentenceTransformer, texts: Sequence[str], precision: str = "fp32") -> Vectors:
    """Vectors (T, D) of texts by PyTorch."""
    return encode_all(TorchBackend(model, precision), tokenise(model, texts)[0], dimension(model))


def native_precision(device: torch.device) -> str:
    """bf16 where the hardware multiplies it natively, else fp32.

    A GPU does from compute capability 8.0 on; on older ones PyTorch says that bf16 is supported, and emulates it.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


class TorchBackend:
    """A sentence-transformers model run by PyTorch.

    Args:
        model: in evaluation mode, on its device.
        precision: `fp32` or `bf16`.
        token_budget: tokens per batch.
        half_weights: in bf16, compute with a copy of the weights in bf16, as on a GPU, or under autocast, as on a CPU.
    """

    def __init__(
        self, model: SentenceTransformer, precision: str = "fp32", token_budget: int = 0, half_weights: bool | None = None
    ) -> None:
        self.apart = model.device.type != "cpu"
        self.token_budget = token_budget or (65536 if self.apart else 1024)
        halves = precision == "bf16" and (self.apart if half_weights is None else half_weights)
        self.name = f"torch-{precision}" + ("-weights" if halves else "")
        self._device, self._autocast = model.device, precision == "bf16" and not halves
        self._encode: Callable[[torch.Tensor], torch.Tensor] = HalfWeights(model).eval() if halves else _masked(model)

    def vectors(self, tokens: Ragged, batches: Sequence[Indices]) -> Iterator[Vectors]:
        """See `Backend`."""
        under_way: deque[Callable[[], Vectors]] = deque()
        for batch in batches:
            under_way.append(self._started(tokens.stack(batch)))
            if not self.apart or len(under_way) > _UNDER_WAY:
                yield under_way.popleft()()
        while under_way:
            yield under_way.popleft()()

    @torch.inference_mode()
    def _started(self, ids: Tokens) -> Callable[[], Vectors]:
        """Encode a batch; on a GPU, only give it the work. The result waits for the end."""
        ids_BL, on_gpu = torch.from_numpy(ids), self._device.type == "cuda"
        if on_gpu:
            ids_BL = ids_BL.pin_memory()
        ids_BL = ids_BL.to(self._device, non_blocking=True).long()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            vector_BD = self._encode(ids_BL)
        vector_BD = torch.nn.functional.normalize(vector_BD.float(), dim=-1)
        if not on_gpu:
            return vector_BD.cpu().numpy
        here_BD = torch.empty(vector_BD.shape, dtype=vector_BD.dtype, pin_memory=True)
        here_BD.copy_(vector_BD, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()

        def result() -> Vectors:
            copied.synchronize()
            return here_BD.numpy()

        return result


def _masked(model: SentenceTransformer) -> Callable[[torch.Tensor], torch.Tensor]:
    """The model as it is, with a mask that hides nothing."""

    def encode(ids_BL: torch.Tensor) -> torch.Tensor:
        vector_BD: torch.Tensor = model({"input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL)})["sentence_embedding"]
        return vector_BD

    return encode


class OpenVinoBackend:
    """The model as an OpenVINO graph on the CPU, one stream per thread, each batch on one of them.

    Args:
        graph: from `to_graph` or `quantise`.
        precision: `fp32`, `bf16` or `int8`; int8 graphs carry their arithmetic in themselves.
        token_budget: tokens per batch.
    """

    apart = False

    def __init__(self, graph: openvino.Model, precision: str = "fp32", token_budget: int = 0) -> None:
        self.name = f"openvino-{precision}"
        self.token_budget = token_budget or 1024
        streams = chosen()
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": streams,
            "NUM_STREAMS": streams,
        }
        self._compiled = openvino.Core().compile_model(graph, "CPU", settings)
        self._streams = streams

    def vectors(self, tokens: Ragged, batches: Sequence[Indices]) -> Iterator[Vectors]:
        """See `Backend`."""
        # Requests are collected by this thread: the callbacks of AsyncInferQueue can deadlock on the interpreter's lock when
        # the queue is destroyed.
        running: deque[openvino.InferRequest] = deque()
        idle: list[openvino.InferRequest] = []
        for batch in batches:
            if len(running) == self._streams:
                request = running.popleft()
                yield _result(request)
                idle.append(request)
            request = idle.pop() if idle else self._compiled.create_infer_request()
            request.start_async({0: tokens.stack(batch).astype(np.int64)})
            running.append(request)
        while running:
            yield _result(running.popleft())


def to_graph(model: SentenceTransformer) -> openvino.Model:
    """The whole encoder as an OpenVINO graph: `input_ids` (B, L) int64 in, L2-normalised vectors (B, D) out.

    The graph has no attention mask, as all texts of a batch are equally long; that is a tenth of its time saved.
    """
    ids_BL = torch.ones(2, 8, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's notes on branches that depend on padding, of which there is none
        graph = openvino.convert_model(Unpadded(model).eval(), example_input={"input_ids": ids_BL})
    return graph


def quantise(graph: openvino.Model, tokens: Ragged) -> openvino.Model:
    """`graph` in int8, with ranges calibrated on `tokens` (a few hundred texts).

    Raises:
        ConfigError: NNCF is not installed.
    """
    if importlib.util.find_spec("nncf") is None:
        raise ConfigError("int8 needs the package nncf", where="precision", remedy="Run `pip install nncf`, or use bf16.")
    nncf = _nncf()
    samples = nncf.Dataset([{"input_ids": row[None].astype(np.int64)} for row in tokens])
    with drawn():
        return nncf.quantize(
            graph,
            samples,
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(tokens),
        )


def with_int8_weights(graph: openvino.Model) -> openvino.Model:
    """`graph` with its weights in bytes, one scale and offset for each output; it needs no texts to calibrate on.

    A CPU with VNNI then multiplies bytes by bytes: OpenVINO rounds what goes into a product in groups of
    `DYNAMIC_QUANTIZATION_GROUP_SIZE`, while it computes. The graph given is changed.
    """
    nncf = _nncf()
    with drawn():
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_ASYM)


def _nncf() -> Any:
    """The package, whose log goes to standard error: warnings and worse."""
    with contextlib.redirect_stdout(sys.stderr):
        import nncf

    logging.getLogger("nncf").setLevel(logging.WARNING)
    return nncf


def export(model: SentenceTransformer, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Write what serving needs to `folder`: graph.xml and graph.bin, tokenizer.json, and export.json with the figures.

    Args:
        texts: a sample on which the graph, in fp32 and in the hardware's own precision, is compared with PyTorch in fp32.

    Returns:
        The content of export.json.
    """
    folder.mkdir(parents=True)
    graph = to_graph(model)
    save_graph(graph, folder / "graph.xml")
    model.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    tokens, _ = tokenise(model, texts)
    reference_SD = encode_all(TorchBackend(model), tokens, dimension(model))
    info: dict[str, Any] = {
        "format": "openvino",
        "input": "input_ids (B, L) int64, B texts of exactly L tokens with special tokens, no padding",
        "output": "(B, D) float32, L2-normalised",
        "dim": dimension(model),
        "max_tokens": int(model.max_seq_length or 0),
        "fidelity": {
            precision: compare(encode_all(OpenVinoBackend(graph, precision), tokens, dimension(model)), reference_SD)
            for precision in sorted({"fp32", native_precision(torch.device("cpu"))})
        },
    }
    write_json(folder / "export.json", info)
    return info


def save_graph(graph: openvino.Model, path: Path) -> None:
    """Write `path` (.xml) and the weights beside it (.bin), as they are."""
    openvino.save_model(graph, path, compress_to_fp16=False)


def read_graph(path: Path) -> openvino.Model:
    """The graph of an .xml file."""
    return openvino.Core().read_model(path)


def _result(request: openvino.InferRequest) -> Vectors:
    """What a request has computed; a copy, as the request is used again."""
    request.wait()
    vector_BD: Vectors = request.get_output_tensor(0).data.copy()
    return vector_BD
