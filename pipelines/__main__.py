"""Compile pipelines, run them here or on a cluster, show the demo.

    python -m pipelines compile [--check]
    python -m pipelines run --local --jobs ... --impressions ... --users ... [--preset NAME] [--set step.knob=value]
    python -m pipelines run --local --pipeline experiment --exposures ... [--past ... --record ...]; or --with simulate
    python -m pipelines demo
    python -m pipelines publish --endpoint URL
    python -m pipelines submit --endpoint URL --jobs ... --impressions ... --users ...
    python -m pipelines schedule --cron "0 30 3 * * *" --endpoint URL --jobs ... --impressions ... --users ...
    python -m pipelines status | diagnose RUN | terminate RUN --endpoint URL
    python -m pipelines champion ROOT
    python -m pipelines clean --root WHERE

The exit status is 0 on success, 1 when a step or an input is at fault, 2 for a wrong command line, 130 after Ctrl-C, 143 after
SIGTERM.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines import on_backend, options, steps, top, upkeep

_BACKEND_INPUTS = "hand each step what a Kubeflow backend would, and refuse what it refuses"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # retries; what comes of them is reported
    return top.run(lambda: int(given.do(given)))


def _compile(given: argparse.Namespace) -> int:
    from pipelines import catalogue, compiling

    if given.check:
        compiling.check_all()
        catalogue.check()
        print("The compiled pipelines are what the source gives")
    elif given.all:
        for path in (*compiling.compile_all(given.out), *catalogue.compile_all(given.out / "components")):
            print(path)
    elif given.having or given.lacking or given.size != "small":
        for name, parts in options.variants(given).items():
            print(*compiling.compile_variant(name, parts, given.out, given.size), sep="\n")
    else:
        for path in (*compiling.compile_all(), *catalogue.write()):
            print(path)
    return 0


def _run(given: argparse.Namespace) -> int:
    from tritower import storage

    from pipelines import running, show

    results = running.run(
        given.pipeline,
        options.locations(given),
        parts=options.parts(given.pipeline, given),
        preset=given.preset,
        settings=given.set,
        engine=given.engine,
        launcher=given.launcher,
        root=given.root,
        out=given.out,
        use_cache=not given.no_cache,
        docker=given.docker,
        gpus=given.gpus,
        network=given.network,
        as_backend=given.backend_inputs,
    )
    for result in results:
        if result.name in show.SHOWN:
            print(show.SHOWN[result.name](storage.read_json(result)), end="\n\n")
    print(*(result.absolute() for result in results), sep="\n")
    return 0


def _demo(given: argparse.Namespace) -> int:
    from pipelines import demo

    demo.run(
        given.out,
        impressions=given.impressions,
        seed=given.seed,
        parts=options.parts("training", given),
        preset=given.preset,
        use_cache=not given.no_cache,
        as_backend=given.backend_inputs,
    )
    return 0


def _serve(given: argparse.Namespace) -> int:
    from pipelines import serving

    serving.run(given.out, port=given.port)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description="Compile pipelines, run them, show the demo.")
    commands = parser.add_subparsers(required=True, metavar="command")

    _add_compile(commands.add_parser("compile", help="write pipelines/compiled/, or a variant of a pipeline elsewhere"))

    command = commands.add_parser("run", help="run a compiled pipeline on your files")
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--local", action="store_true", help="on this machine, one subprocess per step")
    where.add_argument("--docker", action="store_true", help="on this machine, a container per step, without a network")
    command.add_argument("--gpus", action="store_true", help="with --docker: hand the containers every GPU")
    options.add(command, "--network", "with --docker and a root in a store: the Docker network (bridge)", "bridge", "NAME")
    options.add_data(command)
    command.add_argument("--no-cache", action="store_true", help="run every step, and store none for later runs")
    command.add_argument("--backend-inputs", action="store_true", help=_BACKEND_INPUTS)
    options.add(command, "--root", "artifacts, logs, cache; artifacts also s3://, minio:// (build/run)", "build/run", "WHERE")
    options.add(command, "--out", "results (build/results)", Path("build/results"), "DIR")
    command.set_defaults(do=_run)

    command = commands.add_parser("demo", help="simulate a log, run the pipeline on it, show ranked jobs")
    options.add(command, "--impressions", "rows of the log (200000)", 200_000, "N")
    options.add(command, "--seed", "of the log (0)", 0, "N")
    options.add(command, "--preset", "knobs: demo, quick, or a TOML file (demo)", "demo", "NAME")
    options.add(command, "--out", "folder for everything (build/demo)", Path("build/demo"), "DIR")
    options.add_parts(command, needy=False)
    command.add_argument("--no-cache", action="store_true", help="make the log and run every step anew, store none for later")
    command.add_argument("--backend-inputs", action="store_true", help=_BACKEND_INPUTS)
    command.set_defaults(do=_demo)

    command = commands.add_parser("serve", help="serve the last run of a demo on this machine: a page, and an API")
    options.add(command, "--port", "on loopback; 0 = one that is free (8080)", 8080, "N")
    options.add(command, "--out", "the demo's folder (build/demo)", Path("build/demo"), "DIR")
    command.set_defaults(do=_serve)

    on_backend.add(commands)
    upkeep.add(commands)
    return parser


def _add_compile(command: argparse.ArgumentParser) -> None:
    command.add_argument("--check", action="store_true", help="only compare with what is there; exit status 1 if it differs")
    command.add_argument("--all", action="store_true", help="write every pipeline and component below --out")
    options.add_parts(command)
    command.add_argument("--size", choices=tuple(steps.SIZES), default="small", help="of pods, for another one than small")
    options.add(command, "--out", "folder of a variant (build/pipelines)", Path("build/pipelines"), "DIR")
    command.set_defaults(do=_compile)


if __name__ == "__main__":
    sys.exit(main())
