"""Choosing a backend by measured fidelity, and encoding what a cache of vectors lacks.

Legend: T texts, D dimension.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer

from tritower import storage
from tritower.encoder import backends, buckets, distributed, fidelity, models
from tritower.encoder.backends import Backend, OpenVinoBackend, TorchBackend
from tritower.encoder.cache import VectorCache, keys_of
from tritower.encoder.config import EmbedConfig
from tritower.errors import ArtifactError
from tritower.logs import progress

LOG = logging.getLogger(__name__)
GRAPH = Path("export") / "graph.xml"
_CHECKED_ROWS = 65_536


def choose(
    model: SentenceTransformer, folder: Path, texts: Sequence[str], config: EmbedConfig, memory: Path | None = None
) -> tuple[Backend, dict[str, float]]:
    """The backend for `texts` and its fidelity on a sample of them, against fp32 by PyTorch.

    A precision that `auto` picked gives way to fp32 when its neighbours agree less than `min_overlap`.

    Args:
        folder: the model's; a graph exported there is used as it is.
        memory: folder that keeps graphs and figures of this encoder from run to run, so that a later run computes with the
            very same (calibrated) graph and measures nothing again.
    """
    sample = np.random.default_rng(0).permutation(len(texts))[: config.check_texts]
    tokens, _ = backends.tokenise(model, [texts[i] for i in sample])
    wanted = backends.native_precision(model.device) if config.precision == "auto" else config.precision
    while True:
        backend = _build(model, folder, wanted, tokens, config, memory)
        figures = _agreement(model, backend, tokens, memory)
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
        check_finite(vector_UD, cache.uri)
        cache.add(keys.take(missing[inside]), vector_UD)
    return len(missing), cut


def check_finite(vector_TD: npt.NDArray[np.float16], where: str) -> None:
    """Refuse vectors that hold NaN or infinity.

    Raises:
        ArtifactError: a vector is not finite.
    """
    for start in range(0, len(vector_TD), _CHECKED_ROWS):
        # All bits of the exponent: several times faster than np.isfinite of halves.
        broken_R = ((vector_TD[start : start + _CHECKED_ROWS].view(np.uint16) & 0x7C00) == 0x7C00).any(axis=1)
        if broken_R.any():
            raise ArtifactError(
                f"{broken_R.sum():,} vectors are not finite, first that of text {start + int(broken_R.argmax())}",
                where=where,
                remedy="The model's weights are damaged, or too large for its precision: restore the model, set the knob"
                " `precision` to fp32, and empty `cache` if one is used.",
            )


def _groups(batches: Sequence[buckets.Indices], texts: int) -> Iterator[list[buckets.Indices]]:
    group: list[buckets.Indices] = []
    for batch in batches:
        group.append(batch)
        if sum(map(len, group)) >= texts:
            yield group
            group = []
    if group:
        yield group


def _agreement(
    model: SentenceTransformer, backend: Backend, tokens: Sequence[backends.Tokens], memory: Path | None
) -> dict[str, float]:
    known = memory / f"{backend.name}.json" if memory else None
    if known and known.exists():
        figures: dict[str, float] = storage.read_json(known)
        return figures
    dim = models.dimension(model)
    reference_SD = backends.encode_all(TorchBackend(model), tokens, dim)
    figures = fidelity.compare(backends.encode_all(backend, tokens, dim), reference_SD)
    if known and distributed.rank() == 0:
        storage.write_json(known, figures)
    return figures


def _build(
    model: SentenceTransformer,
    folder: Path,
    precision: str,
    tokens: Sequence[backends.Tokens],
    config: EmbedConfig,
    memory: Path | None,
) -> Backend:
    if config.backend == "torch" or (config.backend == "auto" and model.device.type != "cpu"):
        return TorchBackend(model, precision, config.token_budget)
    name = "int8" if precision == "int8" else "float"
    kept = memory / name / "graph.xml" if memory else None
    if kept and kept.exists():
        return OpenVinoBackend(backends.read_graph(kept), precision, config.token_budget)
    graph = backends.read_graph(folder / GRAPH) if (folder / GRAPH).exists() else backends.to_graph(model)
    if precision == "int8":
        graph = backends.quantise(graph, tokens)
    if kept and distributed.rank() == 0:
        with storage.atomic_directory(kept.parent) as out:
            backends.save_graph(graph, out / kept.name)
    return OpenVinoBackend(graph, precision, config.token_budget)
