"""Tests that never were: users with habits of their own, day after day, with an effect that is known.

A user's visits a day are Poisson about a rate of their own (log-normal: a few come all the time), and so is their inclination
to click (beta). What CUPED uses, the days before the test, comes from the same habits. An effect multiplies the inclination of
the treated; it may differ by segment and fade with the days that a user has been in the test.

Legend: U users, D days of the test.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tritower.experiment.config import Habits
from tritower.experiment.moments import Moments

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Played:
    """A test that was played.

    Attributes:
        treated_U: who was in the treated arm.
        segment_U: which half of the users.
        impressions_UD, clicks_UD: day by day.
        past_U2: clicks and impressions before the test.
    """

    treated_U: NDArray[np.bool_]
    segment_U: NDArray[np.bool_]
    impressions_UD: Counts
    clicks_UD: Counts
    past_U2: Counts

    def arms(self, days: int = 0, *, past: bool = False) -> tuple[Moments, Moments]:
        """Control and treated after so many days, 0 = all; of users who were seen by then."""
        clicks_U, impressions_U = (one_UD[:, : days or None].sum(axis=1) for one_UD in (self.clicks_UD, self.impressions_UD))
        columns = [clicks_U, impressions_U, *(self.past_U2.T if past else ())]
        control, treated = (
            Moments.of(*(column[chosen] for column in columns))
            for chosen in ((impressions_U > 0) & (self.treated_U == arm) for arm in (False, True))
        )
        return control, treated


def play(
    habits: Habits,
    *,
    users: int,
    days: int,
    random: np.random.Generator,
    past_days: int = 28,
    treated_U: NDArray[np.bool_] | None = None,
) -> Played:
    """Play a test; half of the users are treated, at random unless they are named."""
    rate_U = habits.visits * random.lognormal(-(habits.unevenness**2) / 2, habits.unevenness, users)
    mean = habits.click_rate
    inclined_U = random.beta(mean * habits.click_spread, (1 - mean) * habits.click_spread, users)
    drawn_U, segment_U = random.random(users) < 0.5, random.random(users) < 0.5
    treated_U = drawn_U if treated_U is None else treated_U
    day_D = np.arange(days)
    open_D = np.isin(day_D % 7, (1, 4)) * 3.5 if habits.mailings else np.ones(days)
    impressions_UD = habits.shown * random.poisson(rate_U[:, None] * open_D)
    effect_U = treated_U * (habits.effect + habits.segment_effect * segment_U)
    kept_D = 0.5 ** (day_D / habits.fades_after_days) if habits.fades_after_days else np.ones(days)
    clicks_UD = random.binomial(impressions_UD, np.minimum(inclined_U[:, None] * (1 + effect_U[:, None] * kept_D), 1.0))
    past_shown_U = habits.shown * random.poisson(rate_U * past_days)
    past_U2 = np.stack([random.binomial(past_shown_U, inclined_U), past_shown_U], axis=1)
    return Played(treated_U, segment_U, impressions_UD, clicks_UD, past_U2)
