"""Entities of the query against those of the job, type by type, from the tables of the entities step.

Legend: T texts, L labels, E entities (CSR by text and label), N rows, J jobs, U users.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numba import njit

from tritower import vocabulary
from tritower.errors import StorageError
from tritower.features.similarity import Lists

LABELS = ("TITLE", "SKILL", "COMPANY", "PLACE", "EMPLOYMENT", "QUALIFICATION")
NAMES = (
    *(f"entity_{label.lower()}_overlap" for label in LABELS), "entity_title_exact", "entity_skill_exact",
    "seniority_query_distance", "seniority_user_distance",
)  # fmt: skip
UNKNOWN = -1
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Entities:
    """Sorted, distinct entity values of each (text, label), and the highest level of seniority each text names (-1 = none).

    Values of text t and label l are `value_E[offset[t L + l] : offset[t L + l + 1]]`.
    """

    offset: npt.NDArray[np.int64]
    value_E: npt.NDArray[np.int32]
    level_T: npt.NDArray[np.int8]

    @staticmethod
    def read(folder: str | Path, texts: int) -> "Entities":
        """From the entities folder of a dataset with `texts` texts.

        Raises:
            StorageError: the table is missing.
        """
        path = Path(folder) / "entities.parquet"
        if not path.exists():
            raise StorageError("the entities are missing", where=str(path), remedy="Was the entities step run to its end?")
        table = pq.read_table(path, columns=["text", "label", "value"])
        text_E = table.column("text").to_numpy().astype(np.int64)
        label_E = _index_in(table.column("label"), list(LABELS))
        encoded = pc.dictionary_encode(table.column("value").combine_chunks())
        value_E = encoded.indices.to_numpy().astype(np.int64)
        levels = _index_in(encoded.dictionary, list(vocabulary.LEVELS))[value_E]
        level_T = np.full(texts, UNKNOWN, np.int8)
        is_level = np.asarray(pc.equal(table.column("label"), "SENIORITY").to_numpy(), np.bool_)
        np.maximum.at(level_T, text_E[is_level], levels[is_level].astype(np.int8))
        kept = label_E >= 0
        group_E = text_E[kept] * len(LABELS) + label_E[kept]
        distinct = np.unique(np.stack([group_E, value_E[kept]], axis=1), axis=0)
        length = np.bincount(distinct[:, 0], minlength=texts * len(LABELS))
        offset = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        return Entities(offset=offset, value_E=distinct[:, 1].astype(np.int32), level_T=level_T)

    def user_levels(self, past: Lists) -> npt.NDArray[np.int8]:
        """The highest level among each user's past titles, -1 where none names one."""
        out_U = np.full(len(past.offset_U) - 1, UNKNOWN, np.int8)
        user_E = np.repeat(np.arange(len(out_U)), np.diff(past.offset_U))
        np.maximum.at(out_U, user_E, self.level_T[past.text_E])
        return out_U


def _index_in(words: Any, known: list[str]) -> npt.NDArray[np.int64]:
    import pyarrow as pa

    found = pc.index_in(words, value_set=pa.array(known))
    return np.asarray(pc.fill_null(found, UNKNOWN).to_numpy(zero_copy_only=False), np.int64)


def compare(
    entities: Entities, query_N: Array, title_N: Array, document_N: Array, user_level_N: Array, out_FN: npt.NDArray[np.float32]
) -> None:
    """Fill `out_FN` (columns `NAMES`, NaN before).

    Args:
        entities: of all texts.
        query_N: text of each row's query.
        title_N: text of the job's title.
        document_N: text of the job's document, which names the company too.
        user_level_N: level of the user, -1 where unknown.
        out_FN: see above.
    """
    _compare(
        entities.offset, entities.value_E, entities.level_T, query_N, title_N, document_N, user_level_N, len(LABELS), out_FN
    )


@njit(cache=True)
def _common(value_E: Array, a: int, a_end: int, b: int, b_end: int) -> int:
    """How many values two sorted runs share."""
    common = 0
    while a < a_end and b < b_end:
        if value_E[a] == value_E[b]:
            common += 1
            a += 1
            b += 1
        elif value_E[a] < value_E[b]:
            a += 1
        else:
            b += 1
    return common


@njit(cache=True)
def _compare(
    offset: Array, value_E: Array, level_T: Array, query_N: Array, title_N: Array, document_N: Array, user_level_N: Array,
    labels: int, out_FN: Array,
) -> None:  # fmt: skip
    for i in range(query_N.shape[0]):
        for label in range(labels):
            q = query_N[i] * labels + label
            text = document_N[i] if label == 2 else title_N[i]  # companies are named in the document only
            j = np.int64(text) * labels + label
            asked = offset[q + 1] - offset[q]
            offered = offset[j + 1] - offset[j]
            if asked == 0 or offered == 0:
                continue
            common = _common(value_E, offset[q], offset[q + 1], offset[j], offset[j + 1])
            out_FN[label, i] = common / asked
            if label < 2:
                out_FN[labels + label, i] = 1.0 if common == asked and common == offered else 0.0
        level = level_T[title_N[i]]
        if level >= 0 and level_T[query_N[i]] >= 0:
            out_FN[labels + 2, i] = level - level_T[query_N[i]]
        if level >= 0 and user_level_N[i] >= 0:
            out_FN[labels + 3, i] = level - user_level_N[i]
