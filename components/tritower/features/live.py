"""The tables of features while new names keep coming: every array has room behind.

One that is full is copied, with room for as many more as have come since it was made: what grows with the catalogue is not
doubled for the sake of a day's new queries. The last place of each array is never taken: number -1, which stands for what is
unknown, finds an entry there that is blank.

Legend: J jobs, U users, T texts, X texts behind those of the dataset, D dimensions.
"""

import dataclasses
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tritower.features import entities, occupations, ratios
from tritower.features.places import mentions_remote, names_remote
from tritower.features.similarity import Lists
from tritower.features.strings import Phrases, normalise
from tritower.features.tables import NO_DATE, FeatureTables, Jobs
from tritower.lookup import Lookup, Slots
from tritower.schema import document_text

ROOM = 1024
Array = npt.NDArray[Any]


class Names(Lookup):
    """Numbers for names, in the order in which they come; those of the tables may lie in mapped files."""

    def __init__(self, names: pa.Array, slots: Slots | None = None, phrases: Phrases | None = None) -> None:
        """Of distinct names, and what was made of them before: `slots`, and the names that are ready to be scored."""
        super().__init__(names, slots)
        self._codes = None if phrases is None else (phrases.as_is, phrases.ordered)

    @property
    def phrases(self) -> Phrases:
        """The names ready to be scored, those of the last `prepare`."""
        as_is, ordered = self._codes or (ratios.Codes.of(()), ratios.Codes.of(()))
        return Phrases(self, as_is, ordered)

    def prepare(self) -> None:
        """Make those names that came since the last call ready to be scored."""
        ready = self.phrases
        new = self.since(ready.as_is.texts)
        if new:
            fresh = ready.extended(new)
            self._codes = fresh.as_is, fresh.ordered

    def add(self, name: str | None) -> int:
        """Its number, a new one where it has none; -1 for None and for the empty name."""
        return super().add(name) if name else -1

    def add_all(self, names: Sequence[str | None]) -> list[int]:
        """The same of several."""
        given = [name or "" for name in names]
        return [self.add(name) for name in given] if "" in given else super().add_all(given)


class AllNames(NamedTuple):
    """Names of all kinds; `plain` are the plain forms of texts."""

    jobs: Names
    users: Names
    texts: Names
    plain: Names
    companies: Names
    occupations: Names


def clean(text: str | None) -> str:
    """As ingest cleans a text: Unicode NFC, white space collapsed and trimmed; None is empty."""
    return " ".join(unicodedata.normalize("NFC", text or "").split())


class LiveTables:
    """`tables` and `found`, with names behind those of the dataset and of the state.

    Arrays are changed where nothing refers to them yet, and replaced when they grow. A job that changes is changed in place.
    """

    def __init__(
        self, names: AllNames, tables: FeatureTables, found: entities.Entities | None, sizes: Sequence[int], values: int
    ) -> None:
        """For `of` and for what was kept of such tables.

        Args:
            names: of all kinds.
            tables, found: with room behind.
            sizes: of the counters of jobs, occupations, companies and queries.
            values: how many of `found.table.value_E` are taken.
        """
        self.jobs, self.users, self.texts, self.plain, self.companies, self.occupations = names
        self.blank_text = self.texts.find("")
        self._prepare()
        self.tables, self.found, self.sizes, self.values = tables, found, list(sizes), values

    @staticmethod
    def of(tables: FeatureTables, found: entities.Entities | None) -> "LiveTables":
        """Of tables without room."""
        jobs, texts = tables.jobs, tables.texts
        names = AllNames(*map(Names, (jobs.ids, tables.user_ids, texts.values, texts.plain, jobs.companies, jobs.occupations)))
        live = LiveTables(names, tables, found, [0] * 4, len(found.table.value_E) if found else 0)
        live.make_room(0.0)
        return live

    def make_room(self, share: float) -> None:
        """Room for a share of what there is, and for some more."""
        self.sizes = [len(names) + ROOM + int(share * len(names)) for names in self._counted]
        for kind in ("jobs", "users", "texts"):
            count = len(getattr(self, kind))
            self._grow(kind, count + ROOM + int(share * count))

    @property
    def _counted(self) -> tuple[Names, Names, Names, Names]:
        return self.jobs, self.occupations, self.companies, self.plain

    def outgrown(self) -> bool:
        """Whether there are more jobs, occupations, companies or queries than `sizes` says; then those are made larger."""
        counts = [len(names) for names in self._counted]
        if all(count <= size for count, size in zip(counts, self.sizes, strict=True)):
            return False
        self.sizes = [
            size if len(names) <= size else len(names) + max(ROOM, names.added)
            for names, size in zip(self._counted, self.sizes, strict=True)
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
        self._reserve_vectors(first + len(values) - len(self.tables.matrix_TD))
        tables, start = self.tables, first - len(self.tables.matrix_TD)
        here = slice(first, first + len(values))
        self.texts.add_all(values)
        tables.texts.plain_T[here] = [self.plain.add(text) for text in plain.to_pylist()]
        self._prepare()
        tables.texts.remote_T[here] = mentions_remote(plain)
        tables.extra_XD[start : start + len(values)] = vector_XD
        if self.found and rows is not None:
            self._add_entities(first, rows, len(values))

    def add_users(self, user_ids: Sequence[str]) -> list[int]:
        """Users' numbers; of new ones nothing is known."""
        numbers = self.users.add_all(user_ids)
        self._reserve("users", 0)
        return numbers

    def add_jobs(self, job_ids: Sequence[str]) -> list[int]:
        """Jobs' numbers; of new ones nothing is known."""
        numbers = self.jobs.add_all(job_ids)
        self._reserve("jobs", 0)
        return numbers

    def put_jobs(self, rows: pa.Table) -> None:
        """Take in new jobs and changed ones (columns of `schema.RAW_JOBS`), whose title and document are known texts."""
        titles, companies = ([clean(text) for text in rows.column(name).to_pylist()] for name in ("title", "company"))
        numbers = np.array(self.add_jobs(rows.column("job_id").to_pylist()), np.int64)
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
        table, used = self.found.table, self.values
        self.values += len(values)
        if self.values > len(table.value_E):
            more = np.empty(max(self.values, len(table.value_E)), np.int32)
            table = table._replace(value_E=np.concatenate([table.value_E, more]))
            self.found = dataclasses.replace(self.found, table=table)
        table.value_E[used : self.values] = values
        start = first * entities.GROUPS
        table.offset[start : start + len(offset)] = offset + used
        table.level_T[first : first + texts] = level

    def _reserve(self, kind: str, more: int) -> None:
        names: Names = getattr(self, kind)
        need = len(names) + more + 1
        have = {"jobs": len(self.tables.jobs), "users": len(self.tables.home_3U[0]), "texts": len(self.tables.texts)}[kind]
        if need > have:
            self._grow(kind, need + max(ROOM, names.added))

    def _reserve_vectors(self, need: int) -> None:
        """Room for the vectors of so many texts behind those of the dataset."""
        have_XD = self.tables.extra_XD
        if need > len(have_XD):
            more_XD = np.zeros((max(need - len(have_XD), len(have_XD)), have_XD.shape[1]), np.uint16)
            self.tables = dataclasses.replace(self.tables, extra_XD=np.concatenate([have_XD, more_XD]))

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
    """A copy of the last axis up to `size`, blank behind; itself where it has this size."""
    if size == values.shape[-1]:
        return values
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
    return dataclasses.replace(tables, texts=texts)


def _more_entities(table: entities.Table, tables: FeatureTables) -> entities.Table:
    texts, jobs = len(tables.texts), len(tables.jobs)
    return entities.Table(
        _padded(table.offset, texts * entities.GROUPS + 1, table.offset[-1]), table.value_E, _padded(table.level_T, texts),
        _padded(table.company_J, jobs), _padded(table.place_3J, jobs),
    )  # fmt: skip


def user_lists(lists: Lists, user: int) -> npt.NDArray[np.int32]:
    """A user's texts; -1 = nobody's."""
    return lists.text_E[lists.offset_U[user] : lists.offset_U[user + 1]] if user >= 0 else lists.text_E[:0]
