"""From token ids to normalised vectors: PyTorch, or an OpenVINO graph, which is the faster on CPUs.

Legend: T texts, B texts in a batch, L tokens per text, D dimension of a vector.
"""

import importlib.util
import warnings
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import openvino
import torch
from sentence_transformers import SentenceTransformer

from tritower.encoder.buckets import Indices, exact_length_batches
from tritower.encoder.fidelity import compare
from tritower.encoder.models import dimension, transformer_of
from tritower.errors import ConfigError
from tritower.storage import write_json
from tritower.threads import chosen

Vectors = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]


class Backend(Protocol):
    """Something that encodes batches of equally long texts; `name` identifies its arithmetic."""

    name: str
    token_budget: int

    def encode_batches(self, tokens: Sequence[Tokens], batches: Sequence[Indices], out_TD: Any) -> None:
        """Write the L2-normalised vectors of each batch's texts to their rows of `out_TD`."""


def tokenise(model: SentenceTransformer, texts: Sequence[str]) -> tuple[list[Tokens], int]:
    """Token ids of each text with special tokens, cut at the model's maximal length, and how many texts were cut.

    An empty text has its special tokens only.
    """
    if not len(texts):
        return [], 0
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
    return [np.asarray(ids, np.int32) for ids in encodings["input_ids"]], cut


def encode_all(backend: Backend, tokens: Sequence[Tokens], dim: int) -> Vectors:
    """Vectors (T, D) of many texts, in the order given."""
    vector_TD: Vectors = np.empty((len(tokens), dim), np.float32)
    lengths = np.fromiter(map(len, tokens), np.int32, len(tokens))
    backend.encode_batches(tokens, exact_length_batches(lengths, backend.token_budget), vector_TD)
    return vector_TD


def encode_texts(model: SentenceTransformer, texts: Sequence[str], precision: str = "fp32") -> Vectors:
    """Vectors (T, D) of texts by PyTorch."""
    return encode_all(TorchBackend(model, precision), tokenise(model, texts)[0], dimension(model))


def native_precision(device: torch.device) -> str:
    """bf16 where the hardware multiplies it natively, else fp32."""
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return "bf16" if native else "fp32"


class TorchBackend:
    """A sentence-transformers model run by PyTorch, in fp32 or under bf16 autocast.

    Args:
        model: in evaluation mode, on its device.
        precision: `fp32` or `bf16`.
        token_budget: tokens per batch.
    """

    def __init__(self, model: SentenceTransformer, precision: str = "fp32", token_budget: int = 0) -> None:
        self.model = model
        self.precision = precision
        self.token_budget = token_budget or (1024 if model.device.type == "cpu" else 65536)
        self.name = f"torch-{precision}"

    @torch.inference_mode()
    def encode_batches(self, tokens: Sequence[Tokens], batches: Sequence[Indices], out_TD: Any) -> None:
        """See `Backend`."""
        device = self.model.device
        for batch in batches:
            ids_BL = torch.from_numpy(np.stack([tokens[i] for i in batch])).long().to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                vector_BD = self.model({"input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL)})["sentence_embedding"]
            out_TD[batch] = torch.nn.functional.normalize(vector_BD.float(), dim=-1).cpu().numpy()


class OpenVinoBackend:
    """The model as an OpenVINO graph on the CPU, one stream per thread, each batch on one of them.

    Args:
        graph: from `to_graph` or `quantise`.
        precision: `fp32`, `bf16` or `int8`; int8 graphs carry their arithmetic in themselves.
        token_budget: tokens per batch.
    """

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

    def encode_batches(self, tokens: Sequence[Tokens], batches: Sequence[Indices], out_TD: Any) -> None:
        """See `Backend`."""
        # Requests are collected by this thread: the callbacks of AsyncInferQueue can deadlock on the interpreter's lock when
        # the queue is destroyed.
        running: deque[tuple[openvino.InferRequest, Indices]] = deque()
        for batch in batches:
            request = _collect(running, out_TD) if len(running) == self._streams else self._compiled.create_infer_request()
            request.start_async({0: np.stack([tokens[i] for i in batch]).astype(np.int64)})
            running.append((request, batch))
        while running:
            _collect(running, out_TD)


def to_graph(model: SentenceTransformer) -> openvino.Model:
    """The whole encoder as an OpenVINO graph: `input_ids` (B, L) int64 in, L2-normalised vectors (B, D) out.

    The graph has no attention mask, as all texts of a batch are equally long; that is a tenth of its time saved.
    """
    ids_BL = torch.ones(2, 8, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's notes on branches that depend on padding, of which there is none
        graph = openvino.convert_model(_Unmasked(model).eval(), example_input={"input_ids": ids_BL})
    return graph


def quantise(graph: openvino.Model, tokens: Sequence[Tokens]) -> openvino.Model:
    """`graph` in int8, with ranges calibrated on `tokens` (a few hundred texts).

    Raises:
        ConfigError: NNCF is not installed.
    """
    if importlib.util.find_spec("nncf") is None:
        raise ConfigError("int8 needs the package nncf", where="precision", remedy="Run `pip install nncf`, or use bf16.")
    import nncf

    samples = nncf.Dataset([{"input_ids": row[None].astype(np.int64)} for row in tokens])
    return nncf.quantize(
        graph,
        samples,
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(tokens),
    )


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


def _collect(running: "deque[tuple[openvino.InferRequest, Indices]]", out_TD: Any) -> openvino.InferRequest:
    request, batch = running.popleft()
    request.wait()
    out_TD[batch] = request.get_output_tensor(0).data
    return request


class _Unmasked(torch.nn.Module):
    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.transformer = transformer_of(model)
        self.rest = torch.nn.ModuleList(list(model.children())[1:])

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        features = {
            "token_embeddings": self.transformer(input_ids=input_ids)[0],
            "attention_mask": torch.ones_like(input_ids),
        }
        for module in self.rest:
            features = module(features)
        return torch.nn.functional.normalize(features["sentence_embedding"], dim=-1)
