"""Entities of the query against those of the job, type by type, from the table of the entities step.

A query's company is compared with the job's employer and its place with the job's city, region and country; the other types
with the entities of the job's title.

Legend: T texts, L labels, E entities (CSR by text and label), N rows, J jobs, U users.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tritower import vocabulary
from tritower.errors import StorageError
from tritower.features.similarity import Lists
from tritower.numba_cache import njit

LABELS = ("TITLE", "SKILL", "EMPLOYMENT", "QUALIFICATION", "COMPANY", "PLACE")
OF_TITLE = 4  # the first so many are compared with the title's entities
COMPANY, PLACE, WORDS, GROUPS = 4, 5, 6, 7  # WORDS: the words of all TITLE entities
NAMES = (
    *(f"entity_{label.lower()}_overlap" for label in LABELS), "entity_title_words", "entity_title_exact", "entity_skill_exact",
    "seniority_query_distance", "seniority_user_distance",
)  # fmt: skip
UNKNOWN = -1
Array = npt.NDArray[Any]
Int32 = npt.NDArray[np.int32]


class Table(NamedTuple):
    """Sorted, distinct values: of text t and label l `value_E[offset[t * GROUPS + l] : offset[t * GROUPS + l + 1]]`.

    `level_T` is the highest level of seniority a text names, `company_J` and `place_3J` are the jobs' own values; -1 = none.
    """

    offset: Array
    value_E: Array
    level_T: Array
    company_J: Array
    place_3J: Array


class TextEntities(NamedTuple):
    """The first three columns of `Table`, of a few texts."""

    offset: npt.NDArray[np.int64]
    value_E: Int32
    level_T: npt.NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class Entities:
    """The entities of all texts, and the values of the jobs' own employers and places."""

    table: Table
    number: dict[str, int]

    @staticmethod
    def read(folder: str | Path, dataset: str | Path, texts: int, jobs: int) -> "Entities":
        """From an entities folder and the dataset it was made for.

        Args:
            folder: written by the entities step.
            dataset: the dataset folder.
            texts: how many texts there are; more than the dataset has where a state is continued.
            jobs: the same for jobs.

        Raises:
            StorageError: the table is missing.
        """
        path = Path(folder) / "entities.parquet"
        if not path.exists():
            raise StorageError("the entities are missing", where=str(path), remedy="Was the entities step run to its end?")
        rows = pq.read_table(path, columns=["text", "label", "value"])
        text_E, label_E = rows.column("text").to_numpy().astype(np.int64), _index(rows.column("label"), LABELS)
        encoded = pc.dictionary_encode(rows.column("value").combine_chunks())
        value_E = encoded.indices.to_numpy().astype(np.int64)
        words: list[str] = encoded.dictionary.to_pylist()
        number = {word: i for i, word in enumerate(words)}
        offset, values = _group(text_E, label_E, value_E, words, numberer(number), texts)
        company_J, place_3J = np.full(jobs, UNKNOWN, np.int32), np.full((3, jobs), UNKNOWN, np.int32)
        columns = pq.read_table(Path(dataset) / "jobs.parquet", columns=["company", "city", "region", "country"])
        company_J[: columns.num_rows], place_3J[:, : columns.num_rows] = of_jobs(columns, number)
        table = Table(offset, values, _levels(rows, text_E, value_E, words, texts), company_J, place_3J)
        return Entities(table=table, number=number)

    def user_levels(self, past: Lists) -> npt.NDArray[np.int8]:
        """The highest level among each user's past titles, -1 where none names one."""
        out_U = np.full(len(past.offset_U) - 1, UNKNOWN, np.int8)
        user_E = np.repeat(np.arange(len(out_U)), np.diff(past.offset_U))
        np.maximum.at(out_U, user_E, self.table.level_T[past.text_E])
        return out_U


def of_texts(rows: pa.Table, number: Callable[[str], int], texts: int) -> TextEntities:
    """Those of a few texts by their rows of `schema.ENTITIES`; `number` gives a value its number.

    In plain Python, since one query has a few: Arrow and numpy take seven times as long for them.
    """
    values: list[set[int]] = [set() for _ in range(texts * GROUPS)]
    level_T = np.full(texts, UNKNOWN, np.int8)
    columns = (rows.column(name).to_pylist() for name in ("text", "label", "value"))
    for text, label, word in zip(*columns, strict=True):
        if label in LABELS:
            values[text * GROUPS + LABELS.index(label)].add(number(word))
        if label == "TITLE":
            values[text * GROUPS + WORDS].update(map(number, word.split()))
        if label == "SENIORITY" and word in vocabulary.LEVELS:
            level_T[text] = max(level_T[text], vocabulary.LEVELS.index(word))
    offset = np.cumsum([0, *map(len, values)], dtype=np.int64)
    return TextEntities(offset, np.array([value for group in values for value in sorted(group)], np.int32), level_T)


def numberer(number: dict[str, int]) -> Callable[[str], int]:
    """Numbers for words, new ones behind."""
    return lambda word: number.setdefault(word, len(number))


def _group(
    text_E: Array, label_E: Array, value_E: Array, words: Any, number: Callable[[str], int], texts: int
) -> tuple[npt.NDArray[np.int64], Int32]:
    """CSR by (text, label), with the words of TITLE values as a label of their own."""
    known, titles = label_E >= 0, np.flatnonzero(label_E == 0)
    parts = [[number(part) for part in words[v].split()] for v in np.unique(value_E[titles]).tolist()]
    parts_of = dict(zip(np.unique(value_E[titles]).tolist(), parts, strict=True))
    pieces = [parts_of[v] for v in value_E[titles].tolist()]
    repeats = np.array([len(piece) for piece in pieces], np.int64)
    word_group = np.repeat(text_E[titles] * GROUPS + WORDS, repeats)
    word_value = np.array([w for piece in pieces for w in piece], np.int64)
    group = np.concatenate([text_E[known] * GROUPS + label_E[known], word_group])
    distinct = np.unique(np.stack([group, np.concatenate([value_E[known], word_value])], axis=1), axis=0)
    length = np.bincount(distinct[:, 0], minlength=texts * GROUPS)
    return np.concatenate([[0], np.cumsum(length)]).astype(np.int64), distinct[:, 1].astype(np.int32)


def _levels(rows: pa.Table, text_E: Array, value_E: Array, words: list[str], texts: int) -> npt.NDArray[np.int8]:
    level_T = np.full(texts, UNKNOWN, np.int8)
    is_level = np.asarray(pc.equal(rows.column("label"), "SENIORITY").to_numpy(), np.bool_)
    level_of = _index(pa.array(words, pa.string()), vocabulary.LEVELS)
    np.maximum.at(level_T, text_E[is_level], level_of[value_E[is_level]].astype(np.int8))
    return level_T


def of_jobs(columns: pa.Table, number: dict[str, int]) -> tuple[Int32, Int32]:
    """The entity values of each job's employer and of its city, region and country, by the columns of those names."""
    region = {code.lower(): name.lower() for code, name in vocabulary.regions().items()}

    def place(name: str) -> int:
        folded = vocabulary.normalise(name)
        return number.get(region.get(folded, folded), UNKNOWN)

    company_J = _map(columns.column("company"), lambda name: number.get(vocabulary.employer_key(name), UNKNOWN))
    return company_J, np.stack([_map(columns.column(level), place) for level in ("city", "region", "country")])


def _map(column: pa.ChunkedArray, function: Any) -> Int32:
    """`function` of each distinct word, spread over the column; -1 for null."""
    encoded = pc.dictionary_encode(column.combine_chunks())
    values = np.array([*(function(word) for word in encoded.dictionary.to_pylist()), UNKNOWN], np.int32)
    return np.asarray(values[encoded.indices.fill_null(-1).to_numpy()], np.int32)


def _index(words: Any, known: tuple[str, ...]) -> npt.NDArray[np.int64]:
    found = pc.index_in(words, value_set=pa.array(known))
    return np.asarray(pc.fill_null(found, UNKNOWN).to_numpy(), np.int64)


@njit(cache=True)
def of_some(offset: Array, value_E: Array, text_X: Array) -> tuple[Array, Array]:
    """`Table.offset` and `Table.value_E` of some texts, in their order."""
    own = np.empty(len(text_X) * GROUPS + 1, np.int64)
    own[0] = used = 0
    for x in range(len(text_X)):
        first = text_X[x] * GROUPS
        for label in range(GROUPS):
            used += offset[first + label + 1] - offset[first + label]
            own[x * GROUPS + label + 1] = used
    value = np.empty(used, value_E.dtype)
    for x in range(len(text_X)):
        first, at = offset[text_X[x] * GROUPS], own[x * GROUPS]
        for e in range(own[(x + 1) * GROUPS] - at):
            value[at + e] = value_E[first + e]
    return own, value


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
def _against_job(table: Table, query: Any, job: int, out_FN: Array, i: int) -> None:
    """Employer and place: the query's entities against the job's own columns."""
    first, last = table.offset[query + COMPANY], table.offset[query + COMPANY + 1]
    if last > first and table.company_J[job] >= 0:
        same = 0
        for e in range(first, last):
            same += table.value_E[e] == table.company_J[job]
        out_FN[COMPANY, i] = same / (last - first)
    first, last = table.offset[query + PLACE], table.offset[query + PLACE + 1]
    place_3 = table.place_3J[:, job]
    if last > first and (place_3[0] >= 0 or place_3[1] >= 0 or place_3[2] >= 0):
        same = 0
        for e in range(first, last):
            value = table.value_E[e]
            same += value == place_3[0] or value == place_3[1] or value == place_3[2]
        out_FN[PLACE, i] = same / (last - first)


@njit(cache=True)
def compare(table: Table, query_N: Array, title_N: Array, job_N: Array, user_level_N: Array, out_FN: Array) -> None:
    """Fill `out_FN` (columns `NAMES`, NaN before) for rows given by query text, title text, job and the user's level."""
    offset, value_E = table.offset, table.value_E
    for i in range(query_N.shape[0]):
        query, title = np.int64(query_N[i]) * GROUPS, np.int64(title_N[i]) * GROUPS
        for label in (0, 1, 2, 3, WORDS):
            q, t = query + label, title + label
            asked, offered = offset[q + 1] - offset[q], offset[t + 1] - offset[t]
            if asked == 0 or offered == 0:
                continue
            common = _common(value_E, offset[q], offset[q + 1], offset[t], offset[t + 1])
            if label == WORDS:
                out_FN[WORDS, i] = common / (asked + offered - common)
                continue
            out_FN[label, i] = common / asked
            if label < 2:
                out_FN[GROUPS + label, i] = 1.0 if common == asked and common == offered else 0.0
        _against_job(table, query, job_N[i], out_FN, i)
        level, wanted = table.level_T[title_N[i]], table.level_T[query_N[i]]
        if level >= 0 and wanted >= 0:
            out_FN[GROUPS + 2, i] = level - wanted
        if level >= 0 and user_level_N[i] >= 0:
            out_FN[GROUPS + 3, i] = level - user_level_N[i]
