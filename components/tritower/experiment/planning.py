"""How long a test must run: users and days for an effect at a power, from what users did in a log."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import norm

from tritower.errors import DataError
from tritower.experiment import ratio, sequential
from tritower.experiment.moments import Moments


@dataclass(frozen=True)
class Plan:
    """What a test takes.

    Attributes:
        users: in both arms together.
        days: until so many have come, by the log; None where the log is too short to tell.
        inflation: users over those of a test with one look.
    """

    users: int
    days: int | None
    inflation: float


@functools.cache
def drift(alpha: float, power: float, looks: int = 1) -> float:
    """The expected z at the planned end: what error rate, power and equally spaced looks ask for."""
    if looks == 1:
        return float(norm.isf(alpha / 2) + norm.ppf(power))
    return sequential.drift_for([look / looks for look in range(1, looks + 1)], power, alpha)


def users_for(user: Moments, relative: float, *, treated_share: float = 0.5, drift: float = 2.8016, saved: float = 0.0) -> int:
    """Users in both arms together.

    Args:
        user: moments of the log's users over as long as a user will be seen.
        relative: the relative uplift to find, above -1 and not 0.
        treated_share: of the users, in (0, 1).
        drift: of `drift`; 2.80 for an error rate of .05 and a power of .8.
        saved: share of the variance that CUPED takes away.

    Raises:
        DataError: nobody clicked in the log.
    """
    each = _each(user) * (1 - saved)
    return math.ceil((drift / math.log1p(relative)) ** 2 * each * (1 / treated_share + 1 / (1 - treated_share)))


def found_with(user: Moments, users: int, *, treated_share: float = 0.5, drift: float = 2.8016) -> float:
    """The smallest relative uplift that so many users in both arms together find: the reverse of `users_for`."""
    return math.expm1(drift * math.sqrt(_each(user) * (1 / treated_share + 1 / (1 - treated_share)) / users))


def plan(
    by_days: Sequence[Moments],
    relative: float,
    *,
    alpha: float,
    power: float,
    looks: int,
    share: float = 1.0,
    saved: float = 0.0,
) -> Plan:
    """The shortest test.

    Args:
        by_days: of the log's users in its first day, its first two days, and so on: returning users add to themselves.
        relative: the uplift to find.
        alpha, power: of the test, two-sided.
        looks: equally spaced, by O'Brien-Fleming spending.
        share: of the users that take part, in both arms.
        saved: share of the variance that CUPED takes away.
    """
    once, wanted = drift(alpha, power), drift(alpha, power, looks)
    for day, user in enumerate(by_days, 1):
        if (
            user.users > 1
            and user.mean_V[0] > 0
            and (needed := users_for(user, relative, drift=wanted, saved=saved)) <= user.users * share
        ):
            return Plan(needed, day, (wanted / once) ** 2)
    return Plan(users_for(by_days[-1], relative, drift=wanted, saved=saved), None, (wanted / once) ** 2)


def _each(user: Moments) -> float:
    """Variance of the logarithm of the ratio, times users."""
    found = ratio.ratio(user).log_variance * user.users
    if not 0 < found < math.inf:
        raise DataError(
            "nobody clicked, so that nothing is known of how users differ", where="plan", remedy="Give a longer log."
        )
    return found
