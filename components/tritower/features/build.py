"""All features of a batch of rows: the groups side by side, over one timeline.

Legend: N rows, F features, J jobs; `out_FN` is column by column, NaN = missing.
"""

import numpy as np
import numpy.typing as npt

from tritower.features import catalogue, similarity, strings
from tritower.features.config import FeaturesConfig
from tritower.features.counters import DAY_US, Counters
from tritower.features.history import History, JobVectors
from tritower.features.lookup import NO_DATE, Lookup
from tritower.features.places import agree
from tritower.features.timeline import Rows, Timeline

Float32 = npt.NDArray[np.float32]
HOUR_US = 3_600_000_000
EPOCH_HOUR = 72  # 1970-01-01 was a Thursday: three days after Monday


class Builder:
    """The state of every group and the lookup tables; feed it rows in time order."""

    def __init__(self, tables: Lookup, config: FeaturesConfig) -> None:
        self.tables = tables
        self.timeline = Timeline()
        self.keys_LJ = np.stack([np.arange(len(tables.title_J), dtype=np.int32), tables.occupation_J, tables.company_J])
        traits_3J = np.stack([tables.company_J, tables.place_3J[0], tables.occupation_J])
        self.jobs = JobVectors(tables.matrix_TD, tables.document_J, traits_3J)
        self.counters = Counters(
            [int(keys.max(initial=-1)) + 1 for keys in self.keys_LJ],
            positions=config.positions,
            half_life_days=config.ctr_half_life_days,
            prior_impressions=config.prior_impressions,
        )
        self.history = History(
            len(tables.home_3U[0]), clicks=config.history_clicks, half_life_days=config.history_half_life_days
        )
        self.title = strings.PairScorer(tables.texts, tables.texts, strings.TITLE_SCORERS)
        self.company = strings.PairScorer(tables.texts, tables.companies, strings.COMPANY_SCORERS)
        self.profile = strings.PairScorer(tables.texts, tables.texts, strings.PROFILE_SCORERS)

    def features(self, rows: Rows, request_N: npt.NDArray[np.int64]) -> Float32:
        """The features (F, N) of rows that all want them."""
        out_FN = np.full((len(catalogue.NAMES), len(rows)), np.nan, np.float32)
        self._stream(rows, out_FN)
        self._static(rows, request_N, out_FN)
        return out_FN

    def count(self, events: Rows) -> None:
        """Take events into the state without reading any features."""
        if len(events):
            self._stream(events, np.empty((len(catalogue.NAMES), 0), np.float32))

    def between(self, events: Rows, candidates: Rows, request_N: npt.NDArray[np.int64]) -> Float32:
        """The features of candidates that lie in time among `events`, which are counted."""
        both = Rows.concat([events, candidates])
        out_FN = np.full((len(catalogue.NAMES), len(candidates)), np.nan, np.float32)
        self._stream(both.take(np.argsort(both.ts, kind="stable")), out_FN)
        self._static(candidates, request_N, out_FN)
        return out_FN

    def _stream(self, rows: Rows, out_FN: Float32) -> None:
        batch = self.timeline.start(rows)
        self.counters.read(
            batch, self.keys_LJ[:, batch.rows.job], self.keys_LJ[:, batch.clicks.job], out_FN[catalogue.columns("counters")]
        )
        self.history.read(batch, self.jobs, out_FN[catalogue.columns("history")])
        self.counters.finish(self.timeline.finish(batch))

    def _static(self, rows: Rows, request_N: npt.NDArray[np.int64], out_FN: Float32) -> None:
        tables = self.tables
        title_N = tables.title_J[rows.job]
        self.title.scores(rows.query, title_N, out_FN[catalogue.columns("title")])
        self.company.scores(rows.query, tables.company_J[rows.job], out_FN[catalogue.columns("company")])
        self._profile(rows, title_N, out_FN[catalogue.columns("profile")])
        cosine_N = out_FN[catalogue.columns("embedding")][0]
        similarity.pair_cosine(rows.query, tables.document_J[rows.job], tables.matrix_TD, tables.blank_T, cosine_N)
        places = out_FN[catalogue.columns("places")]
        agree(tables.place_3R[:, request_N], tables.place_3J[:, rows.job], places[0:3])
        agree(tables.home_3U[:, rows.user], tables.place_3J[:, rows.job], places[3:6])
        places[6] = tables.remote_J[rows.job]
        places[7] = tables.remote_R[request_N]
        time = out_FN[catalogue.columns("time")]
        posted_N = tables.posted_J[rows.job]
        known = (posted_N != NO_DATE) & (posted_N <= rows.ts)
        time[0, known] = (rows.ts[known] - posted_N[known]) / DAY_US
        time[1] = (rows.ts // HOUR_US + EPOCH_HOUR) % 168

    def _profile(self, rows: Rows, title_N: npt.NDArray[np.int32], out_4N: Float32) -> None:
        tables = self.tables
        for f, lists in ((0, tables.wanted), (2, tables.past)):
            similarity.list_cosine(
                rows.user, title_N, lists.offset_U, lists.text_E, tables.matrix_TD, tables.blank_T, out_4N[f]
            )
            left, right, row = similarity.explode(rows.user, title_N, lists.offset_U, lists.text_E)
            score = np.empty((1, len(row)), np.float32)
            self.profile.scores(left, right, score)
            similarity.fold_max(row, score[0], out_4N[f + 1])
