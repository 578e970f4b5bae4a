"""What an arm's users did, summed up: all that ratios, their errors and their covariates need, and it adds up over parts.

Legend: U users, V variables.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Users, and for each variable the mean, with the covariances between variables (divided by U - 1).

    Attributes:
        users: how many.
        mean_V: means.
        cov_VV: covariances; zeros for fewer than two users.
    """

    users: int
    mean_V: Floats
    cov_VV: Floats

    @staticmethod
    def of(*value_U: Sequence[float] | Floats) -> "Moments":
        """From the variables' values, a value for each user."""
        value_VU = np.asarray(value_U, np.float64)
        users = value_VU.shape[1]
        cov_VV = np.atleast_2d(np.cov(value_VU)) if users > 1 else np.zeros((len(value_VU), len(value_VU)))
        return Moments(users, value_VU.mean(axis=1) if users else np.zeros(len(value_VU)), cov_VV)

    def __add__(self, other: "Moments") -> "Moments":
        """Of the users of both; none is in both. After Chan, Golub and LeVeque (1983)."""
        users = self.users + other.users
        if not self.users or not other.users:
            return self if self.users else other
        apart_V = other.mean_V - self.mean_V
        scatter_VV = self.cov_VV * (self.users - 1) + other.cov_VV * (other.users - 1)
        scatter_VV = scatter_VV + np.outer(apart_V, apart_V) * (self.users * other.users / users)
        return Moments(users, self.mean_V + apart_V * (other.users / users), scatter_VV / (users - 1))
