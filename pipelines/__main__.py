"""Compile pipelines, run them here, show the demo.

    python -m pipelines compile [--check]
    python -m pipelines run --local --jobs ... --impressions ... --users ... [--preset NAME] [--set step.knob=value]
    python -m pipelines demo

The exit status is 0 on success, 1 when a step or an input is at fault, 2 for a wrong command line.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tritower.errors import TritowerError


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        status: int = options.do(options)
    except TritowerError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return status


def _compile(options: argparse.Namespace) -> int:
    from pipelines import compiling

    if options.check:
        compiling.check_all()
        print("The compiled pipelines are what the source gives")
        return 0
    for path in compiling.compile_all():
        print(path)
    return 0


def _run(options: argparse.Namespace) -> int:
    from pipelines import running, show

    inputs = running.Inputs(jobs=options.jobs, impressions=options.impressions, users=options.users, truth=options.truth)
    metrics = running.run(
        inputs,
        preset=options.preset,
        settings=options.set,
        root=options.root,
        out=options.out,
        use_cache=not options.no_cache,
        docker=options.docker,
        gpus=options.gpus,
    )
    print(show.results(metrics))
    for name in running.RESULTS.values():
        print((options.out / name).absolute())
    return 0


def _demo(options: argparse.Namespace) -> int:
    from pipelines import demo

    demo.run(
        options.out,
        impressions=options.impressions,
        seed=options.seed,
        preset=options.preset,
        use_cache=not options.no_cache,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description="Compile pipelines, run them, show the demo.")
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("compile", help="write pipelines/compiled/")
    command.add_argument("--check", action="store_true", help="only compare with what is there; exit status 1 if it differs")
    command.set_defaults(do=_compile)

    command = commands.add_parser("run", help="run the compiled training pipeline on your files")
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--local", action="store_true", help="on this machine, one subprocess per step")
    where.add_argument("--docker", action="store_true", help="on this machine, one container per step, without a network")
    command.add_argument("--gpus", action="store_true", help="with --docker: hand the containers every GPU")
    command.add_argument(
        "--jobs", required=True, metavar="WHERE", help="job adverts: a file or folder, CSV, JSON Lines or Parquet"
    )
    command.add_argument("--impressions", required=True, metavar="WHERE", help="jobs shown for searches, and clicks")
    command.add_argument("--users", default="", metavar="WHERE", help="what is known of users")
    command.add_argument("--truth", default="", metavar="WHERE", help="true probabilities of a simulated log")
    command.add_argument("--preset", default="", metavar="NAME", help="knobs: demo, quick, or a TOML file")
    command.add_argument("--set", action="append", default=[], metavar="STEP.KNOB=VALUE", help="one knob; may be repeated")
    command.add_argument(
        "--root", type=Path, default=Path("build/run"), metavar="DIR", help="artifacts, logs, cache (build/run)"
    )
    command.add_argument("--out", type=Path, default=Path("build/results"), metavar="DIR", help="results (build/results)")
    command.add_argument("--no-cache", action="store_true", help="run every step, whatever was run before")
    command.set_defaults(do=_run)

    command = commands.add_parser("demo", help="simulate a log, run the pipeline on it, show ranked jobs")
    command.add_argument("--impressions", type=int, default=200_000, help="rows of the log (200000)")
    command.add_argument("--seed", type=int, default=0, help="of the log (0)")
    command.add_argument("--preset", default="demo", metavar="NAME", help="knobs: demo, quick, or a TOML file (demo)")
    command.add_argument(
        "--out", type=Path, default=Path("build/demo"), metavar="DIR", help="folder for everything (build/demo)"
    )
    command.add_argument("--no-cache", action="store_true", help="make the log and run every step anew")
    command.set_defaults(do=_demo)
    return parser


if __name__ == "__main__":
    sys.exit(main())
