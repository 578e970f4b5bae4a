"""Retrieval: the jobs worth scoring for each search, from every job that was active when it was made.

These lists are made per search and fused by rank:
    query       cosine of the query's embedding with the job's document embedding, exact
    city        the same, among jobs in the city searched in (its region where the job or the search has no city)
    region      the same, among jobs in the region searched in
    profile     cosine of the mean embedding of the user's wanted and past titles
    history     cosine of the mean embedding of the documents the user clicked before
    near        the same, among jobs in the region searched in; the query where the user clicked nothing yet
    lexical     cosine of TF-IDF character n-grams of query and document: exact words, names and abbreviations that an
                embedding blurs
    clicked     jobs that were clicked after similar queries (clicks.py)
A search without query, profile and history gets the newest jobs, those in its place first.

Fusion is reciprocal rank fusion (Cormack, Clarke, Buettcher, SIGIR 2009, constant 60): it needs no common scale.

Legend: S searches, J jobs, B jobs in a block, T texts, D embedding size, V n-grams, K list length. A missing entry of a
list is job -1.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

FUSION_CONSTANT = 60
SEARCH_BLOCK, JOB_BLOCK = 256, 16_384
"""Searches and jobs compared at a time, so that memory is bounded: one list's float32 similarities are then 16 MiB."""
_DENSE = ("query", "city", "region", "profile", "history", "near", "lexical", "newest")

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """What retrieval knows of the jobs; row number = job.

    `matrix_TD` is the embedding matrix of all texts (memory-mapped float16 is fine), `text_J` each job's row in it.
    `posted_us_J` and `expires_us_J` are microseconds since 1970 (the smallest and the largest int64 where unknown);
    `place_J2` holds a city and a region number, -1 where unknown.
    """

    matrix_TD: NDArray[np.floating]
    text_J: Ints
    lexical_JV: sp.csr_matrix
    posted_us_J: Ints
    expires_us_J: Ints
    place_J2: Ints


@dataclass(frozen=True, kw_only=True)
class Searches:
    """The searches to answer, in order. A row of zeros in an embedding means there is none.

    `clicked_S` holds, best first, the jobs clicked after similar queries, active or not.
    """

    query_SD: Floats
    profile_SD: Floats
    history_SD: Floats
    lexical_SV: sp.csr_matrix
    ts_us_S: Ints
    place_S2: Ints
    clicked_S: list[Ints]

    def part(self, start: int, stop: int) -> "Searches":
        """Searches from `start` up to `stop`."""
        return Searches(
            query_SD=self.query_SD[start:stop],
            profile_SD=self.profile_SD[start:stop],
            history_SD=self.history_SD[start:stop],
            lexical_SV=self.lexical_SV[start:stop],
            ts_us_S=self.ts_us_S[start:stop],
            place_S2=self.place_S2[start:stop],
            clicked_S=self.clicked_S[start:stop],
        )


def retrieve(searches: Searches, jobs: Jobs, *, limit: int) -> Iterator[list[Ints]]:
    """The jobs of each search, best first, in blocks of searches.

    Args:
        limit: at most this many jobs per search.

    Yields:
        For each block, one array of distinct job numbers per search.
    """
    for start in range(0, len(searches.ts_us_S), SEARCH_BLOCK):
        block = searches.part(start, start + SEARCH_BLOCK)
        lists = _lists(block, jobs, limit)
        yield [fuse([jobs_SK[i] for jobs_SK in lists], limit) for i in range(len(block.ts_us_S))]


def fuse(ranked: list[Ints], limit: int) -> Ints:
    """Reciprocal rank fusion of lists of job numbers; ties go to the lower number.

    >>> fuse([np.array([4, 2]), np.array([2, -1])], limit=3).tolist()
    [2, 4]
    """
    job = np.concatenate(ranked)
    weight = np.concatenate([1.0 / (FUSION_CONSTANT + 1 + np.arange(len(one))) for one in ranked])
    distinct, inverse = np.unique(job[job >= 0], return_inverse=True)
    total = np.bincount(inverse, weights=weight[job >= 0], minlength=len(distinct))
    best: Ints = distinct[np.lexsort((distinct, -total))][:limit]
    return best


def lexical_vectors(documents: list[str], queries: list[str]) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """TF-IDF vectors of character 3- to 5-grams within words, L2-normalised; fitted on the documents.

    Character n-grams survive typos and inflection. Queries without a known n-gram get a zero vector.
    """
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, dtype=np.float32, min_df=1)
    return vectorizer.fit_transform(documents), vectorizer.transform(queries)


def _lists(searches: Searches, jobs: Jobs, limit: int) -> list[Ints]:
    count = len(searches.ts_us_S)
    best = {name: _empty(count, limit) for name in _DENSE}
    ts = searches.ts_us_S[:, None]
    for start in range(0, len(jobs.posted_us_J), JOB_BLOCK):
        part = slice(start, start + JOB_BLOCK)
        is_active = (jobs.posted_us_J[part] <= ts) & (ts < jobs.expires_us_J[part])
        for name, score, mask in _scored(searches, jobs, part):
            best[name] = _merge(best[name], np.where(is_active & mask, score, -np.inf), start, limit)
    clicked = [_active(found, jobs, when)[:limit] for found, when in zip(searches.clicked_S, searches.ts_us_S, strict=True)]
    return [*(np.where(np.isfinite(score), job, -1) for score, job in best.values()), _padded(clicked, limit)]


def _scored(searches: Searches, jobs: Jobs, part: slice) -> Iterator[tuple[str, Floats, NDArray[np.bool_]]]:
    """Each dense list's name, its scores of a block of jobs, and which jobs belong to it."""
    vectors = (searches.query_SD, searches.profile_SD, searches.history_SD)
    has_query, has_profile, has_history = (np.any(one_SD, axis=1, keepdims=True) for one_SD in vectors)
    embedding_DB = jobs.matrix_TD[jobs.text_J[part]].astype(np.float32).T
    query, profile, history = (one_SD @ embedding_DB for one_SD in vectors)
    in_city, in_region = _places(searches.place_S2, jobs.place_J2[part])
    anything = has_query | has_profile | has_history
    wanted = np.where(has_query, query, np.where(has_profile, profile, history))
    lexical = (searches.lexical_SV @ jobs.lexical_JV[part].T).toarray()
    # Newest first among near jobs, then among the others: days, which float32 holds exactly.
    days = (jobs.posted_us_J[part] // 86_400_000_000).clip(-1_000_000, 1_000_000).astype(np.float32)
    yield "query", query, has_query
    yield "city", wanted, in_city & anything
    yield "region", wanted, in_region & anything
    yield "profile", profile, has_profile
    yield "history", history, has_history
    yield "near", np.where(has_history, history, wanted), in_region & anything
    yield "lexical", lexical, lexical > 0
    yield "newest", days + 4_000_000 * in_city, ~anything


def _active(found: Ints, jobs: Jobs, ts: np.int64) -> Ints:
    return found[(jobs.posted_us_J[found] <= ts) & (ts < jobs.expires_us_J[found])]


def _padded(lists: list[Ints], limit: int) -> Ints:
    out = np.full((len(lists), limit), -1, dtype=np.int64)
    for row, one in enumerate(lists):
        out[row, : len(one)] = one
    return out


def _empty(count: int, limit: int) -> tuple[Floats, Ints]:
    return np.full((count, limit), -np.inf, dtype=np.float32), np.full((count, limit), -1, dtype=np.int64)


def _merge(best: tuple[Floats, Ints], score_SB: Floats, start: int, limit: int) -> tuple[Floats, Ints]:
    """The best `limit` of a running list and one block of jobs, ordered by (score descending, job)."""
    count, width = score_SB.shape
    score = np.concatenate([best[0], score_SB.astype(np.float32)], axis=1)
    job = np.concatenate([best[1], np.broadcast_to(np.arange(start, start + width), (count, width))], axis=1)
    if score.shape[1] > limit:
        keep = np.argpartition(-score, limit - 1, axis=1)[:, :limit]
        score, job = np.take_along_axis(score, keep, axis=1), np.take_along_axis(job, keep, axis=1)
    order = np.lexsort((job, -score), axis=1)
    return np.take_along_axis(score, order, axis=1), np.take_along_axis(job, order, axis=1)


def _places(search_S2: Ints, job_B2: Ints) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Same city (same region where one of the two has no city), and same region."""
    same = (search_S2[:, None, :] == job_B2[None, :, :]) & (search_S2[:, None, :] >= 0)
    city_unknown = (search_S2[:, None, 0] < 0) | (job_B2[None, :, 0] < 0)
    return np.where(city_unknown, same[:, :, 1], same[:, :, 0]), same[:, :, 1]
