import math

import numpy as np
import pytest
from tritower.experiment import ratio
from tritower.experiment.moments import Moments

from tools.online_case import PAGE, Case, found_weekly, tables


def test_the_page_holds_what_the_command_gives() -> None:
    assert tables(Case()) in PAGE.read_text(encoding="utf-8"), "run python -m tools.online_case"


def test_the_assumed_moments_are_those_of_users_who_are_drawn() -> None:
    case, random = Case(), np.random.default_rng(0)
    rate_U = case.mails_per_week * random.gamma(1 / case.spread**2, case.spread**2, 400_000)
    mails_U = random.poisson(rate_U * 6)
    likes = 1 / case.likeness - 1  # a + b of the beta
    inclined_U = random.beta(case.click_through * likes, (1 - case.click_through) * likes, len(mails_U))
    drawn = Moments.of(random.binomial(mails_U, inclined_U), mails_U)
    ours = case.user(6)
    assert ours.mean_V == pytest.approx(drawn.mean_V, rel=0.02) and ours.cov_VV == pytest.approx(drawn.cov_VV, rel=0.03)
    error = math.sqrt(ratio.ratio(drawn).log_variance * len(mails_U) * 4 / case.users)
    assert case.error(6) == pytest.approx(error, rel=0.02)
    assert case.naive_error(6) < case.cuped_error(6) < case.error(6) < found_weekly(case, 6) / 2.8
