"""What a new ranker would have earned, from lists that the old one showed and a small share of which was shuffled.

Only shuffled lists count: in them every job of the first positions could have stood in every other, with a known probability.
A row counts where the new ranker would have put that job into that position. The estimators, in clicks a list:

    IPS    sum of w * click                           / lists        (Horvitz and Thompson 1952; for lists Li et al., KDD 2018)
    SNIPS  sum of w * click / sum of w * positions                   (Swaminathan and Joachims, NeurIPS 2015)
    DR     [expected clicks of the new list + sum of w * (click - expected)] / lists        (Dudik, Langford and Li, ICML 2011)

with w = 1 / propensity where the row is the new ranker's, else 0. They rest on this: whether a job is clicked depends on the
job and its position, not on its neighbours. Errors come from users, as in `ratio.py`.

Legend: N rows, L lists, U users.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from tritower.errors import DataError
from tritower.experiment import ratio
from tritower.experiment.moments import Moments

Floats = NDArray[np.float64]
Estimator = Literal["ips", "snips", "dr"]
_FEWEST = 100.0
"""Effective rows below which nothing is said: the interval itself is then not to be trusted."""


@dataclass(frozen=True)
class Value:
    """Clicks a list under the new ranker.

    Attributes:
        estimator: which.
        clicks: the estimate, with its 95 % interval `low` to `high`.
        effective: effective rows, (sum w)^2 / sum w^2 (Kish 1965).
        logged: clicks a list as it was shown.
    """

    estimator: Estimator
    clicks: float
    low: float
    high: float
    effective: float
    logged: float


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The first positions of shuffled lists, a row for each job.

    Attributes:
        list_N, user_N: which list, and whose it was: numbers.
        clicked_N: whether it was clicked.
        propensity_N: probability with which the job came to its position, above 0.
        wanted_N: whether the new ranker puts this job into this position.
        expected_N: expected click of the row by a model; for DR.
        of_new_L: expected clicks of the new ranker's list by the same model, by list number; for DR.
    """

    list_N: NDArray[np.int64]
    user_N: NDArray[np.int64]
    clicked_N: NDArray[np.bool_]
    propensity_N: Floats
    wanted_N: NDArray[np.bool_]
    expected_N: Floats | None = None
    of_new_L: Floats | None = None


def value(rows: Rows, estimator: Estimator = "snips", alpha: float = 0.05) -> Value:
    """Estimate, or refuse.

    Raises:
        DataError: a propensity is not in (0, 1]; too few rows count; DR has no model.
    """
    if not len(rows.list_N) or not ((rows.propensity_N > 0) & (rows.propensity_N <= 1)).all():
        raise DataError(
            "a propensity is not above 0 and at most 1, or there is no row", where="off-policy", remedy="Take shuffled lists."
        )
    weight_N = rows.wanted_N / rows.propensity_N
    effective = float(weight_N.sum() ** 2 / max((weight_N**2).sum(), 1e-300))
    if effective < _FEWEST:
        raise DataError(
            f"only {effective:.0f} effective rows are as the new ranker would have it, {_FEWEST:.0f} are needed",
            where="off-policy",
            remedy="Shuffle a larger share, fewer positions, or wait.",
        )
    lists, first_L, list_N = np.unique(rows.list_N, return_index=True, return_inverse=True)
    users, user_L = np.unique(rows.user_N[first_L], return_inverse=True)

    def by_user(of_list_L: Floats) -> Floats:
        return np.bincount(user_L, weights=of_list_L, minlength=len(users)).astype(np.float64)

    def by_list(of_row_N: Floats) -> Floats:
        return np.bincount(list_N, weights=of_row_N, minlength=len(lists)).astype(np.float64)

    clicks_L = by_list(weight_N * rows.clicked_N)
    above_U, below_U = by_user(clicks_L), by_user(np.ones(len(lists)))
    if estimator == "snips":
        above_U, below_U = above_U * (len(list_N) / len(lists)), by_user(by_list(weight_N))
    elif estimator == "dr":
        if rows.expected_N is None or rows.of_new_L is None:
            raise DataError(
                "there is no model of clicks", where="off-policy", remedy="Give expected_N and of_new_L, or take snips."
            )
        above_U = by_user(rows.of_new_L[lists] + clicks_L - by_list(weight_N * rows.expected_N))
    found = ratio.ratio(Moments.of(above_U, below_U))
    reach = float(norm.isf(alpha / 2)) * math.sqrt(found.variance)
    logged = float(rows.clicked_N.sum() / len(lists))
    return Value(estimator, found.value, found.value - reach, found.value + reach, effective, logged)
