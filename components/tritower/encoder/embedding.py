"""Choosing a backend by measured fidelity, and encoding what a cache of vectors lacks.

Legend: T texts, D dimension.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from tritower.encoder import backends, buckets, distributed, fidelity, models
from tritower.encoder.backends import Backend, OpenVinoBackend, TorchBackend
from tritower.encoder.cache import VectorCache, keys_of
from tritower.encoder.config import EmbedConfig
from tritower.logs import progress

LOG = logging.getLogger(__name__)
GRAPH = Path("export") / "graph.xml"


def choose(
    model: SentenceTransformer, folder: Path, texts: Sequence[str], config: EmbedConfig
) -> tuple[Backend, dict[str, float]]:
    """The backend for `texts` and its fidelity on a sample of them, against fp32 by PyTorch.

    A precision that `auto` picked gives way to fp32 when its neighbours agree less than `min_overlap`.

    Args:
        folder: the model's; a graph exported there is used as it is.
    """
    sample = np.random.default_rng(0).permutation(len(texts))[: config.check_texts]
    tokens, _ = backends.tokenise(model, [texts[i] for i in sample])
    dim = models.dimension(model)
    reference_SD = backends.encode_all(TorchBackend(model), tokens, dim)
    wanted = backends.native_precision(model.device) if config.precision == "auto" else config.precision
    while True:
        backend = _build(model, folder, wanted, tokens, config)
        figures = fidelity.compare(backends.encode_all(backend, tokens, dim), reference_SD)
        good = figures["top10_overlap"] >= config.min_overlap
        if good or config.precision != "auto" or wanted == "fp32":
            break
        LOG.info("%s agrees on %.3f of the nearest texts, less than min_overlap: fp32 it is", wanted, figures["top10_overlap"])
        wanted = "fp32"
    if not good:
        LOG.warning("%s agrees with fp32 on only %.3f of the ten nearest texts", backend.name, figures["top10_overlap"])
    return backend, figures


def fill(
    cache: VectorCache,
    texts: Sequence[str],
    model: SentenceTransformer,
    backend: Backend,
    *,
    segment_texts: int,
) -> tuple[int, int]:
    """Encode the texts that `cache` lacks; under torchrun with W processes, each takes every W-th batch.

    The batches are planned over all missing texts, so they, and with them the vectors, do not depend on W.

    Returns:
        The texts that were missing, over all processes, and how many of them were longer than the model reads.
    """
    keys = keys_of(texts)
    missing = cache.missing(keys)
    distributed.wait()  # nobody may add what another process still has to find missing
    tokens, cut = backends.tokenise(model, [texts[i] for i in missing])
    lengths = np.fromiter(map(len, tokens), np.int32, len(tokens))
    batches = buckets.exact_length_batches(lengths, backend.token_budget)[distributed.rank() :: distributed.world()]
    groups = list(_groups(batches, segment_texts))
    for group in progress(groups, name="embed", unit="segments"):
        inside = np.concatenate(group)
        row_of = np.empty(len(tokens), np.int64)
        row_of[inside] = np.arange(len(inside))
        vector_UD = np.empty((len(inside), cache.dim), np.float16)
        backend.encode_batches([tokens[i] for i in inside], [row_of[batch] for batch in group], vector_UD)
        cache.add(keys.take(missing[inside]), vector_UD)
    return len(missing), cut


def _groups(batches: Sequence[buckets.Indices], texts: int) -> Iterator[list[buckets.Indices]]:
    group: list[buckets.Indices] = []
    for batch in batches:
        group.append(batch)
        if sum(map(len, group)) >= texts:
            yield group
            group = []
    if group:
        yield group


def _build(
    model: SentenceTransformer, folder: Path, precision: str, tokens: Sequence[backends.Tokens], config: EmbedConfig
) -> Backend:
    if config.backend == "torch" or (config.backend == "auto" and model.device.type != "cpu"):
        return TorchBackend(model, precision, config.token_budget)
    graph = backends.read_graph(folder / GRAPH) if (folder / GRAPH).exists() else backends.to_graph(model)
    if precision == "int8":
        graph = backends.quantise(graph, tokens)
    return OpenVinoBackend(graph, precision, config.token_budget)
