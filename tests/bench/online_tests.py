"""Does the analysis of online tests keep its promises? Simulated tests with a known effect: coverage, power, what looks cost.

    python tests/bench/online_tests.py [--tests 5000] [--part coverage|power|looking|mismatch]

Prints tables and writes build/bench/online_tests.json. Seeds are fixed. Standard errors of the shares stand beside them.

Legend: U users, A arms, D days, S sums (users, variables, products), V variables of `ratio.py`.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, ncx2, norm
from tritower import threads
from tritower.experiment import analysis, checks, planning, ratio, sequential
from tritower.experiment.config import AnalysisConfig, Habits
from tritower.experiment.simulation import Played, play

OUT = Path("build/bench/online_tests.json")
Z = float(norm.isf(0.025))
DAYS, LOOK = 42, 7


def share(hits: float, count: int) -> dict[str, float]:
    p = hits / count
    return {"share": p, "error": math.sqrt(max(p * (1 - p), 1 / count) / count)}


def coverage(tests: int) -> dict[str, Any]:
    """A/A tests of heavy-tailed users: how often the 95 % interval holds the truth, 0."""
    found = {}
    for users in (250, 500, 1_000, 2_000, 5_000):
        random, hits = np.random.default_rng(users), dict.fromkeys(("naive", "delta", "fieller", "cuped", "cuped, delta"), 0)
        for _ in range(tests):
            played = play(Habits(visits=2.0), users=2 * users, days=1, random=random)
            control, treated = played.arms(past=True)
            effect, better = ratio.effect(control, treated), ratio.adjusted(control, treated)[0]
            naive = ratio.Effect(
                *(ratio.unclustered(arm.users * arm.mean_V[0], arm.users * arm.mean_V[1]) for arm in (control, treated))
            )
            ends = {
                "naive": naive.interval(Z),
                "delta": effect.log_interval(Z),
                "fieller": effect.interval(Z),
                "cuped": better.interval(Z),
                "cuped, delta": better.log_interval(Z),
            }
            for name, (low, high) in ends.items():
                hits[name] += low <= 0 <= high
        found[str(users)] = {name: share(count, tests) for name, count in hits.items()}
        print(
            f"{users:>6,} users an arm:",
            ", ".join(f"{name} {one['share']:.3f}" for name, one in found[str(users)].items()),
            flush=True,
        )
    return found


def power(tests: int) -> dict[str, Any]:
    """Tests of the planned size: do they find the effect as often as planned?"""
    random, effect, days = np.random.default_rng(1), 0.12, 14
    log = play(Habits(click_spread=30), users=200_000, days=days, random=random, past_days=28).arms(past=True)
    user, found = log[0] + log[1], {}
    for name, saved in (("plain", 0.0), ("cuped", ratio.foretold(user))):
        users = planning.users_for(user, effect, drift=planning.drift(0.05, 0.8), saved=saved)
        everybody, hits = int(users / (user.users / 200_000)), 0
        for _ in range(tests):
            arms = play(Habits(click_spread=30, effect=effect), users=everybody, days=days, random=random).arms(past=True)
            hits += abs((ratio.adjusted(*arms)[0] if saved else ratio.effect(*arms)).z) > Z
        found[name] = {"users": users, "planned": 0.8, "reached": share(hits, tests)}
        print(f"power {name}: {users:,} users, planned .800, reached {hits / tests:.3f}", flush=True)
    return found


def looking(tests: int) -> dict[str, Any]:
    """Six weeks with users who come back: one look, weekly looks, daily looks, confidence sequences looked at daily."""
    cases = {
        "none": Habits(),
        "steady": Habits(effect=0.09),
        "fading": Habits(effect=0.16, fades_after_days=21),
        "mailings": Habits(mailings=True, effect=0.09),
    }
    found, chunk = {}, 250
    with ProcessPoolExecutor(threads.chosen()) as pool:
        for case, habits in cases.items():
            sizes = [min(chunk, tests - done) for done in range(0, tests, chunk)]
            parts = pool.map(stopped, [habits] * len(sizes), sizes, range(len(sizes)))
            days = [one for part in parts for one in part]
            found[case] = {}
            for name in days[0]:
                stops = np.array([one[name] for one in days])
                found[case][name] = share(float((stops > 0).sum()), tests) | {
                    "mean_day": float(np.where(stops > 0, stops, DAYS).mean())
                }
            print(
                f"{case:>9}:",
                ", ".join(
                    f"{n} {v['share']:.3f} +- {v['error']:.3f} (day {v['mean_day']:.1f})" for n, v in found[case].items()
                ),
                flush=True,
            )
    return found


def stopped(habits: Habits, tests: int, seed: int) -> list[dict[str, int]]:
    """Of so many tests, the day on which each way of looking stops; 0 = never."""
    return list(_stopped(habits, tests, np.random.default_rng([7, seed])))


def _stopped(habits: Habits, tests: int, random: np.random.Generator) -> Iterator[dict[str, int]]:
    config = AnalysisConfig(planned_days=DAYS, look_days=LOOK)
    for number in range(tests):
        played = play(habits, users=4_000, days=DAYS, random=random)
        with np.errstate(divide="ignore", invalid="ignore"):  # days before the first mailing
            value_AD, variance_AD = adjusted(sums(played))
        if not number:  # the same formula as the room's
            known = ratio.adjusted(*played.arms(DAYS // 2, past=True))[0]
            there = [[arm.value, arm.variance] for arm in (known.control, known.treated)]
            assert np.allclose(np.stack([value_AD, variance_AD], axis=2)[:, DAYS // 2 - 1], there, rtol=1e-9)
        z_D = (value_AD[1] - value_AD[0]) / np.sqrt(variance_AD.sum(axis=0))
        error_D = np.sqrt((variance_AD / value_AD**2).sum(axis=0))
        reach_D = [sequential.ConfidenceSequence(error_D[-1]).reach(error) for error in error_D]
        beyond_D = np.abs(z_D) >= Z
        beyond_D[:2] = False  # nobody looks before the third day
        wide_D = np.abs(np.log(value_AD[1] / value_AD[0])) >= reach_D
        wide_D[:2] = False
        days = analysis.look_days(DAYS, config)
        effects = {day: ratio.Effect(*map(ratio.Ratio, value_AD[:, day - 1], variance_AD[:, day - 1])) for day in days}
        # No bound is below the one of a single look, so that most tests without an effect need none.
        looks = analysis.looks(effects, config) if any(beyond_D[day - 1] for day in days) else []
        yield {
            "one look": DAYS * bool(beyond_D[-1]),
            "weekly": next((look.day for look in looks if look.crossed), 0),
            "daily": _first(beyond_D),
            "sequence": _first(wide_D),
        }


def _first(is_there_D: NDArray[np.bool_]) -> int:
    return int(is_there_D.argmax()) + 1 if is_there_D.any() else 0


def sums(played: Played) -> NDArray[np.float64]:
    """Users, sums and sums of products of arms after each day, of users seen by then: AD15."""
    found = np.zeros((2, played.clicks_UD.shape[1], 15))
    for arm in (0, 1):
        of = played.treated_U == arm
        clicks, shown = (one_UD[of].cumsum(axis=1).astype(float) for one_UD in (played.clicks_UD, played.impressions_UD))
        seen = (shown > 0).astype(float)
        past = np.column_stack([np.ones(of.sum()), played.past_U2[of]]).astype(float)
        first, second = played.past_U2[of].T.astype(float)
        of_past = np.column_stack([past, first * first, first * second, second * second]).T @ seen
        with_clicks, with_shown = past.T @ clicks, past.T @ shown  # users who were not seen have nothing to add
        squares = [(one * other).sum(axis=0) for one, other in ((clicks, clicks), (clicks, shown), (shown, shown))]
        columns = [of_past[0], with_clicks[0], with_shown[0], of_past[1], of_past[2], squares[0], squares[1]]
        columns += [with_clicks[1], with_clicks[2], squares[2], with_shown[1], with_shown[2], *of_past[3:]]
        found[arm] = np.stack(columns, axis=1)
    return found


def adjusted(sum_ADS: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`ratio.adjusted` of many days at once: arms' values and variances, AD."""

    def moments(sum_S: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        users, mean_V = sum_S[..., 0], sum_S[..., 1:5] / sum_S[..., :1]
        scatter_VV = np.zeros((*users.shape, 4, 4))
        row, column = np.triu_indices(4)
        scatter_VV[..., row, column] = scatter_VV[..., column, row] = sum_S[..., 5:]
        scatter_VV -= users[..., None, None] * mean_V[..., :, None] * mean_V[..., None, :]
        gradient = [1 / mean_V[..., 1], -mean_V[..., 0] / mean_V[..., 1] ** 2]
        gradient += [1 / mean_V[..., 3], -mean_V[..., 2] / mean_V[..., 3] ** 2]
        return users, mean_V, scatter_VV / (users - 1)[..., None, None], np.stack(gradient, axis=-1)

    _, usual_DV, cov_DVV, gradient_DV = moments(sum_ADS.sum(axis=0))
    during_DV, before_DV = gradient_DV * [1, 1, 0, 0], gradient_DV * [0, 0, 1, 1]
    both_D, spread_D = (np.einsum("dv,dvw,dw->d", one_DV, cov_DVV, before_DV) for one_DV in (during_DV, before_DV))
    slope_D = both_D / spread_D
    users_AD, mean_ADV, cov_ADVV, gradient_ADV = moments(sum_ADS)
    gradient_ADV[..., 2:] *= -slope_D[:, None]
    past_AD = mean_ADV[..., 2] / mean_ADV[..., 3] - usual_DV[:, 2] / usual_DV[:, 3]
    variance_AD = np.einsum("adv,advw,adw->ad", gradient_ADV, cov_ADVV, gradient_ADV) / users_AD
    return mean_ADV[..., 0] / mean_ADV[..., 1] - slope_D * past_AD, variance_AD


def mismatch(tests: int) -> dict[str, Any]:
    """Users at which a sample-ratio mismatch is found in nine of ten tests, by the formula, and how often it is in draws.

    Two things are called a mismatch of 1 %: arms of 50.5 % and 49.5 %, and 1 % of one arm missing (50.25 % and 49.75 %).
    """
    tests *= 20  # a draw of two counts is quick
    random, limit, found = np.random.default_rng(3), float(chi2.isf(0.001, 1)), {}
    for name, treated in (("none", 0.5), ("50.5 to 49.5", 0.495), ("1 % of one arm missing", 0.99 / 1.99)):
        apart = (2 * treated - 1) ** 2  # the statistic's shift for each user
        users = 300_000 if not apart else next(n for n in range(1_000, 10**7, 1_000) if ncx2.sf(limit, 1, n * apart) >= 0.9)
        hits = sum(
            checks.mismatch({"control": users - count, "treated": count}, {"control": 0.5, "treated": 0.5}).is_bad
            for count in random.binomial(users, treated, tests).tolist()
        )
        by_formula = float(ncx2.sf(limit, 1, users * apart)) if apart else 0.001
        found[name] = {"users": users, "formula": by_formula, "found": share(hits, tests)}
        error = found[name]["found"]["error"]
        print(f"{name}: {users:,} users, found in {hits / tests:.4f} +- {error:.4f}, formula {by_formula:.4f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=5_000)
    parser.add_argument("--part", choices=("coverage", "power", "looking", "mismatch"))
    given = parser.parse_args()
    parts = {"coverage": coverage, "power": power, "looking": looking, "mismatch": mismatch}
    results: dict[str, Any] = {}
    for name, part in parts.items():
        if given.part in (None, name):
            start = time.monotonic()
            results[name] = part(given.tests) | {"tests": given.tests, "seconds": time.monotonic() - start}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
