"""Rankers compared on the simulated job board: interleaving against an A/B test, off-policy estimates against the truth.

    python tests/bench/rankers_compared.py [--part interleaving|off-policy] [--seeds 10] [--repetitions 1000]

The board's searches, users, jobs and click model (examination by position times relevance; seed 0). Rankers a and b sort
a page's jobs by the truth's log-odds and noise of their own: 1.6 and 1.2. Prints tables, and
writes build/bench/rankers_compared.json.

Legend: L lists, K places, S seeds.
"""

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm
from tritower.experiment import click_model, interleaving, off_policy, ratio
from tritower.experiment.draft import team_draft
from tritower.experiment.moments import Moments
from tritower.simulate import step, truth
from tritower.simulate.config import SimulateConfig
from tritower.simulate.relevance import examination

OUT = Path("build/bench/rankers_compared.json")
PLACES, TESTS, NOISE = 10, 100, {"a": 1.6, "b": 1.2}
NEEDED = float(norm.isf(0.025) + norm.isf(0.2)) ** 2
"""(z of .05 two-sided + z of a power of .8) squared: users = this * (error of one user / effect) ^ 2."""


class Board:
    """The pages of a simulated log: who, and how relevant each job is (L, K)."""

    def __init__(self) -> None:
        import pyarrow.parquet as pq

        with tempfile.TemporaryDirectory() as folder:
            config = SimulateConfig(impressions=200_000, seed=0)
            step.run(out=folder, config=config)
            names = ["request_id", "user_id", "job_id"]
            shown = pq.read_table(Path(folder) / "impressions", columns=names, partitioning=None).to_pandas()
            shown = shown[shown.groupby("request_id").cumcount() < PLACES]
            shown = shown[shown.groupby("request_id").job_id.transform("size") == PLACES].sort_values(
                "request_id", kind="stable"
            )
            relevance = truth.relevance(folder, shown.request_id.tolist(), shown.job_id.tolist())
        self.relevance_LK = relevance.reshape(-1, PLACES).astype(np.float64)
        self.user_L = np.unique(shown.user_id.to_numpy()[::PLACES], return_inverse=True)[1]
        self.logit_LK = np.log(self.relevance_LK / (1 - self.relevance_LK))
        self.seen_K = examination(np.arange(1, PLACES + 1), config.examination_decay)

    def orders(self, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Both rankers' orders (L, K)."""
        return {
            name: np.argsort(-(self.logit_LK + noise * random.normal(size=self.logit_LK.shape)), axis=1)
            for name, noise in NOISE.items()
        }

    def chance(self, order_LK: np.ndarray) -> np.ndarray:
        """Probability of a click at each place (L, K)."""
        return np.take_along_axis(self.relevance_LK, order_LK, 1) * self.seen_K


def against_ab(board: Board, seeds: int) -> dict[str, Any]:
    """Users that each way needs for a power of .8, from effects and variances of four draws of all users; and a check of it."""
    ratios, needed, powers, powers_ab = [], [], [], []
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        arms: dict[str, list[Moments]] = {"a": [], "b": []}
        shares, gains = [], []
        for draw in range(4):
            orders = board.orders(random)
            # The effect from the click model itself: drawn clicks of so few users know it to 1.3 standard errors only.
            gains.append(board.chance(orders["b"]).mean() - board.chance(orders["a"]).mean())
            for name, order in orders.items():
                clicks = (random.random(order.shape) < board.chance(order)).sum(1)
                arms[name].append(by_user(board, clicks))
            shares.append(votes(board, orders, f"{seed}-{draw}", random))
        ab = ratio.effect(*(sum(parts[1:], parts[0]) for parts in (arms["a"], arms["b"])))
        users = arms["a"][0].users * 4
        for_ab = 2 * NEEDED * ab.error**2 * users / np.mean(gains) ** 2  # both arms together
        for_a, for_b, ties = np.sum(shares, axis=0)
        found = interleaving.of_votes(for_a, for_b, ties)
        error = (found.high - found.low) / 2 / norm.isf(0.025)
        for_draft = NEEDED * error**2 * users / (found.share_b - 0.5) ** 2  # of all who searched, votes or not
        needed.append((for_ab, for_draft))
        ratios.append(for_ab / for_draft)
        powers.append(reached(board, int(for_draft), seed))
        powers_ab.append(reached_ab(board, int(for_ab / 2), seed))
    spread = float(np.std(np.log(ratios), ddof=1))
    mean_ab, mean_draft = np.median(np.array(needed), axis=0)
    result = {
        "users_ab": float(mean_ab), "users_interleaving": float(mean_draft), "ratio": float(np.exp(np.mean(np.log(ratios)))),
        "error_factor": math.exp(spread / math.sqrt(seeds)), "power_reached": float(np.mean(powers)),
        "power_reached_ab": float(np.mean(powers_ab)), "seeds": seeds,
    }  # fmt: skip
    print(
        f"users for a power of .8: A/B {mean_ab:,.0f}, interleaving {mean_draft:,.0f}; ratio {result['ratio']:.1f} "
        f"(one standard error: times or by {result['error_factor']:.2f}); "
        f"power reached with so many {result['power_reached_ab']:.2f} and {result['power_reached']:.2f}",
        flush=True,
    )
    return result


def by_user(board: Board, clicks_L: np.ndarray) -> Moments:
    users = int(board.user_L.max()) + 1
    return Moments.of(
        np.bincount(board.user_L, weights=clicks_L, minlength=users), PLACES * np.bincount(board.user_L, minlength=users)
    )


def votes(board: Board, orders: dict[str, np.ndarray], salt: str, random: np.random.Generator) -> tuple[int, int, int]:
    """Users for a, for b, and ties, of drafted lists."""
    points = points_of(board, orders, salt, random)
    return int((points[0] < 0).sum()), int((points[0] > 0).sum()), int(((points[0] == 0) & (points[1] > 0)).sum())


def points_of(
    board: Board, orders: dict[str, np.ndarray], salt: str, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Each user's clicks for b less those for a, and clicks on jobs of either."""
    drafts = [
        team_draft(a, b, PLACES, request_id=str(number), salt=salt)
        for number, (a, b) in enumerate(zip(orders["a"].tolist(), orders["b"].tolist(), strict=True))
    ]
    order = np.array([[job for job, _ in draft] for draft in drafts])
    sign = np.array([[{"a": -1, "b": 1, "": 0}[team] for _, team in draft] for draft in drafts])
    clicked = random.random(order.shape) < board.chance(order)
    users = int(board.user_L.max()) + 1
    return tuple(  # type: ignore[return-value]
        np.bincount(board.user_L, weights=(clicked * value).sum(1), minlength=users) for value in (sign, np.abs(sign))
    )


def reached(board: Board, users: int, seed: int) -> float:
    """Share of tests with so many users that find b, drawn from one interleaved run of all, with replacement."""
    random = np.random.default_rng(1_000 + seed)
    points, any_ = points_of(board, board.orders(random), f"power {seed}", random)
    hits = 0
    for _ in range(300):
        some = random.integers(0, len(points), users)
        outcome, voted = np.sign(points[some]), any_[some] > 0
        if not voted.any():
            continue
        counts = [int(((outcome == sign) & voted).sum()) for sign in (-1, 1, 0)]
        hits += interleaving.of_votes(*counts).low > 0.5
    return hits / 300


def reached_ab(board: Board, users: int, seed: int) -> float:
    """Share of A/B tests with so many users an arm that find b: users with replacement, each test with clicks of its own."""
    random, hits = np.random.default_rng(2_000 + seed), 0
    lists_of_user, stop = np.argsort(board.user_L, kind="stable"), np.cumsum(np.bincount(board.user_L))
    chances = [board.chance(order) for order in board.orders(random).values()]
    for _ in range(TESTS):
        arms = []
        for chance_LK in chances:
            drawn = random.integers(0, len(stop), users)
            count = np.diff(stop, prepend=0)[drawn]
            who = np.repeat(np.arange(users), count)
            at = lists_of_user[np.arange(len(who)) + np.repeat(stop[drawn] - np.cumsum(count), count)]
            clicks = (random.random((len(at), PLACES)) < chance_LK[at]).sum(1)
            arms.append(Moments.of(np.bincount(who, weights=clicks, minlength=users), PLACES * count))
        hits += ratio.effect(*arms).z > norm.isf(0.025)
    return hits / TESTS


def off(board: Board, repetitions: int, *, neighbours: bool = False) -> dict[str, Any]:
    """Lists shuffled wholly, the new ranker b: estimates of each repetition against b's true clicks a list, over all users.

    neighbours: a click ends the page (cascade), which the estimators' assumption forbids.
    """
    everybody, found = int(board.user_L.max()) + 1, {name: [] for name in ("ips", "snips", "dr")}
    lists_of_user = np.argsort(board.user_L, kind="stable")
    stop = np.cumsum(np.bincount(board.user_L, minlength=everybody))
    new_LK = board.orders(np.random.default_rng(5))["b"]  # one fixed new ranker
    chance_LK = board.chance(new_LK)
    if neighbours:
        chance_LK = chance_LK * np.cumprod(np.concatenate([np.ones((len(chance_LK), 1)), 1 - chance_LK[:, :-1]], 1), 1)
    true = chance_LK.sum() / len(chance_LK)
    for repetition in range(repetitions):
        random = np.random.default_rng([7, repetition])
        drawn = random.integers(0, everybody, 700)  # users with replacement, each with all lists
        parts = [lists_of_user[(stop[user - 1] if user else 0) : stop[user]] for user in drawn]
        at, who = np.concatenate(parts), np.repeat(np.arange(700), [len(part) for part in parts])
        shown_LK = np.argsort(random.random((len(at), PLACES)), axis=1)
        chance = np.take_along_axis(board.relevance_LK[at], shown_LK, 1) * board.seen_K
        clicked = random.random(chance.shape) < chance
        if neighbours:
            clicked &= np.cumsum(clicked, axis=1) <= 1
        rank_LK = np.argsort(new_LK[at], axis=1)  # place of each job with b
        rank = np.take_along_axis(rank_LK, shown_LK, 1)
        place = np.broadcast_to(np.arange(PLACES), rank.shape)
        rows = off_policy.Rows(
            list_N=np.repeat(np.arange(len(at)), PLACES), user_N=np.repeat(who, PLACES), clicked_N=clicked.ravel(),
            propensity_N=np.full(rank.size, 1 / PLACES), wanted_N=(rank == place).ravel(),
        )  # fmt: skip
        rows = click_model.with_model(rows, position_N=place.ravel(), rank_N=rank.ravel(), score_N=-rank.ravel().astype(float))
        for name, values in found.items():
            one = off_policy.value(rows, name)  # type: ignore[arg-type]
            values.append((one.clicks, one.low, one.high))
    result: dict[str, Any] = {"true": float(true), "repetitions": repetitions}
    for name, values in found.items():
        value, low, high = np.array(values).T
        deviation = float(value.std(ddof=1))
        inside = float(((low <= true) & (true <= high)).mean())
        result[name] = {
            "bias": float(value.mean() - true),
            "bias_in_errors": float((value.mean() - true) / (deviation / math.sqrt(repetitions))),
            "deviation": deviation, "coverage": inside, "coverage_error": math.sqrt(inside * (1 - inside) / repetitions),
        }  # fmt: skip
        one = result[name]
        print(
            f"{'cascade' if neighbours else 'as assumed':>10} {name:>5}: true {true:.4f}, bias {one['bias']:+.4f} "
            f"({one['bias_in_errors']:+.1f} errors of the mean), one estimate's error {deviation:.4f}, "
            f"coverage {inside:.3f} +- {one['coverage_error']:.3f}",
            flush=True,
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("interleaving", "off-policy"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=1_000)
    given = parser.parse_args()
    board, start, results = Board(), time.monotonic(), {}
    print(f"{len(board.user_L):,} lists of {int(board.user_L.max()) + 1:,} users", flush=True)
    if given.part != "off-policy":
        results["interleaving"] = against_ab(board, given.seeds)
    if given.part != "interleaving":
        results["off-policy"] = off(board, given.repetitions)
        results["off-policy, cascade"] = off(board, given.repetitions // 4, neighbours=True)
    print(f"{time.monotonic() - start:.0f} s")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
