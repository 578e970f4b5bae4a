"""The tables of features while new names keep coming: every array has room behind, and doubles when it is full.

The last place of each array is never taken: number -1, which stands for what is unknown, finds an entry there that is blank.

Legend: J jobs, U users, T texts, X texts behind those of the dataset, D dimensions.
"""

import dataclasses
import itertools
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tritower.features import entities, occupations
from tritower.features.places import mentions_remote, names_remote
from tritower.features.similarity import Lists
from tritower.features.strings import Phrases, normalise
from tritower.features.tables import NO_DATE, FeatureTables, Jobs
from tritower.schema import document_text

ROOM = 1024
Array = npt.NDArray[Any]


class Names:
    """Numbers for names, in the order in which they come."""

    def __init__(self, names: pa.Array) -> None:
        self.names: list[str] = names.to_pylist()
        self.phrases = Phrases.of(())
        self._number = {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def prepare(self) -> None:
        """Make those names that came since the last call ready to be scored."""
        self.phrases = self.phrases.extended(self.names[len(self.phrases.text) :])

    def find(self, name: str) -> int:
        """Its number, -1 where it has none."""
        return self._number.get(name, -1)

    def find_all(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """The numbers of several."""
        return np.fromiter(map(self._number.get, names, itertools.repeat(-1)), np.int64, len(names))

    def add(self, name: str | None) -> int:
        """Its number, a new one where it has none; -1 for None and for the empty name."""
        if not name:
            return -1
        number = self._number.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number


def clean(text: str | None) -> str:
    """As ingest cleans a text: Unicode NFC, white space collapsed and trimmed; None is empty."""
    return " ".join(unicodedata.normalize("NFC", text or "").split())


class LiveTables:
    """`tables` and `found`, with names behind those of the dataset and of the state.

    Arrays are changed where nothing refers to them yet, and replaced when they grow. A job that changes is changed in place.
    """

    def __init__(self, tables: FeatureTables, found: entities.Entities | None) -> None:
        self.jobs, self.users = Names(tables.jobs.ids), Names(tables.user_ids)
        self.texts, self.plain = Names(tables.texts.values), Names(tables.texts.plain)
        self.blank_text = tables.texts.values.index("").as_py()
        self.companies, self.occupations = Names(tables.jobs.companies), Names(tables.jobs.occupations)
        self._prepare()
        self.tables, self.found = tables, found
        self._values = len(found.table.value_E) if found else 0
        self.sizes: list[int] = [0] * 4
        self.outgrown()
        for kind in ("jobs", "users", "texts"):
            self._grow(kind, len(getattr(self, kind)) + ROOM)

    def outgrown(self) -> bool:
        """Whether there are more jobs, occupations, companies or queries than `sizes` says; then those are made larger."""
        counts = [len(names) for names in (self.jobs, self.occupations, self.companies, self.plain)]
        if all(count <= size for count, size in zip(counts, self.sizes, strict=True)):
            return False
        self.sizes = [
            size if count <= size else max(count + ROOM, 2 * size) for count, size in zip(counts, self.sizes, strict=True)
        ]
        return True

    def text(self, value: str) -> int:
        """A text's number, -1 where it has none."""
        return self.texts.find(value) if value else self.blank_text

    def add_texts(self, values: Sequence[str], vector_XD: npt.NDArray[np.uint16], rows: pa.Table | None) -> None:
        """Number texts that have no number.

        Args:
            values: distinct, cleaned.
            vector_XD: their vectors as bits of float16.
            rows: their entities (`schema.ENTITIES`, `text` is the position in `values`).
        """
        if not values:
            return
        first = len(self.texts)
        self._reserve("texts", len(values))
        plain = normalise(pa.array(values, pa.string()))
        tables, start = self.tables, first - len(self.tables.matrix_TD)
        here = slice(first, first + len(values))
        for value in values:
            self.texts.add(value)
        tables.texts.plain_T[here] = [self.plain.add(text) for text in plain.to_pylist()]
        self._prepare()
        tables.texts.remote_T[here] = mentions_remote(plain)
        tables.extra_XD[start : start + len(values)] = vector_XD
        if self.found and rows is not None:
            self._add_entities(first, rows, len(values))

    def add_user(self, user_id: str) -> int:
        """A user's number; of a new one nothing is known."""
        self._reserve("users", 1)
        return self.users.add(user_id)

    def add_job(self, job_id: str) -> int:
        """A job's number; of a new one nothing is known."""
        self._reserve("jobs", 1)
        return self.jobs.add(job_id)

    def put_jobs(self, rows: pa.Table) -> None:
        """Take in new jobs and changed ones (columns of `schema.RAW_JOBS`), whose title and document are known texts."""
        titles, companies = ([clean(text) for text in rows.column(name).to_pylist()] for name in ("title", "company"))
        numbers = np.array([self.add_job(job_id) for job_id in rows.column("job_id").to_pylist()], np.int64)
        jobs, texts = self.tables.jobs, self.tables.texts
        title_N = np.array([self.text(title) for title in titles], np.int32)
        jobs.title_J[numbers] = title_N
        jobs.document_J[numbers] = [self.text(document_text(*pair)) for pair in zip(titles, companies, strict=True)]
        jobs.description_J[numbers] = -1
        jobs.company_J[numbers] = [self.companies.add(name) for name in normalise(pa.array(companies, pa.string())).to_pylist()]
        self._prepare()
        given = rows.column("occupation").to_pylist()
        jobs.occupation_J[numbers] = [self.occupations.add(name) for name in occupations.of_jobs(given, titles)]
        jobs.place_3J[:, numbers] = self.tables.places.encode(rows)
        posted = rows.column("posted_at").cast(pa.int64()).fill_null(int(NO_DATE))
        jobs.posted_J[numbers] = posted.to_numpy()
        jobs.remote_J[numbers] = texts.remote_T[title_N] | names_remote(rows)
        if self.found:
            table = self.found.table
            table.company_J[numbers], table.place_3J[:, numbers] = entities.of_jobs(rows, self.found.number)

    def _prepare(self) -> None:
        for names in (self.plain, self.companies):
            names.prepare()

    def _add_entities(self, first: int, rows: pa.Table, texts: int) -> None:
        assert self.found
        offset, values, level = entities.of_texts(rows, entities.numberer(self.found.number), texts)
        table, used = self.found.table, self._values
        self._values += len(values)
        if self._values > len(table.value_E):
            more = np.empty(max(self._values, len(table.value_E)), np.int32)
            table = table._replace(value_E=np.concatenate([table.value_E, more]))
            self.found = dataclasses.replace(self.found, table=table)
        table.value_E[used : self._values] = values
        start = first * entities.GROUPS
        table.offset[start : start + len(offset)] = offset + used
        table.level_T[first : first + texts] = level

    def _reserve(self, kind: str, more: int) -> None:
        need = len(getattr(self, kind)) + more + 1
        have = {"jobs": len(self.tables.jobs), "users": len(self.tables.home_3U[0]), "texts": len(self.tables.texts)}[kind]
        if need > have:
            self._grow(kind, max(need, 2 * have))

    def _grow(self, kind: str, size: int) -> None:
        if kind == "jobs":
            self.tables = dataclasses.replace(self.tables, jobs=_more_jobs(self.tables.jobs, size))
        elif kind == "users":
            self.tables = _more_users(self.tables, size)
        else:
            self.tables = _more_texts(self.tables, size)
        if self.found:
            self.found = dataclasses.replace(self.found, table=_more_entities(self.found.table, self.tables))


def _padded(values: Array, size: int, blank: Any = -1) -> Array:
    """A copy of the last axis up to `size`, blank behind."""
    out = np.full((*values.shape[:-1], size), blank, values.dtype)
    out[..., : values.shape[-1]] = values
    return out


def _more_jobs(jobs: Jobs, size: int) -> Jobs:
    names = ("title_J", "document_J", "description_J", "company_J", "occupation_J", "place_3J")
    columns = {name: _padded(getattr(jobs, name), size) for name in names}
    return dataclasses.replace(
        jobs, **columns, posted_J=_padded(jobs.posted_J, size, NO_DATE), remote_J=_padded(jobs.remote_J, size, False)
    )


def _more_users(tables: FeatureTables, size: int) -> FeatureTables:
    more = size - len(tables.home_3U[0])
    wanted, past = tables.wanted.padded(more), tables.past.padded(more)
    return dataclasses.replace(tables, home_3U=_padded(tables.home_3U, size), wanted=wanted, past=past)


def _more_texts(tables: FeatureTables, size: int) -> FeatureTables:
    texts = dataclasses.replace(
        tables.texts, plain_T=_padded(tables.texts.plain_T, size), remote_T=_padded(tables.texts.remote_T, size, False)
    )
    more = size - len(tables.matrix_TD) - len(tables.extra_XD)
    extra_XD = np.concatenate([tables.extra_XD, np.zeros((more, tables.extra_XD.shape[1]), np.uint16)])
    return dataclasses.replace(tables, texts=texts, extra_XD=extra_XD)


def _more_entities(table: entities.Table, tables: FeatureTables) -> entities.Table:
    texts, jobs = len(tables.texts), len(tables.jobs)
    return entities.Table(
        _padded(table.offset, texts * entities.GROUPS + 1, table.offset[-1]), table.value_E, _padded(table.level_T, texts),
        _padded(table.company_J, jobs), _padded(table.place_3J, jobs),
    )  # fmt: skip


def user_lists(lists: Lists, user: int) -> npt.NDArray[np.int32]:
    """A user's texts; -1 = nobody's."""
    return lists.text_E[lists.offset_U[user] : lists.offset_U[user + 1]] if user >= 0 else lists.text_E[:0]
