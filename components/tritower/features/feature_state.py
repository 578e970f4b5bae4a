"""All features of a batch of rows: the groups side by side, over one timeline.

Legend: N rows, F features, J jobs; `out_FN` is column by column, NaN = missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tritower.features import catalogue, counters, entities, history, rings
from tritower.features.config import FeaturesConfig
from tritower.features.pairs import PairIndex
from tritower.features.static import Static
from tritower.features.tables import FeatureTables
from tritower.features.timeline import Rows, Timeline

Float32 = npt.NDArray[np.float32]
Numbers = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Computed:
    """What is computed for N rows: the features by name, in the order of the layout; and the keys of company and
    occupation and the text of the description (-1 = unknown)."""

    columns: dict[str, Float32]
    occupation_N: npt.NDArray[np.int32]
    description_N: npt.NDArray[np.int32]

    @property
    def values_FN(self) -> Float32:
        """The features as one array."""
        return np.stack(list(self.columns.values()))


class FeatureState:
    """The state of every group, and the tables that it reads; feed it rows in time order."""

    def __init__(
        self,
        tables: FeatureTables,
        config: FeaturesConfig,
        found: entities.Entities | None = None,
        sizes: Sequence[int] | None = None,
    ) -> None:
        """Start from nothing.

        Args:
            tables: what the rows' numbers refer to.
            config: knobs.
            found: the texts' entities; None for no entity features.
            sizes: how many jobs, occupations, companies and queries to have counters for; None for those of the tables.
        """
        self.tables, self.config = tables, config
        self.layout = catalogue.whole_layout(with_entities=found is not None)
        self._from_history = catalogue.Layout(groups=catalogue.HISTORY)
        self._without_history = catalogue.static_layout(with_entities=found is not None)
        self.entities = found
        self.timeline = Timeline()
        jobs, users = tables.jobs, len(tables.home_3U[0])
        sizes = sizes or (len(jobs), len(jobs.occupations), len(jobs.companies), len(tables.texts.plain))
        self.base_L = np.cumsum([0, *sizes])
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
        self.vectors = vectors(tables)

    @cached_property
    def static(self) -> Static:
        """The features that need no history, for rows that come without them."""
        return Static(self.tables, self.entities)

    def grow(self, tables: FeatureTables, sizes: Sequence[int]) -> None:
        """Go on with tables that hold more behind, and counters for `sizes` names of each level but the last."""
        base_L, old_KW = np.cumsum([0, *sizes]), self.counters.state.table_KW
        if (base_L != self.base_L).any():
            new_KW = np.zeros((int(base_L[-1]) + len(old_KW) - int(self.base_L[-1]), counters.WIDTH))
            for start, stop, to in zip(self.base_L, [*self.base_L[1:], len(old_KW)], base_L, strict=True):
                new_KW[to : to + stop - start] = old_KW[start:stop]
            self.counters.state = self.counters.state._replace(table_KW=new_KW)
        self.base_L, self.tables, self.vectors = base_L, tables, vectors(tables)
        self.history.rings, self.searches.rings = (
            rings.with_users(past, len(tables.home_3U[0])) for past in (self.history.rings, self.searches.rings)
        )

    def features(self, rows: Rows, found: pa.RecordBatch | None = None) -> Computed:
        """The features of rows that all want them; `found` is what `static.compute` gave for them, if it was called."""
        history_FN = self._blank(len(rows))
        self._stream(rows, history_FN)
        return self._computed(rows, found, history_FN)

    def count(self, events: Rows) -> None:
        """Take events into the state without reading any features."""
        if len(events):
            self._stream(events, self._blank(0))

    def between(self, events: Rows, candidates: Rows, found: pa.RecordBatch | None = None) -> Computed:
        """The features of candidates that lie in time among `events`, which are counted; `found` as above."""
        both = Rows.concat([events, candidates])
        history_FN = self._blank(len(candidates))
        self._stream(both.take(np.argsort(both.ts, kind="stable")), history_FN)
        return self._computed(candidates, found, history_FN)

    def keys(self, rows: Rows) -> npt.NDArray[np.int64]:
        """The counters' key of each row per level (L, N), -1 where unknown; new (query, occupation) pairs get one."""
        query_N = self.tables.texts.plain_T[rows.query]
        return self.keys_of(rows.job, query_N, self.pairs.numbers(query_N, self.tables.jobs.occupation_J[rows.job]))

    def keys_of(self, job_N: Numbers, query_N: Numbers, pair_N: Numbers) -> npt.NDArray[np.int64]:
        """The same for given jobs, plain forms of queries and pairs."""
        jobs = self.tables.jobs
        own = (job_N, jobs.occupation_J[job_N], jobs.company_J[job_N], query_N, pair_N)
        return np.stack([np.where(key_N < 0, -1, key_N + base) for key_N, base in zip(own, self.base_L, strict=True)])

    def _blank(self, rows: int) -> Float32:
        return np.full((len(self._from_history.names), rows), np.nan, np.float32)

    def _stream(self, rows: Rows, history_FN: Float32) -> None:
        batch = self.timeline.start(rows)
        columns = self._from_history.columns
        keys_LN, keys_LC = self.keys(batch.rows), self.keys(batch.clicks)
        self.counters.reserve(int(self.base_L[-1]) + self.pairs.used)
        self.counters.read(batch, keys_LN, keys_LC, history_FN[columns("counters")])
        self.history.read(batch, self.vectors, history_FN[columns("history")])
        self.searches.read(batch, self.vectors, self.tables.texts.plain_T, history_FN[columns("searches")])
        self.counters.finish(self.timeline.finish(batch))

    def _computed(self, rows: Rows, found: pa.RecordBatch | None, history_FN: Float32) -> Computed:
        names = self._without_history.names
        static = self.static.features(rows) if found is None else [found.column(name).to_numpy() for name in names]
        columns = {**dict(zip(names, static, strict=True)), **dict(zip(self._from_history.names, history_FN, strict=True))}
        return Computed(
            columns={name: columns[name] for name in self.layout.names},
            occupation_N=self.tables.jobs.occupation_J[rows.job],
            description_N=self.tables.jobs.description_J[rows.job],
        )


def vectors(tables: FeatureTables) -> history.Jobs:
    """What the histories read of the tables."""
    jobs = tables.jobs
    traits_3J = np.stack([jobs.company_J, jobs.place_3J[0], jobs.occupation_J])
    return history.Jobs(rings.Vectors(tables.matrix_TD, tables.extra_XD), jobs.document_J, traits_3J)
