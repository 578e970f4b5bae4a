"""Job seekers, their visits, and what they want at each search."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tritower.simulate import lexicon
from tritower.simulate.config import SimulateConfig
from tritower.simulate.lexicon import SPECIALITY_DIM, Lexicon
from tritower.simulate.market import DAY_US, INDUSTRIES, region_of
from tritower.simulate.world import Requests, Users
from tritower.vocabulary import Place

# Shares of searches by hour of the day and weights by weekday (Monday first): evenings and Mondays are busy, nights are quiet.
_HOURS = np.array([1, 1, 1, 1, 1, 2, 3, 5, 7, 9, 9, 9, 9, 8, 8, 8, 7, 7, 7, 8, 8, 7, 5, 3], float)
_WEEKDAYS = np.array([1.2, 1.15, 1.1, 1.05, 0.95, 0.7, 0.75])


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a user wants at each search, before it is put into words; aligned with Requests."""

    session: NDArray[np.int32]
    same_words: NDArray[np.bool_]


def users(config: SimulateConfig, words: Lexicon, cities: list[Place], rng: np.random.Generator) -> Users:
    """People with a career, a second one that is often related, a home and tastes."""
    count = config.num_users
    career = rng.choice(len(words.codes), count, p=words.weight_O).astype(np.int32)
    population = np.array([p.weight for p in cities], float) ** 0.7
    activity = rng.lognormal(0, config.activity_sigma, count)
    return Users(
        seniority=np.clip(rng.normal(1.9, 0.9, count), 0, 4).astype(np.float32),
        city=rng.choice(len(cities), count, p=population / population.sum()).astype(np.int32),
        career=career,
        second_career=step_to_related(words.relatedness_OO, career, rng.random(count)),
        remote_minded=(rng.random(count) ** 2).astype(np.float32),
        taste_industry_US=rng.standard_normal((count, len(INDUSTRIES))).astype(np.float32),
        taste_work_UD=rng.standard_normal((count, SPECIALITY_DIM)).astype(np.float32),
        activity=activity / activity.sum(),
    )


def step_to_related(
    related_OO: NDArray[np.float32], occupation: NDArray[np.int32], u: NDArray[np.float64]
) -> NDArray[np.int32]:
    """Another occupation, drawn in proportion to relatedness (plus a little, so that any change of career can happen)."""
    weight = related_OO.astype(np.float64) ** 2 + 0.002
    np.fill_diagonal(weight, 0)
    cumulative = np.cumsum(weight, axis=1)
    flat = (cumulative / cumulative[:, -1:] + np.arange(len(weight))[:, None]).ravel()
    found = np.searchsorted(flat, occupation + u, side="right") - occupation.astype(np.int64) * len(weight)
    return np.asarray(np.clip(found, 0, len(weight) - 1), np.int32)


def searches(
    config: SimulateConfig, words: Lexicon, people: Users, cities: list[Place], first_us: int, rng: np.random.Generator
) -> tuple[Requests, Wishes]:
    """Requests in time order (queries still unset) that together show exactly `config.impressions` jobs."""
    page = _pages(config, rng)
    count = len(page)
    session = _sessions(config, count, rng)
    num_sessions = int(session[-1]) + 1
    user_of = rng.choice(len(people.activity), num_sessions, p=people.activity).astype(np.int32)
    begin = _begin(config, first_us, num_sessions, rng)
    wanted = _intents(config, words.relatedness_OO, people, user_of, begin, rng)

    new = np.r_[True, session[1:] != session[:-1]]
    gap_s = np.where(new, 0, np.minimum(rng.lognormal(np.log(45), 0.9, count), 900)) + 1
    elapsed_s = np.cumsum(gap_s)
    elapsed_s -= elapsed_s[new][session]
    # Whole seconds, as many logs have; equal times of different requests are the rule in a large log.
    ts_us = begin[session] + elapsed_s.astype(np.int64) * 1_000_000
    user = user_of[session]
    occupation = wanted[session]
    same_words = (rng.random(num_sessions) < config.same_words)[session]
    variant = _variants(words, user, occupation, same_words, new, rng)
    city = _cities(config, people, region_of(cities), user, new, rng)

    order = np.argsort(ts_us, kind="stable")
    ts_us = ts_us[order]
    tied = np.flatnonzero(rng.random(count) < config.tie_share)
    ts_us[tied[tied > 0]] = ts_us[tied[tied > 0] - 1]
    ts_us = np.maximum.accumulate(ts_us)
    requests = Requests(
        user=user[order],
        ts_us=ts_us,
        occupation=occupation[order],
        variant=variant[order],
        city=city[order],
        region=region_of(cities)[city[order]],
        query=np.zeros(count, np.int32),
        page=page,
        randomised=rng.random(count) < config.randomised_share,
    )
    return requests, Wishes(session=session[order], same_words=same_words[order])


def _pages(config: SimulateConfig, rng: np.random.Generator) -> NDArray[np.int16]:
    mean = (config.page_low + config.page_high) / 2
    page = rng.integers(config.page_low, config.page_high + 1, int(config.impressions / mean * 1.2) + 20).astype(np.int16)
    total = np.cumsum(page, dtype=np.int64)
    count = int(np.searchsorted(total, config.impressions)) + 1
    page = page[:count]
    page[-1] -= total[count - 1] - config.impressions
    return page


def _sessions(config: SimulateConfig, count: int, rng: np.random.Generator) -> NDArray[np.int32]:
    new = rng.random(count) < 1 / config.requests_per_session
    new[0] = True
    return (np.cumsum(new) - 1).astype(np.int32)


def _begin(config: SimulateConfig, first_us: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    weekday = (first_us // DAY_US + 3 + np.arange(config.days)) % 7
    share = _WEEKDAYS[weekday]
    day = rng.choice(config.days, count, p=share / share.sum())
    hour = rng.choice(24, count, p=_HOURS / _HOURS.sum())
    # A visit begins early enough to end before the log does.
    second = np.minimum(day * 86_400 + hour * 3_600 + rng.integers(3_600, size=count), config.days * 86_400 - 7_200)
    return np.asarray(first_us + second.astype(np.int64) * 1_000_000)


def _intents(
    config: SimulateConfig,
    related_OO: NDArray[np.float32],
    people: Users,
    user: NDArray[np.int32],
    begin: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """The occupation each visit is about: a random walk over related occupations that starts at the user's career."""
    order = np.lexsort((begin, user))
    sorted_user = user[order]
    first = np.r_[True, sorted_user[1:] != sorted_user[:-1]]
    start = np.flatnonzero(first)
    ordinal = np.arange(len(user)) - start[np.cumsum(first) - 1]
    moves, target, side = (
        rng.random(len(user)) < config.drift,
        rng.random(len(user)),
        rng.random(len(user)) < config.side_intent,
    )
    wanted = np.empty(len(user), np.int32)
    current = people.career.copy()
    by_ordinal = np.argsort(ordinal, kind="stable")
    bounds = np.searchsorted(ordinal[by_ordinal], np.arange(ordinal.max() + 2))
    for k in range(ordinal.max() + 1):
        rows = by_ordinal[bounds[k] : bounds[k + 1]]
        who = sorted_user[rows]
        if k:
            moving = moves[rows]
            current[who[moving]] = step_to_related(related_OO, current[who[moving]], target[rows[moving]])
        wanted[order[rows]] = np.where(side[rows], people.second_career[who], current[who])
    return wanted


def _variants(
    words: Lexicon,
    user: NDArray[np.int32],
    occupation: NDArray[np.int32],
    same_words: NDArray[np.bool_],
    new: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """The title in mind: mostly the user's habitual one for that occupation, kept or changed within a visit."""
    count = len(user)
    habit = ((user.astype(np.int64) * 7919 + occupation.astype(np.int64) * 104_729) * 2_654_435_761 % 2**32) / 2**32
    u = np.where(rng.random(count) < 0.6, habit, rng.random(count))
    own = lexicon.draw(words.seeker_cumulative_V, words.variant_start_O1, occupation, u)
    market = lexicon.draw(words.employer_cumulative_V, words.variant_start_O1, occupation, u)
    variant = np.where(same_words, market, own)
    return variant[_last_kept(~new & (rng.random(count) < 0.55))].astype(np.int32)


def _cities(
    config: SimulateConfig,
    people: Users,
    region_T: NDArray[np.int32],
    user: NDArray[np.int32],
    new: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """The city searched in: home, another of the same state (two times in three), or anywhere; mostly kept within a visit."""
    count = len(user)
    home = people.city[user]
    start = np.searchsorted(region_T, np.arange(region_T.max() + 2))
    low, high = start[region_T[home]], start[region_T[home] + 1]
    near = low + (rng.random(count) * (high - low)).astype(np.int64)
    anywhere = rng.integers(len(region_T), size=count)
    away = np.where(rng.random(count) < 2 / 3, near, anywhere)
    city = np.where(rng.random(count) < config.home_search, home, away)
    return city[_last_kept(~new & (rng.random(count) < 0.9))].astype(np.int32)


def _last_kept(repeats: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each row the latest row up to it that does not repeat the one before."""
    return np.maximum.accumulate(np.where(repeats, 0, np.arange(len(repeats))))
