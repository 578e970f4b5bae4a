"""Choosing a backend by measured fidelity, and encoding what a cache of vectors lacks.

Legend: T texts, D dimension.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sentence_transformers import SentenceTransformer

from tritower import storage, threads
from tritower.encoder import backends, buckets, distributed, fidelity, models
from tritower.encoder.backends import Backend, OpenVinoBackend, TorchBackend
from tritower.encoder.cache import VectorCache, keys_of
from tritower.encoder.config import EmbedConfig
from tritower.errors import ArtifactError
from tritower.logs import progress

LOG = logging.getLogger(__name__)
GRAPH = Path("export") / "graph.xml"
_CHECKED_ROWS = 65_536
_CHUNK = 64
"""Characters of a chunk for each token of a batch: some 16 batches, at four characters a token."""


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
    """Encode the texts that `cache` lacks; under torchrun, each process takes its share.

    A GPU gets them in chunks, so that the next chunk is tokenised while it computes, and segments are written meanwhile. The
    batches are planned over whole chunks, so they, and with them the vectors, do not depend on the number of processes.

    Returns:
        The texts that were missing, over all processes, and how many of them were longer than the model reads.
    """
    keys = keys_of(texts)
    missing = cache.missing(keys)
    distributed.wait()  # nobody may add what another process still has to find missing
    length_M = np.fromiter((len(texts[i]) for i in missing), np.int64, len(missing))
    chunks, own = _share(chunks_of(length_M, _CHUNK * backend.token_budget if backend.apart else 0))

    def tokenised(chunk: buckets.Indices) -> tuple[buckets.Ragged, int]:
        return backends.tokenise(model, [texts[i] for i in missing[chunk]])

    def keep(number_U: buckets.Indices, vector_UD: npt.NDArray[np.float16]) -> None:
        check_finite(vector_UD, cache.uri)
        cache.add(keys.take(pa.array(number_U)), vector_UD)

    def segments() -> Iterator[tuple[buckets.Indices, npt.NDArray[np.float16]]]:
        with contextlib.closing(threads.ahead(tokenised, chunks)) as made:
            for chunk, (tokens, cut) in zip(chunks, made, strict=True):
                cuts.append(cut)
                batches = buckets.exact_length_batches(tokens.length_T, backend.token_budget)[own]
                for inside, vector_UD in _segments(backend, tokens, batches, segment_texts, cache.dim):
                    yield missing[chunk[inside]], vector_UD

    cuts: list[int] = []
    written: Future[None] | None = None
    expected = -(-len(missing) // (segment_texts * distributed.world()))
    with ThreadPoolExecutor(1, "segments") as pool:
        for number_U, vector_UD in progress(segments(), name="embed", total=expected, unit="segments"):
            if written:
                written.result()
            written = pool.submit(keep, number_U, vector_UD)
        if written:
            written.result()
    return len(missing), sum(cuts) if own.step else distributed.total(sum(cuts))


def chunks_of(length_M: npt.NDArray[np.int64], most: int) -> list[buckets.Indices]:
    """Split texts into chunks of some `most` characters, longest texts first, so that those of a chunk are of like length.

    Args:
        length_M: characters of each text.
        most: 0 for one chunk of all, in the order given.
    """
    if not most:
        return [np.arange(len(length_M))]
    order_M = np.argsort(-length_M, kind="stable")
    chunk_M = np.cumsum(length_M[order_M]) // most
    return np.split(order_M, np.flatnonzero(np.diff(chunk_M)) + 1)


def _share(chunks: list[buckets.Indices]) -> tuple[list[buckets.Indices], slice]:
    """This process's chunks, and which of their batches are its own.

    Whole chunks where there are enough for all processes, so that each tokenises its own only; else every W-th batch of all,
    and the slice has a step.
    """
    rank, world = distributed.rank(), distributed.world()
    if len(chunks) >= world > 1:
        return chunks[rank::world], slice(None)
    return chunks, slice(rank, None, world)


def _segments(
    backend: Backend, tokens: buckets.Ragged, batches: list[buckets.Indices], texts: int, dim: int
) -> Iterator[tuple[buckets.Indices, npt.NDArray[np.float16]]]:
    """The numbers and vectors (U, D) of some `texts` texts at a time, whole batches."""
    vectors = backend.vectors(tokens, batches)
    for group in _groups(batches, texts):
        inside = np.concatenate(group)
        vector_UD = np.empty((len(inside), dim), np.float16)
        end = 0
        for batch in group:
            start, end = end, end + len(batch)
            vector_UD[start:end] = next(vectors)
        yield inside, vector_UD


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


def _agreement(model: SentenceTransformer, backend: Backend, tokens: buckets.Ragged, memory: Path | None) -> dict[str, float]:
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
    tokens: buckets.Ragged,
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
