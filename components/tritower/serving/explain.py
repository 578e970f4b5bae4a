"""Why a job stands where it does: exact Shapley values of seven groups of what the model reads, against the list's median job.

The game (Shapley 1953; Strumbelj and Kononenko 2010; Lundberg and Lee 2017): players are groups of features, a coalition's
worth is the logit of the score of a job that takes its members' features from the job explained and all others from the job
with the median score. A group's value is what it adds on average over all orders in which groups can join. The values of a job
add up to the logit of its score less that of the median job. A group in which both jobs are the same adds nothing, and needs
no coalitions: 2^7 = 128 are scored for a job at most.

    popularity   clicks and impressions of the job, its occupation and company, and of those for the query
    words        strings: query against title and company
    entities     titles, skills, levels ... recognised in the query and in the job
    you          past clicks and searches, wanted and past titles
    meaning      the cosine of query and document, and the document tower: the title, company and description as embedded
    place        the place searched in and the user's home against the job's
    time         the advert's age and the hour

Legend: N candidates, F features, J documents, T width of a document's row, G groups that differ, C coalitions, B their rows for
all jobs explained.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritower.features import catalogue
from tritower.ranker.online import OnlineRanker, Query
from tritower.serving.messages import Reason

Floats = NDArray[np.float32]
GROUPS = ("popularity", "words", "entities", "you", "meaning", "place", "time")
_OF_KIND = {
    "popularity": "popularity", "text": "words", "entity": "entities", "interaction": "you", "profile": "you",
    "embedding": "meaning", "place": "place", "time": "time",
}  # fmt: skip
_OF_NAME = {"seniority_user_distance": "you"}  # an entity by its kind, but about the user's past titles
_LEAST = 1e-12  # probabilities of 0 and 1 have no logit


def group_of() -> Mapping[str, str]:
    """Feature -> group, for every feature there is."""
    features = [feature for group in catalogue.GROUPS.values() for feature in group]
    return {feature.name: _OF_NAME.get(feature.name, _OF_KIND[feature.kind]) for feature in features}


def median(score_N: NDArray[np.floating[Any]]) -> int:
    """Which candidate has the median score; of two in the middle the better one."""
    return int(np.argsort(-score_N, kind="stable")[(len(score_N) - 1) // 2])


def explain(
    ranker: OnlineRanker,
    query: Query,
    table_JT: Floats,
    row_N: NDArray[np.integer[Any]],
    feature_NF: Floats,
    score_N: Floats,
    explained: Sequence[int],
) -> list[tuple[Reason, ...]]:
    """The reasons of some candidates, the largest magnitude first; groups without any effect are not named.

    Args:
        ranker: the model.
        query, table_JT, row_N, feature_NF: what its `score` was given for all candidates.
        score_N: what it gave.
        explained: positions among the N.
    """
    if not len(explained):
        return []
    base = median(score_N)
    games = [_Game(ranker, row_N, feature_NF, job, base) for job in explained]
    # One call for all: what is said once for the rows of a list costs as much as ten rows.
    feature_FB = np.concatenate([game.feature_FC for game in games], axis=1)
    row_B = np.concatenate([game.row_C for game in games])
    worth_B = _logit(ranker.score(query, table_JT, row_B, feature_FB.T))
    starts = np.cumsum([0, *(len(game.row_C) for game in games)])
    return [
        _reasons(game.groups, worth_B[start : start + len(game.row_C)], float(score_N[job]), float(score_N[base]))
        for game, job, start in zip(games, explained, starts, strict=False)
    ]


class _Game:
    """The coalitions of one job: bit g of a coalition's number says that group g is the job's own."""

    def __init__(self, ranker: OnlineRanker, row_N: NDArray[np.integer[Any]], feature_NF: Floats, job: int, base: int) -> None:
        group_F = _groups(tuple(ranker.names))
        own_F, other_F = feature_NF[job], feature_NF[base]
        differs_F = ~((own_F == other_F) | (np.isnan(own_F) & np.isnan(other_F)))
        differ = set(group_F[differs_F].tolist()) | ({_MEANING} if row_N[job] != row_N[base] else set())
        numbers = sorted(differ)
        self.groups = [GROUPS[number] for number in numbers]
        member_CG = _members(len(numbers))
        is_own_CG = np.zeros((len(member_CG), len(GROUPS)), np.bool_)
        is_own_CG[:, numbers] = member_CG
        self.feature_FC: Floats = np.where(is_own_CG[:, group_F].T, own_F[:, None], other_F[:, None])
        self.row_C = np.where(is_own_CG[:, _MEANING], row_N[job], row_N[base])


def _reasons(groups: Sequence[str], worth_C: NDArray[np.float64], score: float, base: float) -> tuple[Reason, ...]:
    if not groups:
        return ()
    # The ends are the scores that the list shows: sums differ from those of another batch in the last bit.
    worth_C[0], worth_C[-1] = _logit(np.array([base, score]))
    value_G = _weights(len(groups)) @ worth_C
    order = sorted(range(len(groups)), key=lambda g: (-abs(value_G[g]), groups[g]))
    return tuple(Reason(group=groups[g], value=float(value_G[g])) for g in order)


@functools.cache
def _groups(names: tuple[str, ...]) -> NDArray[np.int64]:
    """The number of each feature's group."""
    of = group_of()
    return np.array([GROUPS.index(of[name]) for name in names])


@functools.cache
def _members(players: int) -> NDArray[np.bool_]:
    """Who is in each coalition (C, G)."""
    member_CG: NDArray[np.bool_] = (np.arange(2**players)[:, None] >> np.arange(players)) & 1 == 1
    return member_CG


@functools.cache
def _weights(players: int) -> NDArray[np.float64]:
    """The Shapley values as sums over the coalitions' worths (G, C).

    A coalition of s others is joined by a player in s! (n - 1 - s)! of the n! orders.
    """
    member_CG = _members(players)
    size_C = member_CG.sum(axis=1)
    share = [math.factorial(s) * math.factorial(players - 1 - s) / math.factorial(players) for s in range(players)]
    joined = np.array([share[size - 1] if size else 0.0 for size in size_C])
    missed = np.array([share[size] if size < players else 0.0 for size in size_C])
    weight_GC: NDArray[np.float64] = np.where(member_CG.T, joined, -missed)
    return weight_GC


def _logit(score: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    share = score.astype(np.float64).clip(_LEAST, 1 - _LEAST)
    logit: NDArray[np.float64] = np.log(share) - np.log1p(-share)
    return logit


_MEANING = GROUPS.index("meaning")
