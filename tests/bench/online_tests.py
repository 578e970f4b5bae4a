"""Does the analysis of online tests keep its promises? Simulated tests with a known effect: coverage, power, what looks cost.

    python tests/bench/online_tests.py [--tests 5000] [--part coverage|power|looking]

Prints tables and writes build/bench/online_tests.json. Seeds are fixed. Standard errors of the shares stand beside them.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm
from tritower.experiment import analysis, planning, ratio, sequential
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
    found = {}
    for case, habits in cases.items():
        random, stops = np.random.default_rng(7), {name: [] for name in ("one look", "weekly", "daily", "sequence")}
        for _ in range(tests):
            for name, day in one(play(habits, users=4_000, days=DAYS, random=random)).items():
                stops[name].append(day)
        found[case] = {}
        for name, days in stops.items():
            stopped = [day for day in days if day]
            found[case][name] = share(len(stopped), tests) | {"mean_day": float(np.mean([day or DAYS for day in days]))}
        print(
            f"{case:>9}:",
            ", ".join(f"{n} {v['share']:.3f} +- {v['error']:.3f} (day {v['mean_day']:.1f})" for n, v in found[case].items()),
            flush=True,
        )
    return found


def one(played: Played) -> dict[str, int]:
    """The day on which each way of looking stops; 0 = never."""
    effects = {day: ratio.adjusted(*played.arms(day, past=True))[0] for day in range(3, DAYS + 1)}
    config = AnalysisConfig(planned_days=DAYS, look_days=LOOK)
    looks = analysis.looks({day: effects[day] for day in analysis.look_days(DAYS, config)}, config)
    sequence = sequential.ConfidenceSequence(effects[DAYS].log_error)
    return {
        "one look": DAYS * (abs(effects[DAYS].z) >= Z),
        "weekly": next((look.day for look in looks if look.crossed), 0),
        "daily": next((day for day, effect in effects.items() if abs(effect.z) >= Z), 0),
        "sequence": next((day for day, e in effects.items() if abs(math.log1p(e.relative)) >= sequence.reach(e.log_error)), 0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=5_000)
    parser.add_argument("--part", choices=("coverage", "power", "looking"))
    given = parser.parse_args()
    parts = {"coverage": coverage, "power": power, "looking": looking}
    results: dict[str, Any] = {}
    for name, part in parts.items():
        if given.part in (None, name):
            start = time.monotonic()
            results[name] = part(given.tests) | {"tests": given.tests, "seconds": time.monotonic() - start}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
