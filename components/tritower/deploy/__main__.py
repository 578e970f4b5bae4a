"""By hand: `python -m tritower.deploy apply --bundle WHERE --gate pass`, then `promote`, `rollback` or `status`."""

import argparse
import getpass
import logging
import sys
from dataclasses import replace
from pathlib import Path

from tritower import logs
from tritower.config import from_dict
from tritower.deploy import step
from tritower.deploy.config import DeployConfig
from tritower.errors import TritowerError

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Do it; the exit code, 1 for an expected error, logged in a few lines."""
    given = _parser().parse_args(arguments)
    logs.setup()
    try:
        config = from_dict(DeployConfig, given.config, where="--config")
        for line in _done(given, replace(config, launcher=given.launcher)):
            print(line, flush=True)
    except TritowerError as error:
        for line in logs.lines(error):
            print(line, file=sys.stderr, flush=True)
        return 1
    return 0


def _done(given: argparse.Namespace, config: DeployConfig) -> list[str]:
    if given.do == "apply" and given.manifests_only:
        return [str(path) for path in step.write(given.bundle, config, given.manifests_only)]
    if given.do == "apply":
        step.check_gate(given.gate, force=given.force, by=given.by, why=given.why)
        told = {"force": given.force, "by": given.by or getpass.getuser(), "why": given.why}
        return [step.run(bundle=given.bundle, gate=given.gate, config=config, **told)]
    from tritower.deploy.rollout import Rollout

    rollout = Rollout(config, needs_image=False)
    if given.do == "status":
        return rollout.status()
    change = rollout.promote if given.do == "promote" else rollout.rollback
    return [change(by=given.by or getpass.getuser(), why=given.why)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tritower.deploy", description="A bundle comes to serve on a cluster.")
    commands = parser.add_subparsers(dest="do", required=True)
    apply = commands.add_parser("apply", help="bring a bundle to serve, or to its share")
    apply.add_argument("--bundle", required=True, help="its location")
    apply.add_argument("--gate", default="", help="the evaluation's verdict, pass or hold")
    apply.add_argument("--force", action="store_true", help="whatever the gate says; with --by and --why")
    apply.add_argument("--manifests-only", type=Path, metavar="DIR", help="write YAML there, and ask no cluster")
    others = [
        commands.add_parser("promote", help="give the canary all requests"),
        commands.add_parser("rollback", help="take the canary's requests away, or let the version before serve again"),
        commands.add_parser("status", help="who serves, and what was done last"),
    ]
    for one in (apply, *others):
        one.add_argument("--config", default="{}", help="knobs of DeployConfig as JSON")
        choices = ("auto", "kserve", "deployment", "serverless")
        one.add_argument("--launcher", default="auto", choices=choices, help="auto: kserve where it is; serverless: YAML only")
        one.add_argument("--by", default="", help="who does it, for the record")
        one.add_argument("--why", default="", help="and why")
    return parser


if __name__ == "__main__":
    sys.exit(main())
