"""Two rankers in one list (`draft.py`): whose jobs are clicked? A preference from far fewer users than an A/B test needs.

It says which is better, and nothing about by how much.

Legend: N jobs, U users.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from tritower.errors import DataError


@dataclass(frozen=True)
class Preference:
    """Which ranker's jobs are clicked.

    Attributes:
        share_b: share of users who clicked more of b's jobs, ties counted half; .5 = no preference.
        low, high: 95 % interval.
        p: two-sided, of that interval.
        sign_p: two-sided, of the exact sign test, which leaves ties out.
        users: who clicked on a team's job.
    """

    share_b: float
    low: float
    high: float
    p: float
    sign_p: float
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
    for_b_U = np.sign(np.bincount(index, weights=points_N[votes_N], minlength=len(users)))
    return of_votes(int((for_b_U < 0).sum()), int((for_b_U > 0).sum()), int((for_b_U == 0).sum()), alpha)


def of_votes(a: int, b: int, ties: int, alpha: float = 0.05) -> Preference:
    """The preference of users of whom so many clicked more of a's jobs, more of b's, or as many of both.

    Raises:
        DataError: there is none.
    """
    users = a + b + ties
    if not users:
        raise DataError("nobody clicked on a job of either ranker", where="interleaving", remedy="Wait for more clicks.")
    share = (b + ties / 2) / users
    variance = (a * share**2 + b * (1 - share) ** 2 + ties * (0.5 - share) ** 2) / max(users - 1, 1)
    error = math.sqrt(variance / users) if users > 1 else math.inf
    if not error:  # all of one mind: the rule of three (Hanley and Lippman-Hand 1983)
        error = 1.5 / users
    z = norm.isf(alpha / 2)
    return Preference(
        share_b=share,
        low=max(0.0, share - z * error),
        high=min(1.0, share + z * error),
        p=float(2 * norm.sf(abs(share - 0.5) / error)) if math.isfinite(error) else 1.0,
        sign_p=float(binomtest(b, a + b).pvalue) if a + b else 1.0,
        users=users,
    )
