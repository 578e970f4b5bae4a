"""Do the intervals of the evaluation hold what they say? A/A tests, coverage and power: `python tests/bench/intervals.py`.

Logs of few and of many users, most with one search, some with fifty. In an A/A test both rankers are equally good in the long
run, so a lift whose interval leaves out 0 is false; a 95 % interval should be so in 5 of 100 tests. With a real lift the
interval should hold the lift of a very large log in 95 of 100, and leave out 0 as often as it can. Beside them the percentile
bootstrap over users, for mAP@3. Prints a Markdown table; `--readme` puts it into the README of the evaluation.
"""

import argparse
import multiprocessing
from pathlib import Path

import numpy as np
from tritower.evaluation import visitors
from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.estimate import Estimate, estimate
from tritower.evaluation.rows import Rows
from tritower.evaluation.wording import LABELS
from tritower.metrics import ranking

README = Path(__file__).parents[2] / "components/tritower/evaluation/README.md"
BEGIN, END = "<!-- intervals: begin -->", "<!-- intervals: end -->"
METRICS = ("auc", "map@1", "map@3")
USERS = (1, 2, 5, 10, 20, 50, 100, 500, 2000)
JOBS = 8
KINDS = 12
BETTER = 1.25
"""Noise of the rival over that of the model where there is a real lift."""
FLAT_P = np.ones(2)


def log(rng: np.random.Generator, users: int, *, noise: float = 1.0, most: int = 50, one_id: bool = False) -> Rows:
    """Searches of `JOBS` jobs under two rankers, `baseline` with `noise` times the noise of `model`.

    Half of what a user likes, and half of what each ranker gets wrong about it, goes by the kind of job and is the user's own:
    the rows of one user are alike, in their clicks and in which ranker does well.

    Args:
        most: searches of a user at most; their number follows Zipf's law with exponent 1.7.
        one_id: write the same id for every user.
    """
    searches = np.minimum(rng.zipf(1.7, users), most)
    user_R = np.repeat(np.arange(users), searches)
    shape = (len(user_R), JOBS)
    kind = rng.integers(0, KINDS, shape)

    def own(scale: float) -> np.ndarray:
        return rng.normal(0, scale, (users, KINDS))[user_R[:, None], kind] + rng.normal(0, scale, shape)

    logit = own(1.0) - 1.5
    score = {name: logit + own(0.8 * times) for name, times in (("model", 1.0), ("baseline", noise))}
    count = len(user_R) * JOBS
    return Rows(
        row=np.arange(count), request=np.repeat(np.arange(len(user_R)), JOBS), job=kind.ravel().astype(np.int32),
        user=np.zeros(count, np.int32) if one_id else np.repeat(user_R, JOBS).astype(np.int32),
        query_text=np.zeros(count, np.int32), position=np.zeros(count, np.int16), randomised=np.ones(count, bool),
        clicked=(rng.random(shape) < 1 / (1 + np.exp(-logit))).ravel(),
        score={name: (1 / (1 + np.exp(-value))).ravel().astype(np.float32) for name, value in score.items()},
    )  # fmt: skip


def judge(rows: Rows, config: EvaluationConfig) -> Estimate | None:
    """What the evaluation makes of a log; None where nobody clicked."""
    rows = visitors.apart(rows, visitors.shared(rows, frozenset()))
    return estimate(rows, FLAT_P, config) if rows.clicked.any() else None


def bootstrap(rows: Rows, rng: np.random.Generator, replicates: int = 500) -> bool:
    """Whether the 95 % percentile interval of the lift of mAP@3 leaves out 0, users drawn with Poisson weights."""
    where = ranking.requests(rows.request, rows.clicked)
    user_Q = rows.user[where.start_Q]
    sums = [
        np.bincount(user_Q, ranking.per_request(rows.score[name], rows.clicked, rows.row, where, seed=0).map3_Q)
        for name in ("model", "baseline")
    ]
    draw_RU = rng.poisson(1.0, (replicates, len(sums[0])))
    with np.errstate(divide="ignore", invalid="ignore"):
        lift_R = (draw_RU @ sums[0]) / (draw_RU @ sums[1]) - 1
    lift_R = lift_R[np.isfinite(lift_R)]
    low, high = np.quantile(lift_R, [0.025, 0.975]) if len(lift_R) else (0.0, 0.0)
    return bool(low > 0 or high < 0)


def tests(users: int, count: int, seed: int, *, noise: float, one_id: bool = False, drawn: int = 0) -> dict[str, np.ndarray]:
    """`count` logs: per metric the (count, 2) ends of the lift's interval, NaN where it cannot be judged.

    Args:
        drawn: of so many logs, also whether the bootstrap leaves out 0, as `bootstrap`.
    """
    config = EvaluationConfig()
    ends = {metric: np.full((count, 2), np.nan) for metric in METRICS}
    apart = np.zeros(drawn)
    for test in range(count):
        rng = np.random.default_rng([seed, users, test])
        rows = log(rng, users, noise=noise, one_id=one_id)
        value = judge(rows, config)
        for metric in METRICS if value else ():
            lift = value.lift("model", "baseline", metric, 0.95)
            ends[metric][test] = lift.low, lift.high
        if test < drawn:
            apart[test] = bootstrap(rows, rng) if rows.clicked.any() else False
    return {**ends, "bootstrap": apart}


def apart(ends: np.ndarray) -> float:
    """Share of the intervals that leave out 0, among those there are; NaN without any."""
    judged = np.isfinite(ends[:, 0])
    return float(((ends[judged, 0] > 0) | (ends[judged, 1] < 0)).mean()) if judged.any() else float("nan")


def truth(seed: int, users: int = 30_000) -> dict[str, float]:
    """The real lifts: those of a very large log."""
    value = judge(log(np.random.default_rng(seed), users, noise=BETTER), EvaluationConfig())
    assert value
    return {metric: value.lift("model", "baseline", metric, 0.95).value for metric in METRICS}


def line(users: int, count: int, seed: int, real: dict[str, float], *, one_id: bool = False) -> str:
    """One row of the table."""
    same = tests(users, count, seed, noise=1.0, one_id=one_id, drawn=count // 5)
    better = tests(users, count, seed + 1, noise=BETTER, one_id=one_id)
    judged = np.isfinite(same["auc"][:, 0]).mean()
    false = [_percent(apart(same[metric])) for metric in METRICS]
    cover, power = [], []
    for metric in METRICS:
        ends = better[metric][np.isfinite(better[metric][:, 0])]
        cover.append(_percent(((ends[:, 0] <= real[metric]) & (real[metric] <= ends[:, 1])).mean() if len(ends) else np.nan))
        power.append(_percent(apart(ends) if len(ends) else np.nan))
    name = f"{users:,} under one id" if one_id else f"{users:,}"
    cells = [name, f"{count:,}", f"{100 * judged:.0f}", *false, _percent(same["bootstrap"].mean()), *cover, *power]
    return "| " + " | ".join(cells) + " |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if np.isfinite(share) else "-"


def main() -> None:
    """Run all, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=5000, help="with 100 users; a fifth of it with fewer or more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readme", action="store_true", help="put the table into the README of the evaluation")
    given = parser.parse_args()
    real = truth(given.seed)
    jobs = [(users, given.tests if users == 100 else given.tests // 5, False) for users in USERS] + [(100, given.tests, True)]
    with multiprocessing.Pool(2) as pool:
        waiting = [
            pool.apply_async(line, (users, count, given.seed, real), {"one_id": one_id})
            for users, count, one_id in reversed(jobs)
        ]
        lines = [one.get() for one in reversed(waiting)]
    lifts = ", ".join(f"{LABELS[name]} {100 * real[name]:+.1f} %" for name in METRICS)
    head = "users|tests|judged %|false: AUC|mAP@1|mAP@3|bootstrap, mAP@3|covers: AUC|mAP@1|mAP@3|finds: AUC|mAP@1|mAP@3"
    what = f"Seed {given.seed}; real lifts {lifts}; shares in percent of the tests judged, the bootstrap's of a fifth of all."
    table = "\n".join([what, "", f"| {head.replace('|', ' | ')} |", "|---" * 13 + "|", *lines])
    print(table)
    if given.readme:
        before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
