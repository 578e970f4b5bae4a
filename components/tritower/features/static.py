"""The features that need no history: strings, cosines, entities, profile, places, time.

A row's values depend on that row and on the dataset's tables only, so batches may be computed in any order on any machine:
`compute` is the kernel that an engine runs.

Legend: N rows, F features; `out_FN` is column by column, NaN = missing.
"""

import functools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tritower import storage
from tritower.features import catalogue, counters, entities, similarity, source, strings
from tritower.features.places import agree
from tritower.features.tables import NO_DATE, FeatureTables
from tritower.features.timeline import Rows

Float32 = npt.NDArray[np.float32]
EPOCH_HOUR = 72  # 1970-01-01 was a Thursday: three days after Monday


class Scorers(NamedTuple):
    """The string scorers of query and title, query and company, profile and title."""

    title: strings.PairScorer
    company: strings.PairScorer
    profile: strings.PairScorer

    @staticmethod
    def of(plain: strings.Words, companies: strings.Words, *, cached: bool) -> "Scorers":
        """For texts and companies by number; `cached` where the same pairs come again."""

        def scorer(right: strings.Words, names: Sequence[str]) -> strings.PairScorer:
            return strings.PairScorer(plain, right, names, strings.Cache(len(names)) if cached else None)

        return Scorers(
            scorer(plain, strings.TITLE_SCORERS), scorer(companies, strings.COMPANY_SCORERS),
            scorer(plain, strings.PROFILE_SCORERS),
        )  # fmt: skip


class Static:
    """The tables that these features gather from, prepared."""

    def __init__(self, tables: FeatureTables, found: entities.Entities | None, scorers: Scorers | None = None) -> None:
        self.tables = tables
        self.layout = catalogue.static_layout(with_entities=found is not None)
        self._entities = found
        self._level_U = found.user_levels(tables.past) if found else None
        self._scorers = scorers or Scorers.of(
            strings.words(tables.texts.plain), strings.words(tables.jobs.companies), cached=True
        )

    def open(self) -> "Static":
        """Itself."""
        return self

    def features(self, rows: Rows) -> Float32:
        """Columns (F, N) of `layout` for N rows."""
        out_FN = np.full((len(self.layout.names), len(rows)), np.nan, np.float32)
        columns, jobs, matrix_TD = self.layout.columns, self.tables.jobs, self.tables.matrix_TD
        plain_T = self.tables.texts.plain_T
        title_N, document_N = jobs.title_J[rows.job], jobs.document_J[rows.job]
        self._scorers.title.scores(plain_T[rows.query], plain_T[title_N], out_FN[columns("title")])
        self._scorers.company.scores(plain_T[rows.query], jobs.company_J[rows.job], out_FN[columns("company")])
        self._profiles(rows, title_N, out_FN[columns("profile")])
        similarity.pair_cosine(rows.query, document_N, matrix_TD, plain_T, out_FN[columns("embedding")][0])
        self._places(rows, out_FN[columns("places")])
        self._times(rows, out_FN[columns("time")])
        if self._entities and self._level_U is not None:
            out = out_FN[columns("entities")]
            entities.compare(self._entities.table, rows.query, title_N, rows.job, self._level_U[rows.user], out)
        return out_FN

    def _profiles(self, rows: Rows, title_N: npt.NDArray[np.int32], out_4N: Float32) -> None:
        plain_T, matrix_TD = self.tables.texts.plain_T, self.tables.matrix_TD
        for f, lists in ((0, self.tables.wanted), (2, self.tables.past)):
            similarity.list_cosine(rows.user, title_N, lists.offset_U, lists.text_E, matrix_TD, plain_T, out_4N[f])
            left, right, row = similarity.explode(rows.user, title_N, lists.offset_U, lists.text_E)
            score = np.empty((1, len(row)), np.float32)
            self._scorers.profile.scores(plain_T[left], plain_T[right], score)
            similarity.fold_max(row, score[0], out_4N[f + 1])

    def _places(self, rows: Rows, out_8N: Float32) -> None:
        tables, place_3N = self.tables, self.tables.jobs.place_3J.take(rows.job, axis=1)
        wanted_3N, remote_N = tables.searches.of(rows.request)
        agree(wanted_3N, place_3N, out_8N[0:3])
        agree(tables.home_3U[:, rows.user], place_3N, out_8N[3:6])
        out_8N[6] = tables.jobs.remote_J[rows.job]
        out_8N[7] = remote_N

    def _times(self, rows: Rows, out_2N: Float32) -> None:
        posted_N = self.tables.jobs.posted_J[rows.job]
        known = (posted_N != NO_DATE) & (posted_N <= rows.ts)
        out_2N[0, known] = (rows.ts[known] - posted_N[known]) / counters.DAY_US
        out_2N[1] = (rows.ts // counters.HOUR_US + EPOCH_HOUR) % 168


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where another process finds what `Static` is made of.

    `requests` is the table that the rows' request numbers refer to.
    """

    dataset: str
    embeddings: str
    entities: str
    requests: str

    def open(self) -> Static:
        """Read it all, once in a process; what is remote is fetched first."""
        return _opened(self).static


@dataclass(frozen=True, kw_only=True)
class _Opened:
    static: Static
    fetched: tempfile.TemporaryDirectory[str] = field(repr=False)  # goes when the process ends


@functools.lru_cache(maxsize=1)
def _opened(places: Places) -> _Opened:
    folder = tempfile.TemporaryDirectory(prefix="tritower-tables-")

    @functools.cache
    def here(location: str) -> Path:
        if storage.is_local(location):
            return storage.local_path(location)
        return storage.fetch_tree(location, Path(folder.name) / location.rpartition("/")[2])

    dataset = here(places.dataset)
    tables = FeatureTables.read(dataset, here(places.embeddings), here(places.requests) / "requests.parquet")
    counts = len(tables.texts), len(tables.jobs)
    found = entities.Entities.read(here(places.entities), dataset, *counts) if places.entities else None
    return _Opened(static=Static(tables, found), fetched=folder)


def schema(layout: catalogue.Layout) -> pa.Schema:
    """What `compute` yields with the features of `layout`."""
    return pa.schema([*source.SCHEMA, *((name, pa.float32()) for name in layout.names)])


def compute(batches: Iterator[pa.RecordBatch], *, tables: Static | Places) -> Iterator[pa.RecordBatch]:
    """Kernel: rows (`source.SCHEMA`) in, the same rows with these features behind them out; NaN = missing."""
    static = tables.open()
    for batch in batches:
        found = [pa.array(value_N) for value_N in static.features(source.rows(batch, counts=False, wanted=True))]
        yield pa.RecordBatch.from_arrays([*batch.columns, *found], schema=schema(static.layout))
