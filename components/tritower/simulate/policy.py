"""The logging policy: what the simulated board shows. Plausible but imperfect, as the systems are whose logs one learns from.

It files jobs under categories (sometimes the wrong one), finds categories by the words of the search or by a synonym table,
prefers the place searched in, mixes in popular and arbitrary jobs, and ranks by words, place, freshness, last night's click
rate and noise. It knows nothing of a user's intent, seniority or tastes.

Legend: B requests of a block, M candidates of a request, Q distinct searches, W words, O occupations, J jobs, G states.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tritower.simulate import chance, lexicon
from tritower.simulate.world import World

_QUERY_WORDS = 3
_TITLE_WORDS = 6
_GUESSES = 6
# Shares of candidates: the rest is found by words. Popular jobs of the state make up this much.
_POPULAR = 0.15
# Seven in ten candidates depend on (search, city, day) only: the same search finds mostly the same jobs all day.
_STABLE = 0.7
_IN_STATE = 0.75
# What a candidate's score gains when its category came from the synonym table, or was guessed from words.
_FIT_KNOWN, _FIT_WORDS = 1.0, 0.5


@dataclass(frozen=True, kw_only=True)
class Search:
    """The board's search index over texts: rarest words of each search and title, and guessed categories."""

    query_words_QW: NDArray[np.int32]
    query_weight_QW: NDArray[np.float32]
    title_words_JW: NDArray[np.int32]
    guess_QG: NDArray[np.int32]
    guess_cumulative_QG: NDArray[np.float32]
    synonym_OG: NDArray[np.int32]
    synonym_cumulative_OG: NDArray[np.float32]
    meaning_R: NDArray[np.int32]  # category that the synonym table gives each request's search; -1: it names none


@dataclass(frozen=True, kw_only=True)
class Index:
    """The jobs that are open on one day, as the nightly job sees them, and their popularity."""

    by_cell: NDArray[np.int32]
    cell_start: NDArray[np.int64]
    by_region: NDArray[np.int32]
    region_start: NDArray[np.int64]
    popularity_J: NDArray[np.float32]


def index_texts(world: World, titles: list[str], queries: list[str], meant: NDArray[np.bool_]) -> Search:
    """Cut the texts into words and find each search's likely categories: where its rare words are frequent in titles."""
    number: dict[str, int] = {}
    title_words = [[number.setdefault(w, len(number)) for w in dict.fromkeys(lexicon.words(t))] for t in titles]
    query_words = [[number.get(w, -1) for w in dict.fromkeys(lexicon.words(q))] for q in queries]
    frequency = np.bincount([w for ws in title_words for w in ws], minlength=len(number))
    rarity = np.log((len(titles) + 1) / (frequency + 0.5)).astype(np.float32)
    query_QW, weight_QW = _rarest(query_words, rarity, _QUERY_WORDS, missing=-1)
    title_JW, _ = _rarest(title_words, rarity, _TITLE_WORDS, missing=-2)
    weight_QW /= np.maximum(np.sqrt((weight_QW**2).sum(1, keepdims=True)), 1e-6)
    guess, cumulative = _guess(world, query_QW, weight_QW, title_JW, len(number))
    synonym = np.argsort(-world.relatedness_OO, axis=1, kind="stable")[:, :_GUESSES].astype(np.int32)
    weight = np.take_along_axis(world.relatedness_OO, synonym, 1) ** 2
    requests = world.requests
    return Search(
        query_words_QW=query_QW,
        query_weight_QW=weight_QW.astype(np.float32),
        title_words_JW=title_JW,
        guess_QG=guess,
        guess_cumulative_QG=cumulative,
        synonym_OG=synonym,
        synonym_cumulative_OG=_cumulative(weight),
        meaning_R=np.where(meant, requests.occupation, -1).astype(np.int32),
    )


def index_jobs(world: World, day_start_us: int, clicks_J: NDArray[Any], shown_J: NDArray[Any]) -> Index:
    """The open jobs at midnight by (category, state) and, the popular first, by state."""
    jobs, config = world.jobs, world.config
    live = np.flatnonzero((jobs.posted_us <= day_start_us) & (jobs.expires_us > day_start_us)).astype(np.int32)
    regions, categories = int(jobs.region.max()) + 1, world.relatedness_OO.shape[0]
    popularity = np.log((clicks_J + 40 * config.ctr) / ((shown_J + 40) * config.ctr)).astype(np.float32)
    cell = jobs.category[live].astype(np.int64) * regions + jobs.region[live]
    by_region = live[np.lexsort((-popularity[live], jobs.region[live]))]
    return Index(
        by_cell=live[np.argsort(cell, kind="stable")],
        cell_start=np.r_[0, np.cumsum(np.bincount(cell, minlength=categories * regions))],
        by_region=by_region,
        region_start=np.r_[0, np.cumsum(np.bincount(jobs.region[live], minlength=regions))],
        popularity_J=popularity,
    )


def show(
    world: World, search: Search, index: Index, request: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int16]]:
    """The pages of a block of requests: aligned (request, job, position), positions from 1.

    A randomised request gets the same jobs as it would otherwise, in an order drawn at random.
    """
    seed = world.config.seed
    job, fit = _retrieve(world, search, index, request)
    score = _score(world, search, index, request, job) + fit
    # An arbitrary candidate competes with a score drawn as if it were middling, or weak jobs would never be seen.
    luck = chance.normal(chance.key(seed, "explore"), request, np.arange(job.shape[1]))
    score = np.where(fit < 0, np.median(score, axis=1, keepdims=True) + 0.8 * luck, score)
    score[_unusable(world, request, job)] = -np.inf
    page = world.requests.page[request]
    order = np.argsort(-score, axis=1, kind="stable")[:, : int(page.max())]
    shown = np.take_along_axis(job, order, 1)
    rank = np.arange(order.shape[1])
    valid = np.isfinite(np.take_along_axis(score, order, 1)) & (rank < page[:, None])
    _fill(world, index, request, shown, valid)
    shuffled = chance.uniform(chance.key(seed, "shuffle"), request, rank)
    key = np.where(world.requests.randomised[request][:, None], shuffled, rank)
    key = np.where(valid, key, np.inf)
    order = np.argsort(key, axis=1, kind="stable")
    shown, valid = np.take_along_axis(shown, order, 1), np.take_along_axis(valid, order, 1)
    rows, columns = np.nonzero(valid)
    return request[rows], shown[rows, columns], (columns + 1).astype(np.int16)


def _retrieve(
    world: World, search: Search, index: Index, request: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """M candidates per request, with repeats, and how well the board thinks their category fits; -1 marks arbitrary ones."""
    config, requests = world.config, world.requests
    slots = np.arange(config.candidates)
    source, guess, place, pick = (_draw(world, request, slots, purpose) for purpose in ("source", "guess", "place", "pick"))
    query, region, meaning = (
        requests.query[request][:, None],
        requests.region[request][:, None],
        search.meaning_R[request][:, None],
    )
    regions = len(index.region_start) - 1

    known = (source < config.policy_known) & (meaning >= 0)
    arbitrary = (source >= config.policy_known) & (source < config.policy_known + config.policy_explore)
    popular = source >= 1 - _POPULAR
    by_words = _choose(search.guess_QG, search.guess_cumulative_QG, query, guess)
    by_meaning = _choose(search.synonym_OG, search.synonym_cumulative_OG, np.maximum(meaning, 0), guess)
    category = np.where(known, by_meaning, by_words)
    popular |= category < 0
    category = np.maximum(category, 0)

    cell = category.astype(np.int64) * regions + region
    low, high = index.cell_start[cell], index.cell_start[cell + 1]
    wide = (place > _IN_STATE) | (low == high)
    low = np.where(wide, index.cell_start[category * regions], low)
    high = np.where(wide, index.cell_start[(category + 1) * regions], high)
    popular |= low == high
    job = index.by_cell[np.minimum(low + (pick * (high - low)).astype(np.int64), len(index.by_cell) - 1)]

    low, high = index.region_start[region], index.region_start[region + 1]
    hit = np.minimum(low + (pick**3 * (high - low)).astype(np.int64), len(index.by_region) - 1)
    job = np.where(popular, index.by_region[hit], job)
    anything = index.by_cell[(pick * len(index.by_cell)).astype(np.int64)]
    fit = np.where(popular, 0.0, np.where(known, _FIT_KNOWN, _FIT_WORDS))
    return np.where(arbitrary, anything, job), np.where(arbitrary, -1.0, fit)


def _draw(world: World, request: NDArray[np.int64], slots: NDArray[Any], purpose: str) -> NDArray[np.float64]:
    stable = round(len(slots) * _STABLE)
    requests, seed = world.requests, world.config.seed
    day = requests.ts_us[request] // 86_400_000_000
    context = (day * 1_000_003 + requests.city[request]) * 10_000_019 + requests.query[request]
    fixed = chance.uniform(chance.key(seed, f"{purpose} of the day"), context, slots[:stable])
    return np.concatenate([fixed, chance.uniform(chance.key(seed, purpose), request, slots[stable:])], axis=1)


def _score(
    world: World, search: Search, index: Index, request: NDArray[np.int64], job: NDArray[np.int32]
) -> NDArray[np.float64]:
    jobs, requests, config = world.jobs, world.requests, world.config
    query = requests.query[request]
    words_BMW = search.title_words_JW[job]
    lexical = np.zeros(job.shape, np.float32)
    for w in range(_QUERY_WORDS):
        hit = (words_BMW == search.query_words_QW[query, w][:, None, None]).any(2)
        lexical += hit * search.query_weight_QW[query, w][:, None]
    near = np.where(
        jobs.city[job] == requests.city[request][:, None], 1.0, 0.5 * (jobs.region[job] == requests.region[request][:, None])
    )
    age_days = np.maximum(requests.ts_us[request][:, None] - jobs.posted_us[job], 0) / 86_400_000_000
    noise = chance.normal(chance.key(config.seed, "policy noise"), request, np.arange(job.shape[1]))
    return np.asarray(
        1.2 * lexical + 1.1 * near + 0.8 * index.popularity_J[job] - 0.1 * np.log1p(age_days) + config.policy_noise * noise
    )


def _unusable(world: World, request: NDArray[np.int64], job: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Candidates that repeat an earlier one of their request or have expired since midnight."""
    order = np.argsort(job, axis=1, kind="stable")
    ordered = np.take_along_axis(job, order, 1)
    repeated = np.zeros(job.shape, np.bool_)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
    return np.asarray(repeated | (world.jobs.expires_us[job] <= world.requests.ts_us[request][:, None]))


def _fill(world: World, index: Index, request: NDArray[np.int64], shown: NDArray[np.int32], valid: NDArray[np.bool_]) -> None:
    """Complete, in place, the rare pages for which too few jobs were found, with open jobs in an order drawn at random."""
    page = world.requests.page[request]
    for row in np.flatnonzero(valid.sum(1) < page):
        have = shown[row][valid[row]]
        key = chance.key(world.config.seed, f"fill {request[row]}")
        live = index.by_cell[world.jobs.expires_us[index.by_cell] > world.requests.ts_us[request[row]]]
        spare = live[~np.isin(live, have)]
        spare = spare[np.argsort(chance.uniform(key, spare), kind="stable")]
        page_now = np.concatenate([have, spare])[: page[row]]
        shown[row, : len(page_now)] = page_now
        valid[row] = np.arange(valid.shape[1]) < len(page_now)


def _choose(
    options_NG: NDArray[np.int32], cumulative_NG: NDArray[np.float32], row: NDArray[Any], u: NDArray[np.float64]
) -> NDArray[np.int32]:
    """One option of each row by its share; `row` is (B, 1), `u` is (B, M)."""
    column = np.zeros(u.shape, np.int64)
    for g in range(options_NG.shape[1] - 1):
        column += u >= cumulative_NG[row, g]
    return np.asarray(options_NG[row, column])


def _cumulative(weight: NDArray[Any]) -> NDArray[np.float32]:
    total = np.cumsum(weight, axis=1)
    return np.asarray(total / np.maximum(total[:, -1:], 1e-9), np.float32)


def _rarest(
    lists: list[list[int]], rarity: NDArray[np.float32], most: int, *, missing: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    number = np.full((len(lists), most), missing, np.int32)
    weight = np.zeros((len(lists), most), np.float32)
    for row, found in enumerate(lists):
        kept = sorted((w for w in found if w >= 0), key=lambda w: -float(rarity[w]))[:most]
        number[row, : len(kept)] = kept
        weight[row, : len(kept)] = rarity[kept]
    return number, weight


def _guess(
    world: World, query_QW: NDArray[np.int32], weight_QW: NDArray[np.float32], title_JW: NDArray[np.int32], num_words: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Per search the categories whose titles hold its words, -1 where none does, with cumulative shares."""
    num_categories = world.relatedness_OO.shape[0]
    jobs, columns = np.nonzero(title_JW >= 0)
    ones = np.ones(len(jobs), np.float32)
    counts = sparse.csr_matrix((ones, (title_JW[jobs, columns], world.jobs.category[jobs])), shape=(num_words, num_categories))
    size = np.maximum(np.bincount(world.jobs.category, minlength=num_categories), 1).astype(np.float32)
    counts = counts @ sparse.diags(1 / np.sqrt(size))
    queries, columns = np.nonzero(query_QW >= 0)
    asked = sparse.csr_matrix(
        (weight_QW[queries, columns] ** 2, (queries, query_QW[queries, columns])), shape=(len(query_QW), num_words)
    )
    guess = np.full((len(query_QW), _GUESSES), -1, np.int32)
    cumulative = np.zeros((len(query_QW), _GUESSES), np.float32)
    for start in range(0, len(query_QW), 8_192):
        likely = np.asarray((asked[start : start + 8_192] @ counts).todense())
        best = np.argsort(-likely, axis=1, kind="stable")[:, :_GUESSES]
        weight = np.take_along_axis(likely, best, 1)
        found = weight[:, :1] > 0
        width = best.shape[1]
        guess[start : start + 8_192, :width] = np.where(found, best, -1)
        cumulative[start : start + 8_192, :width] = _cumulative(weight)
        cumulative[start : start + 8_192, width:] = 1
    return guess, cumulative
