"""Command line of online tests: `python -m tritower.experiment --help` names its verbs."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tritower import logs
from tritower.assignment import Experiment
from tritower.config import from_dict
from tritower.errors import TritowerError


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; 0 on success, 2 on an error."""
    parser = argparse.ArgumentParser(prog="python -m tritower.experiment", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    plan = verbs.add_parser("plan", help="users and days that a test needs, from a log of impressions")
    plan.add_argument("--log", required=True, help="raw impressions: a file or a folder")
    assign = verbs.add_parser("assign", help="the arms of units, one unit a line on standard input")
    assign.add_argument("--name", required=True, help="the experiment's name")
    assign.add_argument("--arm", action="append", required=True, metavar="NAME=SHARE", help="an arm and its share; two or more")
    analyse = verbs.add_parser("analyse", help="what a test says, and whether one may stop")
    analyse.add_argument("--shown", required=True, help="exposures: a file or a folder")
    analyse.add_argument("--events", default="", help="events for the guardrails")
    analyse.add_argument("--past", default="", help="impressions from before the test")
    analyse.add_argument("--report", default="", help="HTML file to write")
    analyse.add_argument("--figures", default="", help="JSON file to write")
    analyse.add_argument("--root", default="", help="where the test's record is: what was planned, which looks were taken")
    simulate = verbs.add_parser("simulate", help="write the tables of a test that never was")
    simulate.add_argument("--out", type=Path, required=True, help="folder to write")
    simulate.add_argument("--users", type=int, default=20_000)
    simulate.add_argument("--days", type=int, default=42)
    simulate.add_argument("--seed", type=int, default=0)
    simulate.add_argument("--faults", default="{}", help="what is wrong with it, as JSON")
    interleaving = verbs.add_parser("interleaving", help="which of two interleaved rankers users prefer")
    off_policy = verbs.add_parser("off-policy", help="what a new ranker would have earned, from shuffled lists")
    off_policy.add_argument("--scores", required=True, help="its scores: request_id, job_id, score; a file or a folder")
    for verb in (interleaving, off_policy):
        verb.add_argument("--shown", required=True, help="what was shown: a file or a folder")
        verb.add_argument("--clicks", default="", help="clicks: request_id, job_id; where what was shown has no column clicked")
        verb.add_argument("--figures", default="", help="JSON file to write")
    for verb in (plan, assign, analyse, interleaving, off_policy, simulate):
        verb.add_argument("--config", default="{}", help="knobs as JSON")
    given: dict[str, Any] = vars(parser.parse_args(arguments))
    logs.setup()
    try:
        by_name: dict[str, Callable[..., int]] = {
            "plan": _plan,
            "assign": _assign,
            "analyse": _analyse,
            "simulate": _simulate,
            "interleaving": _interleaving,
            "off-policy": _off_policy,
        }
        return by_name[given.pop("verb")](**given)
    except TritowerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _plan(*, log: str, config: str) -> int:
    from tritower.experiment import step
    from tritower.experiment.config import PlanConfig

    knobs = from_dict(PlanConfig, config)
    found = step.plan(log=log, config=knobs)
    print(f"to find {knobs.effect:+.1%} with a power of {knobs.power:.0%}, {knobs.looks} looks:")
    saved = f"with CUPED, which takes away {found['cuped_saved_pct']:.0f}% of the variance"
    for name, suffix in (("as it is", ""), (saved, "_cuped")):
        days = f"{found[f'days{suffix}']} days" if found[f"days{suffix}"] else "more days than the log has"
        mailings = f", {found[f'mailings{suffix}']:,} mailings" if found[f"mailings{suffix}"] else ""
        print(f"  {found[f'users{suffix}']:,} users, {days}{mailings} ({name})")
    print("smallest uplift that all users of the log would show, day by day:")
    print("  " + " ".join(f"{value:.1%}" for value in found["found_by_day"]))
    return 0


def _assign(*, name: str, arm: list[str], config: str) -> int:
    arms = [dict(zip(("name", "share"), one.partition("=")[::2], strict=True)) for one in arm]
    knobs = json.loads(config) | {
        "name": name,
        "arms": [{"name": one["name"], "share": float(one["share"] or 0)} for one in arms],
    }
    experiment = from_dict(Experiment, knobs)
    for line in sys.stdin:
        unit = line.rstrip("\n")
        given = experiment.assign(unit)
        print(f"{unit}\t{given.arm or '-'}\t{given.why}")
    return 0


def _analyse(*, config: str, **places: Any) -> int:
    from tritower.experiment import step
    from tritower.experiment.config import AnalysisConfig

    found = step.analyse(**places, config=from_dict(AnalysisConfig, config))
    print(found.pop("sentence"))
    print(", ".join(f"{name} {value:g}" if not isinstance(value, str) else f"{name} {value}" for name, value in found.items()))
    return 0


def _interleaving(*, figures: str, config: str, **places: str) -> int:
    from tritower import storage
    from tritower.experiment import step
    from tritower.experiment.config import LogConfig

    sentence, found = step.prefer(**places, config=from_dict(LogConfig, config))
    print(sentence)
    for warning in found.warnings:
        print(f"{warning[0].upper()}{warning[1:]}.")
    votes = found.preference
    print(
        f"{found.lists:,} lists, {found.users:,} users, {votes.users:,} with a vote, p {votes.p:.2g}, "
        f"sign test {votes.sign_p:.2g}; a picked first in {found.first_a:.1%}; one ranker failed in {found.failed:,} lists; "
        f"{found.machines:,} machines left out"
    )
    if figures:
        storage.write_json(figures, dataclasses.asdict(found) | {"sentence": sentence})
    return 0


def _off_policy(*, figures: str, config: str, **places: str) -> int:
    from tritower import storage
    from tritower.experiment import step
    from tritower.experiment.config import LogConfig

    found = step.estimate(**places, config=from_dict(LogConfig, config))
    print(f"clicks a list in the shuffled positions; as they were shown: {found[0].logged:.4f}")
    for value in found:
        print(f"  {value.estimator:<5} {value.clicks:.4f} ({value.low:.4f} to {value.high:.4f})")
    print(f"{found[0].effective:,.0f} effective rows; judged is its order of the jobs that were shown.")
    if figures:
        storage.write_json(figures, {value.estimator: dataclasses.asdict(value) for value in found})
    return 0


def _simulate(*, out: Path, users: int, days: int, seed: int, faults: str, config: str) -> int:
    from tritower.experiment import simulated_log
    from tritower.experiment.config import Faults, Habits

    knobs, wrong = from_dict(Habits, config), from_dict(Faults, faults)
    simulated_log.write(out, users=users, days=days, seed=seed, habits=knobs, faults=wrong)
    print(f"wrote shown.parquet, past.parquet and events.parquet to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
