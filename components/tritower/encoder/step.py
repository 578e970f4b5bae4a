"""The steps of the encoder: files in, files and numbers out."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.lib.format import open_memmap

from tritower import storage
from tritower.encoder import backends, buckets, models
from tritower.encoder.config import EmbedConfig
from tritower.errors import DataError
from tritower.logs import phase, progress

LOG = logging.getLogger(__name__)


def embed(*, dataset: str | Path, embeddings: str | Path, config: EmbedConfig, encoder: str | Path = "") -> dict[str, Any]:
    """Embed every text of `dataset`/texts.parquet once.

    Writes `embeddings`/matrix.npy and encoder.json (see schema.py), whole or not at all.

    Args:
        encoder: folder, distribution or hub id of the model; `config.model` when empty.

    Returns:
        The content of encoder.json.
    """
    texts = _read_texts(Path(dataset) / "texts.parquet")
    folder = models.find(str(encoder) or config.model)
    with phase(LOG, "load encoder"):
        model = models.load(folder, "cuda" if torch.cuda.is_available() else "cpu")
        backend = backends.TorchEncoder(model, config.precision)
    start = time.perf_counter()
    with storage.atomic_directory(embeddings) as out, phase(LOG, "embed") as counts:
        cut = _write_matrix(out / "matrix.npy", texts, backend, config.token_budget)
        info = {
            "name": str(encoder) or config.model,
            "hash": models.content_hash(folder),
            "dim": models.dimension(model),
            "texts": len(texts),
            "normalised": True,
            "backend": backend.name,
            "truncated": cut,
            "seconds": round(time.perf_counter() - start, 3),
        }
        storage.write_json(out / "encoder.json", info)
        counts["texts"] = len(texts)
    return info


def _read_texts(path: Path) -> list[str]:
    if not path.exists():
        raise DataError("the table of texts is missing", where=str(path), remedy="Run ingest first.")
    values = pq.read_table(path, columns=["value"]).column("value").to_pylist()
    if not values:
        raise DataError("the dataset holds no text", where=str(path), remedy="Was ingest given an empty log?")
    return [str(value) for value in values]


def _write_matrix(path: Path, texts: list[str], backend: backends.TorchEncoder, token_budget: int) -> int:
    tokens, cut = backends.tokenise(backend.model, texts)
    batches = buckets.exact_length_batches(np.fromiter(map(len, tokens), np.int32, len(tokens)), token_budget)
    dim = models.dimension(backend.model)
    matrix_TD = open_memmap(path, mode="w+", dtype=np.float16, shape=(len(texts), dim))
    for batch in progress(batches, name="embed", unit="batches"):
        matrix_TD[batch] = backend.encode(np.stack([tokens[i] for i in batch]).astype(np.int64))
    matrix_TD.flush()
    return cut
