"""Retrieval: the jobs worth scoring for a search, from every job that is open when it is made.

These lists are made and fused by rank:
    query       cosine of the query's embedding with the job's document embedding
    city        the same, among jobs in the city searched in (its region where the job or the search has no city)
    region      the same, among jobs in the region searched in
    profile     cosine of the mean embedding of the user's wanted and past titles
    history     cosine of the mean embedding of the documents the user clicked before
    near        the same, among jobs in the region searched in; the query where the user clicked nothing yet
    lexical     TF-IDF of character n-grams of query and document: exact words, names and abbreviations that an embedding blurs
    clicked     jobs that were clicked after similar queries (clicks.py)
A search without query, profile and history gets the newest jobs, those in its place first. Where a search has no query, the
profile stands for it in `city` and `region`, and the history where there is no profile.

Every list is exact, with filters as without: the scan in bytes (scan.py) only leaves out what cannot be in it. The batch and
the server call the same function on the same index, and so give the same list.

Fusion is reciprocal rank fusion (Cormack, Clarke, Buettcher, SIGIR 2009, constant 60): it needs no common scale.

Legend: J jobs, L the same filled up to groups of sixteen, P jobs in a place, X texts, D embedding size, K list length.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tritower.numba_cache import njit
from tritower.recommend import scan, words
from tritower.recommend.clicks import Clicks, centroid
from tritower.recommend.index import Index

FUSION_CONSTANT = 60
LISTS = ("query", "city", "region", "profile", "history", "near", "lexical", "newest", "clicked")
"""In the order in which their weights are added up: rounding settles some ties."""
_DAY = 86_400_000_000

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
_ALL: Ints = np.empty(0, np.int64)  # a list is made of all rows


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a job must fulfil to be found; an absent one lets every job through.

    Attributes:
        city, region, country: the job's place must equal these, letter case and outer white space aside.
        posted_since: microseconds since 1970, UTC; older adverts, and those without a date, are left out.
        without_companies: employers to leave out, letter case and outer white space aside.
        allowed_J: any other condition, job by job.
    """

    city: str | None = None
    region: str | None = None
    country: str | None = None
    posted_since: int | None = None
    without_companies: tuple[str, ...] = ()
    allowed_J: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search to retrieve jobs for.

    Attributes:
        ts_us: its time in microseconds since 1970, UTC.
        query: what was typed; may be empty.
        query_D: its embedding; None = none. Rounded to halves, as the encoder's matrix is.
        profile_XD: embeddings of the user's wanted and past titles.
        user_id: whose clicks count; empty = nobody's.
        clicked: numbers of the jobs that the user has clicked; where given, in place of what is known of `user_id`.
        city, region: where; None = unknown.
        conditions: filters.
    """

    ts_us: int
    query: str = ""
    query_D: NDArray[np.floating] | None = None
    profile_XD: NDArray[np.floating] | None = None
    user_id: str = ""
    clicked: Ints | None = None
    city: str | None = None
    region: str | None = None
    conditions: Conditions = field(default_factory=Conditions)


def retrieve(search: Search, index: Index, clicks: Clicks | None = None, *, limit: int) -> Ints:
    """The numbers of at most `limit` distinct jobs, best first; equal ranks in the order of job ids."""
    found = fuse(list(lists(search, index, clicks, limit).values()), limit)
    return index.by_order[found]


def lists(search: Search, index: Index, clicks: Clicks | None, limit: int) -> dict[str, Ints]:
    """The lists by name, best first: places in the order of job ids (`Index.order_J`), at most `limit` each."""
    open_L = _open_jobs(search, index)
    city_P, region_P = _places(search, index, open_L)
    query_D = _halves(search.query_D, index)
    profile_D = _profile(search.profile_XD, index)
    history_D = _history(search, index, clicks)
    found: dict[str, Ints] = {}
    if query_D is None and profile_D is None and history_D is None:
        found["newest"] = _newest(index, open_L, city_P, limit)
    else:
        found |= _dense(index, open_L, city_P, region_P, query_D, profile_D, history_D, limit)
    if search.query:
        found["lexical"] = _lexical(search.query, index, open_L, limit)
    if clicks is not None and query_D is not None:
        voted = clicks.voted(query_D, search.ts_us, index.order_J)
        found["clicked"] = index.order_J[voted[open_L[voted]][:limit]].astype(np.int64)
    return {name: found[name] for name in LISTS if name in found}


def fuse(ranked: list[Ints], limit: int) -> Ints:
    """Reciprocal rank fusion of lists of numbers; ties go to the lower number.

    >>> fuse([np.array([4, 2]), np.array([2])], limit=3).tolist()
    [2, 4]
    """
    job_N = np.concatenate([*ranked, np.empty(0, np.int64)])
    job_U, total_U = _added(job_N, np.array([len(one) for one in ranked], np.int64))
    best: Ints = job_U[np.lexsort((job_U, -total_U))][:limit]
    return best


@njit(cache=True, nogil=True)
def _added(job_N, length_X):  # type: ignore[no-untyped-def]
    """The distinct numbers of lists, one behind the other, and the sum of each one's weights, in the order of the lists."""
    mask, bits = 1, 0
    while mask < 2 * len(job_N):
        mask, bits = 2 * mask, bits + 1
    place_M, mask = np.full(mask, -1, np.int64), mask - 1
    job_U, total_U, found = np.empty(len(job_N), np.int64), np.empty(len(job_N), np.float64), 0
    n = 0
    for length in length_X:
        for rank in range(length):
            at = np.int64((np.uint64(job_N[n]) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits)) if bits else 0
            while place_M[at] >= 0 and job_U[place_M[at]] != job_N[n]:
                at = (at + 1) & mask
            if place_M[at] < 0:
                place_M[at], job_U[found], total_U[found] = found, job_N[n], 0.0
                found += 1
            total_U[place_M[at]] += 1.0 / (FUSION_CONSTANT + 1 + rank)
            n += 1
    return job_U[:found].copy(), total_U[:found].copy()


def _dense(
    index: Index, open_L: Flags, city_P: Ints, region_P: Ints, query_D: Floats | None, profile_D: Floats | None,
    history_D: Floats | None, limit: int,
) -> dict[str, Ints]:  # fmt: skip
    """The lists by cosine. Each vector is compared with all jobs once, and its lists are cut from that."""
    wanted_D = next(one for one in (query_D, profile_D, history_D) if one is not None)
    asked: list[tuple[Floats, list[tuple[str, Ints | None]]]] = []
    for name, vector_D in (("query", query_D), ("profile", profile_D), ("history", history_D)):
        if vector_D is not None:
            own: list[tuple[str, Ints | None]] = [(name, None)]  # None: wherever they are
            own += [("city", city_P), ("region", region_P)] if vector_D is wanted_D else []
            own += [("near", region_P)] if vector_D is (wanted_D if history_D is None else history_D) else []
            asked.append((vector_D, own))
    found: dict[str, Ints] = {}
    vectors = scan.vectors([vector_D for vector_D, _ in asked])
    high = index.bounded(vectors, open_L)
    for v, (_, own) in enumerate(asked):
        given = index.half_TD, index.text_J, index.order_J, index.codes, vectors.exact_VD[v], vectors.asked, v
        for name, at_P in own:
            if at_P is None:
                among = _ALL, high.high_VL[v], high.peak_VG[v]
            else:
                high_P = high.high_VL[v][at_P]
                among = at_P, high_P, scan.peaks(high_P)
            found[name] = scan.ordered(scan.nearest(*given, *among, limit), limit)
    return found


def _lexical(query: str, index: Index, open_L: Flags, limit: int) -> Ints:
    value_J = words.products(index.words, query)
    peak_G = _above_zero(value_J, index.words.scale_J, open_L)
    return scan.ordered(scan.largest(value_J, peak_G, index.order_J, limit), limit)


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _above_zero(value_J, scale_J, open_L):  # type: ignore[no-untyped-def]
    """Multiply by scales, and let no value stand but those above zero, of open jobs; the largest of each group of sixteen."""
    lowest = np.float32(scan.LOWEST)
    # By a product, for a second condition would keep the loop from being done many jobs at a time.
    for j in range(len(value_J)):
        value = value_J[j] * scale_J[j] * np.float32(open_L[j])
        value_J[j] = value if value > 0 else lowest
    return scan.peaks(value_J)


def _newest(index: Index, open_L: Flags, city_P: Ints, limit: int) -> Ints:
    """Newest first among near jobs, then among the others; by days."""
    days_J = (index.posted_J // _DAY).clip(-1_000_000, 1_000_000).astype(np.float32)
    days_J[city_P] += 4_000_000  # float32 holds these whole numbers exactly
    days_J[~open_L[: len(index)]] = scan.LOWEST
    return scan.ordered(scan.largest(days_J, scan.peaks(days_J), index.order_J, limit), limit)


def fulfilling(wanted: Conditions, index: Index, job_N: Ints) -> NDArray[np.bool_]:
    """Which of some jobs, open or not, pass filters."""
    if wanted.allowed_J is None and wanted == Conditions():
        return np.ones(len(job_N), np.bool_)
    return _passing(wanted, index, index.posted_J >= _since(wanted))[job_N]


def _open_jobs(search: Search, index: Index) -> Flags:
    """Which jobs are open at the time of the search and pass its filters (`scan.wanted`)."""
    wanted = search.conditions
    is_open_J = _is_open(index.posted_J, index.expires_J, search.ts_us, _since(wanted))
    return scan.wanted(_passing(wanted, index, is_open_J))


def _since(wanted: Conditions) -> int:
    return int(np.iinfo(np.int64).min) if wanted.posted_since is None else wanted.posted_since


def _passing(wanted: Conditions, index: Index, is_open_J: NDArray[np.bool_]) -> NDArray[np.bool_]:
    for name, number_J in ((wanted.city, index.city_J), (wanted.region, index.region_J), (wanted.country, index.country_J)):
        if name is not None:
            number = index.number(name)
            is_open_J &= (number_J == number) & (number >= 0)
    if wanted.without_companies:
        is_open_J &= ~np.isin(index.company_J, [index.number(name) for name in wanted.without_companies if name.strip()])
    if wanted.allowed_J is not None:
        is_open_J &= wanted.allowed_J
    return is_open_J


@njit(cache=True, nogil=True)
def _is_open(posted_J, expires_J, ts_us, since_us):  # type: ignore[no-untyped-def]
    out_J = np.empty(len(posted_J), np.bool_)
    for j in range(len(posted_J)):
        out_J[j] = since_us <= posted_J[j] <= ts_us < expires_J[j]
    return out_J


def _places(search: Search, index: Index, open_L: Flags) -> tuple[Ints, Ints]:
    """Open jobs in the same city (same region where one of the two has no city), and in the same region; ascending."""
    city, region = index.number(search.city), index.number(search.region)
    is_known = (search.city or "").strip() != ""
    return _in_places(index.city_J, index.region_J, open_L, city, region, is_known)  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def _in_places(city_J, region_J, open_L, city, region, has_city):  # type: ignore[no-untyped-def]
    is_city_L, is_region_L = np.zeros(len(open_L), np.uint8), np.zeros(len(open_L), np.uint8)
    _flag(city_J, region_J, open_L, np.int32(city), np.int32(region), np.uint8(has_city), is_city_L, is_region_L)
    return _flagged(is_city_L), _flagged(is_region_L)


@njit(cache=True, nogil=True)
def _flag(city_J, region_J, open_L, city, region, has_city, is_city_L, is_region_L):  # type: ignore[no-untyped-def]
    """Write 1 where an open job lies in the city, and in the region. Products, not conditions: the loop is done in vectors."""
    knows_city, knows_region = np.uint8(city >= 0), np.uint8(region >= 0)
    for j in range(len(city_J)):
        in_region = np.uint8(region_J[j] == region) * knows_region * np.uint8(open_L[j])
        in_city = np.uint8(city_J[j] == city) * knows_city * np.uint8(open_L[j])
        by_city = has_city * np.uint8(city_J[j] >= np.int32(0))
        is_region_L[j] = in_region
        is_city_L[j] = by_city * in_city + (np.uint8(1) - by_city) * in_region


@njit(cache=True, nogil=True)
def _flagged(flag_L):  # type: ignore[no-untyped-def]
    """Where flags are set, ascending; eight are skipped together."""
    place_P, found = np.empty(len(flag_L) + 1, np.int64), 0
    word_W = flag_L.view(np.uint64)
    for w in range(len(word_W)):
        if word_W[w]:
            for j in range(8 * w, 8 * w + 8):
                place_P[found] = j
                found += flag_L[j]
    return place_P[:found].copy()


def _halves(vector_D: NDArray[np.floating] | None, index: Index) -> Floats | None:
    """The vector in halves; None for zeros, which is how no text is embedded."""
    if vector_D is None:
        return None
    assert len(vector_D) == index.half_TD.shape[1], (len(vector_D), index.half_TD.shape)
    half_D = np.asarray(vector_D, np.float16).astype(np.float32)
    return half_D if half_D.any() else None


def _profile(profile_XD: NDArray[np.floating] | None, index: Index) -> Floats | None:
    if profile_XD is None or not len(profile_XD):
        return None
    half_XD = scan.bits(np.asarray(profile_XD, np.float16))
    return _halves(centroid(np.arange(len(half_XD)), half_XD, np.arange(len(half_XD))), index)


def _history(search: Search, index: Index, clicks: Clicks | None) -> Floats | None:
    jobs = search.clicked
    if jobs is None and clicks is not None and search.user_id:
        jobs = clicks.of_user(search.user_id, search.ts_us)
    if jobs is None or not len(jobs):
        return None
    return _halves(centroid(jobs, index.half_TD, index.text_J), index)
