"""New and changed adverts: what the model makes of them, before anybody sees them.

Legend: N jobs, D dimension of an embedding, T width of a document's row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tritower import storage
from tritower.features.live import clean
from tritower.ranker.joining import Floats
from tritower.ranker.online import OnlineRanker
from tritower.schema import RAW_JOBS, document_text
from tritower.serving.encoding import TextEncoder


@dataclass(frozen=True, kw_only=True)
class Described:
    """How descriptions become vectors.

    Attributes:
        words: so many words of a description are read.
        is_own: the bundle's encoder is that of the descriptions. Where they are embedded by the model that it was tuned from,
            which the bundle does not have, an updated job counts as one without a description until the next bundle.
    """

    words: int
    is_own: bool

    @staticmethod
    def read(dataset: Path, embeddings: Path) -> "Described":
        """Of a bundle's parts."""
        words = storage.read_json(dataset / "dataset.json").get("description_words", 64)
        return Described(words=int(words), is_own="descriptions" not in storage.read_json(embeddings / "encoder.json"))


def last_of_each(jobs: pa.Table) -> pa.Table:
    """The last row of each job, its texts cleaned as ingest does."""
    last = {job_id: row for row, job_id in enumerate(jobs["job_id"].to_pylist())}
    kept = jobs.take(pa.array(sorted(last.values()), pa.int64()))
    for name in ("title", "company", "city", "region", "country", "occupation", "description"):
        at = kept.schema.get_field_index(name)
        words = [None if text is None else clean(text) for text in kept[name].to_pylist()]
        needed = not RAW_JOBS.column(name).nullable
        values = pa.array([text if text or needed else None for text in words], pa.string())
        kept = kept.set_column(at, kept.schema.field(at), values)
    return kept


def describe(
    jobs: pa.Table, ranker: OnlineRanker, encoder: TextEncoder, described: Described
) -> tuple[list[str], npt.NDArray[np.float16], Floats]:
    """The documents of jobs, their embeddings (N, D) and what the document towers make of them (N, T)."""
    pairs = zip(jobs["title"].to_pylist(), jobs["company"].to_pylist(), strict=True)
    texts = [document_text(title, company) for title, company in pairs]
    vector_ND = _halves(encoder, texts)
    seen_ND = vector_ND
    if ranker.described:
        told = [_beginning(text, described.words) if described.is_own else "" for text in jobs["description"].to_pylist()]
        about_ND = np.zeros_like(vector_ND)
        some = [number for number, text in enumerate(told) if text]
        about_ND[some] = _halves(encoder, [told[number] for number in some])
        seen_ND = np.concatenate([vector_ND, about_ND], axis=1)
    return texts, vector_ND, ranker.documents(seen_ND)


def _halves(encoder: TextEncoder, texts: Sequence[str]) -> npt.NDArray[np.float16]:
    vector_ND: npt.NDArray[np.float16] = encoder(texts).astype(np.float16)
    return vector_ND


def _beginning(text: Any, words: int) -> str:
    return " ".join((text or "").split(" ")[:words])
