"""Two rankers in one list: whose jobs are clicked? A preference from far fewer users than an A/B test needs, and no uplift.

Team-draft interleaving (Radlinski, Kurup and Joachims, CIKM 2008): in each round a coin says which ranker picks first; each
adds its best job that is not in the list yet. A click is a point for the ranker that picked the job. What both put first says
nothing about either: jobs at the head of both lists that are the same have no team.

Legend: N jobs, U users.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from tritower.assignment import fraction
from tritower.errors import DataError

Team = Literal["a", "b", ""]


def team_draft(a: Sequence[str], b: Sequence[str], k: int, *, request_id: str, salt: str) -> list[tuple[str, Team]]:
    """A list of both rankers' jobs, and whose each is; the same for a request whenever it is asked.

    Args:
        a, b: the rankers' lists, best first.
        k: jobs wanted; fewer where both lists end.
        request_id, salt: decide the coins.

    >>> team_draft(["x", "y"], ["x", "z"], 2, request_id="r1", salt="s")[0]
    ('x', '')
    """
    coins = Random(int(fraction(request_id, f"interleaving:{salt}") * 2**53))
    shared = 0
    while shared < min(len(a), len(b), k) and a[shared] == b[shared]:
        shared += 1
    picked: list[tuple[str, Team]] = [(job, "") for job in a[:shared]]
    taken, lists = set(a[:shared]), {"a": list(a), "b": list(b)}
    while len(picked) < k and any(job not in taken for job in (*lists["a"], *lists["b"])):
        teams: list[Literal["a", "b"]] = ["a", "b"] if coins.random() < 0.5 else ["b", "a"]
        for team in teams:
            job = next((job for job in lists[team] if job not in taken), None)
            if job is not None and len(picked) < k:
                picked.append((job, team))
                taken.add(job)
    return picked


@dataclass(frozen=True)
class Preference:
    """Which ranker's jobs are clicked.

    Attributes:
        share_b: share of users who clicked more of b's jobs, ties counted half; .5 = no preference.
        low, high: 95 % interval.
        p: two-sided.
        users: who clicked on a team's job.
    """

    share_b: float
    low: float
    high: float
    p: float
    users: int


def preference(
    user_N: NDArray[np.integer], team_N: Sequence[str], clicked_N: NDArray[np.bool_], alpha: float = 0.05
) -> Preference:
    """Every user is one vote, however much he clicks.

    Args:
        user_N: who saw each job.
        team_N: whose it was: a, b or empty.
        clicked_N: whether it was clicked.
        alpha: of the interval, two-sided.

    Raises:
        DataError: nobody clicked on a team's job.
    """
    team = np.asarray(team_N)
    points_N = clicked_N * ((team == "b").astype(np.int64) - (team == "a"))
    votes_N = clicked_N & np.isin(team, ("a", "b"))
    users, index = np.unique(np.asarray(user_N)[votes_N], return_inverse=True)
    if not len(users):
        raise DataError("nobody clicked on a job of either ranker", where="interleaving", remedy="Wait for more clicks.")
    for_b_U = (np.sign(np.bincount(index, weights=points_N[votes_N], minlength=len(users))) + 1) / 2
    share, error = float(for_b_U.mean()), float(for_b_U.std(ddof=1) / math.sqrt(len(users))) if len(users) > 1 else math.inf
    if not error:  # all of one mind: the rule of three (Hanley and Lippman-Hand 1983)
        error = 1.5 / len(users)
    z = norm.isf(alpha / 2)
    return Preference(
        share_b=share,
        low=max(0.0, share - z * error),
        high=min(1.0, share + z * error),
        p=float(2 * norm.sf(abs(share - 0.5) / error)) if math.isfinite(error) else 1.0,
        users=len(users),
    )
