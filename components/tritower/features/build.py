"""All features of a batch of rows: the groups side by side, over one timeline.

Legend: N rows, F features, J jobs; `out_FN` is column by column, NaN = missing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tritower.features import catalogue, counters, entities, history, rings, similarity, strings
from tritower.features.config import FeaturesConfig
from tritower.features.lookup import NO_DATE, Lookup
from tritower.features.pairs import PairIndex
from tritower.features.places import agree
from tritower.features.timeline import Rows, Timeline

Float32 = npt.NDArray[np.float32]
EPOCH_HOUR = 72  # 1970-01-01 was a Thursday: three days after Monday


@dataclass(frozen=True, kw_only=True)
class Computed:
    """What is computed for N rows: the features, the keys of company and occupation (-1 = unknown), and the title texts of
    the jobs the user clicked last, newest first (-1 = none)."""

    values_FN: Float32
    company_N: npt.NDArray[np.int32]
    occupation_N: npt.NDArray[np.int32]
    past_NH: npt.NDArray[np.int32]


class Builder:
    """The state of every group and the lookup tables; feed it rows in time order."""

    def __init__(self, tables: Lookup, config: FeaturesConfig, found: entities.Entities | None = None) -> None:
        self.tables = tables
        self.layout = catalogue.Layout(with_entities=found is not None)
        self.entities = found
        self.level_U = found.user_levels(tables.past) if found else None
        self.timeline = Timeline()
        self.history_texts = config.history_texts
        jobs, users = tables.jobs, len(tables.home_3U[0])
        self.base_L = np.cumsum([0, len(jobs), len(jobs.occupations), len(jobs.companies), len(tables.texts.plain)])
        self.pairs = PairIndex()
        self.counters = counters.Counters(
            int(self.base_L[-1]),
            positions=config.positions,
            half_life_days=config.ctr_half_life_days,
            prior_impressions=config.prior_impressions,
        )
        half_life_days = config.history_half_life_days
        self.history = history.History(users, clicks=config.history_clicks, half_life_days=half_life_days)
        self.searches = history.Searches(users, searches=config.history_searches, half_life_days=half_life_days)
        traits_3J = np.stack([jobs.company_J, jobs.place_3J[0], jobs.occupation_J])
        self.vectors = history.Jobs(rings.Vectors(tables.matrix_TD, tables.extra_XD), jobs.document_J, jobs.title_J, traits_3J)
        corpus = strings.Corpus(tables.texts.plain, jobs.companies)
        self.title = strings.PairScorer(corpus, strings.TITLE_SCORERS)
        self.company = strings.PairScorer(corpus, strings.COMPANY_SCORERS, right_from=len(tables.texts.plain))
        self.profile = strings.PairScorer(corpus, strings.PROFILE_SCORERS)

    def features(self, rows: Rows) -> Computed:
        """The features of rows that all want them."""
        out = self._blank(rows)
        self._stream(rows, out)
        self._static(rows, out.values_FN)
        return out

    def count(self, events: Rows) -> None:
        """Take events into the state without reading any features."""
        if len(events):
            self._stream(events, self._blank(events.take(slice(0, 0))))

    def between(self, events: Rows, candidates: Rows) -> Computed:
        """The features of candidates that lie in time among `events`, which are counted."""
        both = Rows.concat([events, candidates])
        out = self._blank(candidates)
        self._stream(both.take(np.argsort(both.ts, kind="stable")), out)
        self._static(candidates, out.values_FN)
        return out

    def keys(self, rows: Rows) -> npt.NDArray[np.int64]:
        """The counters' key of each row per level (L, N), -1 where unknown; new (query, occupation) pairs get one."""
        jobs = self.tables.jobs
        query_N = self.tables.texts.plain_T[rows.query]
        occupation_N = jobs.occupation_J[rows.job]
        own: tuple[npt.NDArray[Any], ...] = (
            rows.job,
            occupation_N,
            jobs.company_J[rows.job],
            query_N,
            self.pairs.numbers(query_N, occupation_N),
        )
        return np.stack([np.where(key_N < 0, -1, key_N + base) for key_N, base in zip(own, self.base_L, strict=True)])

    def _blank(self, rows: Rows) -> Computed:
        return Computed(
            values_FN=np.full((len(self.layout.names), len(rows)), np.nan, np.float32),
            company_N=self.tables.jobs.company_J[rows.job],
            occupation_N=self.tables.jobs.occupation_J[rows.job],
            past_NH=np.full((len(rows), self.history_texts), -1, np.int32),
        )

    def _stream(self, rows: Rows, out: Computed) -> None:
        out_FN = out.values_FN
        batch = self.timeline.start(rows)
        columns = self.layout.columns
        keys_LN, keys_LC = self.keys(batch.rows), self.keys(batch.clicks)
        self.counters.reserve(int(self.base_L[-1]) + self.pairs.used)
        self.counters.read(batch, keys_LN, keys_LC, out_FN[columns("counters")])
        self.history.read(batch, self.vectors, out_FN[columns("history")], out.past_NH)
        self.searches.read(batch, self.vectors, self.tables.texts.plain_T, out_FN[columns("searches")])
        self.counters.finish(self.timeline.finish(batch))

    def _static(self, rows: Rows, out_FN: Float32) -> None:
        columns, jobs, matrix_TD = self.layout.columns, self.tables.jobs, self.tables.matrix_TD
        plain_T = self.tables.texts.plain_T
        title_N, document_N = jobs.title_J[rows.job], jobs.document_J[rows.job]
        self.title.scores(plain_T[rows.query], plain_T[title_N], out_FN[columns("title")])
        self.company.scores(plain_T[rows.query], jobs.company_J[rows.job], out_FN[columns("company")])
        self._profile(rows, title_N, out_FN[columns("profile")])
        similarity.pair_cosine(rows.query, document_N, matrix_TD, plain_T, out_FN[columns("embedding")][0])
        self._places(rows, out_FN[columns("places")])
        self._times(rows, out_FN[columns("time")])
        if self.entities and self.level_U is not None:
            out = out_FN[columns("entities")]
            entities.compare(self.entities.table, rows.query, title_N, rows.job, self.level_U[rows.user], out)

    def _profile(self, rows: Rows, title_N: npt.NDArray[np.int32], out_4N: Float32) -> None:
        plain_T, matrix_TD = self.tables.texts.plain_T, self.tables.matrix_TD
        for f, lists in ((0, self.tables.wanted), (2, self.tables.past)):
            similarity.list_cosine(rows.user, title_N, lists.offset_U, lists.text_E, matrix_TD, plain_T, out_4N[f])
            left, right, row = similarity.explode(rows.user, title_N, lists.offset_U, lists.text_E)
            score = np.empty((1, len(row)), np.float32)
            self.profile.scores(plain_T[left], plain_T[right], score)
            similarity.fold_max(row, score[0], out_4N[f + 1])

    def _places(self, rows: Rows, out_8N: Float32) -> None:
        tables, place_3N = self.tables, self.tables.jobs.place_3J[:, rows.job]
        agree(tables.place_3R[:, rows.request], place_3N, out_8N[0:3])
        agree(tables.home_3U[:, rows.user], place_3N, out_8N[3:6])
        out_8N[6] = tables.jobs.remote_J[rows.job]
        out_8N[7] = tables.remote_R[rows.request]

    def _times(self, rows: Rows, out_2N: Float32) -> None:
        posted_N = self.tables.jobs.posted_J[rows.job]
        known = (posted_N != NO_DATE) & (posted_N <= rows.ts)
        out_2N[0, known] = (rows.ts[known] - posted_N[known]) / counters.DAY_US
        out_2N[1] = (rows.ts // counters.HOUR_US + EPOCH_HOUR) % 168
