"""What one request can see of the state, as a small state of its own, so that reading changes nothing.

The counters of the jobs asked for, the rings of one user and the queue of events are copied; what is computed from them is
computed by the code of the step (`FeatureState.features`). Jobs, texts and counters are numbered anew within the excerpt.

Legend: N jobs asked for, Q rows of the queue, C clicks, J distinct jobs, T texts, K counters, L levels, D dimensions.
"""

import copy
import dataclasses
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from tritower.features import catalogue, entities, history, rings
from tritower.features.feature_state import FeatureState, vectors
from tritower.features.guest import Numbered
from tritower.features.live import LiveTables, user_lists
from tritower.features.pairs import EMPTY, PairIndex, distinct, found, slot
from tritower.features.requests import OneSearch
from tritower.features.similarity import Lists
from tritower.features.static import Scorers, Static
from tritower.features.strings import UNNUMBERED, Phrases
from tritower.features.timeline import NO_TIME, Rows, Timeline
from tritower.numba_cache import njit

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
NO_KEY, NO_PAIR = np.int64(1 << 61), np.int64(1 << 62)  # a job and pairs that have no counters yet
EMBEDDED = [feature.name for group in catalogue.GROUPS.values() for feature in group if feature.needs_embeddings]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Query:
    """A request in the numbers of the live tables.

    Attributes:
        ts: microseconds since 1970.
        user: -1 = never met.
        text: of the query; -1 = never met, and then `vector_D` and `found` describe it.
        plain: of its plain form; -1 = blank, `UNNUMBERED` = never met, and then it is `plain_text`.
        vector_D: bits of float16.
        found: its entities.
        place_3: codes of city, region and country.
        is_remote: remote work is asked for.
        guest: who asks, described; `user` is then -1.
    """

    ts: int
    user: int
    text: int
    plain: int
    plain_text: str
    vector_D: npt.NDArray[np.uint16] | None
    found: entities.TextEntities | None
    place_3: Int32
    is_remote: bool
    guest: Numbered | None = None


class Excerpt(FeatureState):
    """A copy of what `query` and the jobs asked for need; `rows` are to be read from it."""

    def __init__(self, whole: FeatureState, live: LiveTables, query: Query, job_N: Int64) -> None:
        """Copy it.

        Args:
            whole: the state of everything, not to be changed meanwhile.
            live: the tables that its numbers refer to.
            query: the request.
            job_N: the jobs asked for; -1 = unknown.
        """
        line = whole.timeline
        now = max(query.ts, int(line.last_ts))
        # Before the next instant nobody sees the queue.
        queue = line.impressions if now > line.last_ts else Rows.empty()
        clicks = line.clicks.take(slice(0, int(np.searchsorted(line.clicks.clicked_at, now))))
        events = Rows.concat([queue, clicks])
        guest = query.guest
        clicked, searched = (rings.of_user(past.rings, query.user) for past in (whole.history, whole.searches))
        clicked, searched = (guest.clicked, guest.searched) if guest else (clicked, searched)
        several = np.concatenate([job_N, clicked.item_SH.ravel(), events.job]) + 1  # the unknown job is a job here
        _, job_J, local = distinct(np.zeros(len(several), np.int64), several)
        job_J -= 1
        asked, held = len(job_N), clicked.item_SH.size
        self.history, self.searches = copy.copy(whole.history), copy.copy(whole.searches)
        self.history.rings = clicked._replace(item_SH=_local(local[asked : asked + held], clicked.item_SH))
        texts = _Texts(live, query, searched.item_SH.ravel(), events.query, job_J)
        self.searches.rings = searched._replace(item_SH=_local(texts.searched, searched.item_SH))
        self.tables, self.entities = texts.tables, texts.found
        self.vectors: history.Jobs = vectors(self.tables)
        self.layout, self._from_history, self._without_history = whole.layout, whole._from_history, whole._without_history
        plain_R = np.concatenate([live.tables.texts.plain_T[events.query], np.full(asked, query.plain, np.int32)])
        self._count_from(whole, np.concatenate([events.job, job_N]), plain_R, len(queue))
        self.timeline = Timeline()
        events = dataclasses.replace(
            events, row=np.arange(len(events)), user=(events.user != query.user).astype(np.int32),
            job=local[asked + held :].astype(np.int32), query=texts.of_events,
        )  # fmt: skip
        self.timeline.impressions, self.timeline.clicks = (
            events.take(slice(0, len(queue))),
            events.take(slice(len(queue), None)),
        )
        self.rows = _rows(now, local[:asked], len(events))
        self._is_unknown = job_N < 0
        self._phrases = live.plain.phrases, live.companies.phrases
        self._new_plain = guest.texts.plain if guest else [query.plain_text]

    def columns(self) -> dict[str, npt.NDArray[np.float32]]:
        """The features by name."""
        columns = self.features(self.rows).columns
        if self._is_unknown.any():
            for name in columns.keys() & set(EMBEDDED):
                columns[name][self._is_unknown] = np.nan
        return columns

    def _stream(self, rows: Rows, history_FN: npt.NDArray[np.float32]) -> None:
        self._pass(rows, history_FN)  # nothing follows

    def keys(self, rows: Rows) -> Int64:
        """As of any state, in the numbers of the excerpt."""
        return self._keys_LR.take(rows.row, axis=1)  # in C order, as the step's: for another the kernels are compiled anew

    @functools.cached_property
    def static(self) -> Static:
        """With the texts of the live tables."""
        # Without `self` in the function there is no circle: an excerpt goes as soon as it is read.
        (plain, companies), new = self._phrases, self._new_plain

        @functools.cache
        def own() -> Phrases:
            return Phrases.of(new)

        def words(number_R: Int64) -> tuple[Phrases, Int64]:
            if number_R.max() < UNNUMBERED:
                return plain, number_R
            if number_R.min() >= UNNUMBERED:
                return own(), number_R - UNNUMBERED
            number_D, of_R = np.unique(number_R, return_inverse=True)
            named = [plain.text[n] if n < UNNUMBERED else new[n - UNNUMBERED] for n in number_D.tolist()]
            return Phrases.of(named), of_R

        scorers = Scorers.of(words, lambda number_R: (companies, number_R), cached=False)
        return Static(self.tables, self.entities, scorers)

    def _count_from(self, whole: FeatureState, job_R: Int64, plain_R: Int32, queued: int) -> None:
        """Copy the counters of rows given by job and by the plain form of their query, numbered anew."""
        jobs, pairs, counters = whole.tables.jobs, whole.pairs, whole.counters
        tables = jobs.occupation_J, jobs.company_J, whole.base_L, pairs.key_B, pairs.number_B, counters.state.table_KW
        room_B = np.full(1 << (6 * len(job_R) + 2).bit_length(), EMPTY, np.int64)
        keys_LR, table_KW = _copied(job_R, plain_R, *tables, room_B)
        self._keys_LR: Int64 = keys_LR
        self.counters = counters.excerpt(table_KW)
        self.counters.expected_Q, self.counters.rate_Q = (
            values[:queued].copy() for values in (counters.expected_Q, counters.rate_Q)
        )
        self.pairs, self.base_L = PairIndex(1), np.zeros(1, np.int64)  # all keys are there


@njit(cache=True)
def _copied(
    job_R: Any, query_R: Any, occupation_J: Any, company_J: Any, base_L: Any, pair_B: Any, number_B: Any, table_KW: Any,
    key_B: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """Keys (L, R) of rows in a table of their own, as `FeatureState.keys_of` gives them, and the table.

    What has no counters yet, the unknown job and pairs never met, starts from nothing. `key_B` is room for a hash table.
    """
    rows, levels, used = len(job_R), len(base_L), np.int64(0)
    keys_LR, at_B, key_K = np.empty((levels, rows), np.int64), np.empty(len(key_B), np.int64), np.empty(levels * rows, np.int64)
    before_L = np.empty(levels, np.int64)
    for r in range(rows):
        occupation, query = np.int64(occupation_J[job_R[r]]), np.int64(query_R[r])
        for level in range(levels):
            if level == 0:
                key = np.int64(job_R[r]) if job_R[r] >= 0 else NO_KEY
            elif level == 1:
                key = occupation
            elif level == 2:
                key = np.int64(company_J[job_R[r]])
            elif level == 3:
                key = query
            elif query < 0 or occupation < 0:
                key = np.int64(-1)
            else:
                key = found(query, occupation, pair_B, number_B)
                key = (NO_PAIR | (query << 31) | occupation) if key < 0 else key
            if r > 0 and key == before_L[level]:  # the query of all candidates is one
                keys_LR[level, r] = keys_LR[level, r - 1]
                continue
            before_L[level] = key
            if key < 0:
                keys_LR[level, r] = -1
                continue
            if key < NO_KEY:
                key += base_L[level]
            b = slot(key, len(key_B))
            while key_B[b] != EMPTY and key_B[b] != key:
                b = (b + 1) & (len(key_B) - 1)
            if key_B[b] == EMPTY:
                key_B[b], at_B[b], key_K[used] = key, used, key
                used += 1
            keys_LR[level, r] = at_B[b]
    own_KW = np.zeros((max(int(used), 1), table_KW.shape[1]))
    for k in range(used):
        if key_K[k] < len(table_KW):
            for w in range(table_KW.shape[1]):
                own_KW[k, w] = table_KW[key_K[k], w]
    return keys_LR, own_KW


def _local(numbers: npt.NDArray[Any], item_SH: Int32) -> Int32:
    return numbers.astype(np.int32).reshape(item_SH.shape)


def _rows(now: int, job_N: Int64, first: int) -> Rows:
    """The rows to read: jobs at this moment, for user 0 and text 0."""
    count = len(job_N)
    zero_N = np.zeros(count, np.int32)
    return Rows(
        row=first + np.arange(count), request=np.full(count, NO_TIME), ts=np.full(count, now), user=zero_N,
        job=job_N.astype(np.int32), query=zero_N, position=zero_N, randomised=np.zeros(count, np.bool_),
        clicked_at=np.full(count, NO_TIME), counts=np.zeros(count, np.bool_), out=np.arange(count),
    )  # fmt: skip


class _Texts:
    """The excerpt's texts and the tables that refer to them.

    They are, in this order: the query, the user's past searches, the queries of events, wanted titles, past titles, the jobs'
    titles, the jobs' documents.
    """

    def __init__(self, live: LiveTables, query: Query, searched: Int32, of_events: Int32, job_J: Int64) -> None:
        whole, user = live.tables, query.user
        wanted, past = user_lists(whole.wanted, user), user_lists(whole.past, user)
        if query.guest:
            wanted, past = query.guest.wanted, query.guest.past
        parts = [
            np.array([query.text]),
            searched,
            of_events,
            wanted,
            past,
            whole.jobs.title_J[job_J],
            whole.jobs.document_J[job_J],
        ]
        text_T, starts = np.concatenate(parts), np.cumsum([0, *map(len, parts)])
        self.searched, self.of_events = (np.arange(starts[k], starts[k + 1], dtype=np.int32) for k in (1, 2))
        matrix_TD = np.empty((len(text_T), whole.matrix_TD.shape[1]), np.uint16)
        titles, documents = starts[-3], starts[-2]
        # No list, no cosine with a title.
        end = documents if len(wanted) or len(past) else titles
        whole.vectors(text_T[:end], matrix_TD[:end])
        whole.vectors(text_T[documents:], matrix_TD[documents:])
        plain_T = whole.texts.plain_T[text_T]
        plain_T[0] = query.plain
        if query.vector_D is not None:
            matrix_TD[0] = query.vector_D
        if query.guest:
            own = query.guest.texts
            place, which = own.at(text_T[:titles])
            matrix_TD[place], plain_T[place] = own.vector_XD[which], own.plain_X[which]
        jobs, number_J = whole.jobs, np.arange(len(job_J), dtype=np.int32)
        self.tables = dataclasses.replace(
            whole,
            jobs=dataclasses.replace(
                jobs, title_J=number_J + np.int32(titles), document_J=number_J + np.int32(documents),
                description_J=jobs.description_J[job_J], company_J=jobs.company_J[job_J],
                occupation_J=jobs.occupation_J[job_J], place_3J=jobs.place_3J.take(job_J, axis=1),
                posted_J=jobs.posted_J[job_J], remote_J=jobs.remote_J[job_J],
            ),
            texts=dataclasses.replace(whole.texts, plain_T=plain_T, remote_T=np.zeros(0, np.bool_)),
            searches=OneSearch(query.place_3, query.is_remote),
            home_3U=whole.home_3U[:, [user, -1]],
            wanted=_list(starts[3], len(wanted)),
            past=_list(starts[4], len(past)),
            matrix_TD=matrix_TD,
            extra_XD=whole.extra_XD[:0],
        )  # fmt: skip
        self.found = _entities(live.found, query, text_T[:documents], job_J) if live.found else None


def _list(start: int, count: int) -> Lists:
    """Consecutive texts as user 0's list."""
    return Lists(offset_U=np.array([0, count, count]), text_E=np.arange(start, start + count, dtype=np.int32))


def _entities(found: entities.Entities, query: Query, text_T: Int64, job_J: Int64) -> entities.Entities:
    table, groups, asked_T = found.table, entities.GROUPS, text_T
    text_T = np.where(text_T < 0, len(table.level_T) - 1, text_T)
    offset, value_E = entities.of_some(table.offset, table.value_E, text_T)
    level_T = table.level_T[text_T]
    if query.found:
        own_offset, own_E, own_level = query.found
        offset, value_E = np.concatenate([own_offset[:-1], offset[groups:] + len(own_E)]), np.concatenate([own_E, value_E])
        level_T[0] = own_level[0]
    if query.guest:
        place, which = query.guest.texts.at(asked_T)
        level_T[place] = query.guest.texts.level_X[which]
    small = entities.Table(offset, value_E, level_T, table.company_J[job_J], table.place_3J.take(job_J, axis=1))
    return dataclasses.replace(found, table=small)
