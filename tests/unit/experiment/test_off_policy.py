import dataclasses

import numpy as np
import pytest
from tritower.errors import DataError
from tritower.experiment.off_policy import Estimator, Rows, value

PLACES = 4
SEEN_P = np.array([1.0, 0.6, 0.4, 0.3])


def logged(lists: int, seed: int, *, wrong: float = 0.0) -> tuple[Rows, float]:
    """Shuffled lists of four jobs, and what the new ranker, which sorts by a noisy guess, truly earns a list."""
    random = np.random.default_rng(seed)
    user = random.integers(0, lists // 3, lists)
    taste = random.lognormal(0, 0.5, lists // 3)[user]
    appeal = np.minimum(random.beta(1, 8, (lists, PLACES)) * taste[:, None], 1)
    new = np.argsort(-(appeal + random.normal(0, 0.05, appeal.shape)), axis=1)  # job at each position
    shown = np.argsort(random.random(appeal.shape), axis=1)
    chance = np.take_along_axis(appeal, shown, axis=1) * SEEN_P
    guess = np.clip(appeal * (1 + wrong), 0, 1)
    rows = Rows(
        list_N=np.repeat(np.arange(lists), PLACES),
        user_N=np.repeat(user, PLACES),
        clicked_N=(random.random(chance.shape) < chance).ravel(),
        propensity_N=np.full(lists * PLACES, 1 / PLACES),
        wanted_N=(shown == new).ravel(),
        expected_N=(np.take_along_axis(guess, shown, axis=1) * SEEN_P).ravel(),
        of_new_L=(np.take_along_axis(guess, new, axis=1) * SEEN_P).sum(axis=1),
    )
    return rows, float((np.take_along_axis(appeal, new, axis=1) * SEEN_P).sum(axis=1).mean())


@pytest.mark.parametrize("estimator", ["ips", "snips", "dr"])
def test_the_truth_lies_in_the_interval_as_often_as_promised(estimator: Estimator) -> None:
    inside, bias = 0, []
    for seed in range(300):
        rows, truth = logged(1500, seed, wrong=0.5)
        found = value(rows, estimator)
        inside += found.low <= truth <= found.high
        bias.append(found.clicks / truth - 1)
    assert inside / 300 >= 0.92
    assert np.mean(bias) == pytest.approx(0, abs=4 * np.std(bias) / np.sqrt(300))
    assert found.clicks > found.logged  # the new ranker is better than a shuffled list


def test_a_good_model_makes_it_surer() -> None:
    widths = {}
    for estimator in ("ips", "snips", "dr"):
        found = value(logged(3000, 1)[0], estimator)  # type: ignore[arg-type]
        widths[estimator] = found.high - found.low
    assert widths["dr"] < widths["ips"] and widths["snips"] < 1.2 * widths["ips"]


def test_an_estimate_by_hand() -> None:
    """Two lists of two places, shuffled evenly; the new ranker would have had the first list as it was shown, the second the
    other way round. IPS: clicks 1 / .5 over two lists = 1. SNIPS: 2 places * (1 / .5) / (2 / .5) = 1."""
    rows = Rows(
        list_N=np.repeat(np.arange(200), 2),
        user_N=np.repeat(np.arange(200), 2),
        clicked_N=np.tile([True, False, True, False], 100),
        propensity_N=np.full(400, 0.5),
        wanted_N=np.tile([True, True, False, False], 100),
    )
    assert value(rows, "ips").clicks == value(rows, "snips").clicks == 1.0
    assert value(rows).effective == 200 and value(rows).logged == 1.0
    with pytest.raises(DataError, match="there is no model"):
        value(rows, "dr")
    few = dataclasses.replace(rows, wanted_N=np.arange(400) < 60)
    with pytest.raises(DataError, match="only 60 effective rows"):
        value(few)
    with pytest.raises(DataError, match="propensity is not above 0"):
        value(dataclasses.replace(rows, propensity_N=np.zeros(400)))
