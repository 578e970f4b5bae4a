"""Compile pipelines, run them here or on a cluster, show the demo.

    python -m pipelines compile [--check]
    python -m pipelines run --local --jobs ... --impressions ... --users ... [--preset NAME] [--set step.knob=value]
    python -m pipelines demo
    python -m pipelines submit --endpoint URL --jobs ... --impressions ... --users ...
    python -m pipelines schedule --cron "0 30 3 * * *" --endpoint URL --jobs ... --impressions ... --users ...
    python -m pipelines diagnose RUN --endpoint URL
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
from typing import TYPE_CHECKING, Any

from tritower.errors import ConfigError

from pipelines import steps, top, upkeep

if TYPE_CHECKING:
    from pipelines import remote

_LOCATIONS = (
    ("--jobs --data-jobs", "adverts: file or folder, CSV, JSON Lines or Parquet", True),
    ("--impressions --data-impressions", "jobs shown for searches, and clicks", True),
    ("--users --data-users", "what is known of users", False),
    ("--truth --data-truth", "true probabilities of a simulated log (training)", False),
    ("--model --champion-model", "the ranker in use: batch ranks with it, the gate of training compares with it", False),
    ("--encoder --champion-encoder", "the text encoder that it was trained with", False),
    ("--previous-state --data-state", "the state that an earlier run handed back, to continue from", False),
)
_BACKEND_INPUTS = "hand each step what a Kubeflow backend would, and refuse what it refuses"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # retries; what comes of them is reported
    return top.run(lambda: int(options.do(options)))


def _compile(options: argparse.Namespace) -> int:
    from pipelines import compiling

    if options.check:
        compiling.check_all()
        print("The compiled pipelines are what the source gives")
    elif options.having or options.lacking:
        for path in compiling.compile_variant("training", _parts("training", options), options.out):
            print(path)
    else:
        for path in compiling.compile_all():
            print(path)
    return 0


def _run(options: argparse.Namespace) -> int:
    from tritower import storage

    from pipelines import running, show

    results = running.run(
        options.pipeline,
        _locations(options),
        parts=_parts(options.pipeline, options),
        preset=options.preset,
        settings=options.set,
        engine=options.engine,
        root=options.root,
        out=options.out,
        use_cache=not options.no_cache,
        docker=options.docker,
        gpus=options.gpus,
        network=options.network,
        as_backend=options.backend_inputs,
    )
    for result in results:
        if result.name == "metrics.json":
            print(show.results(storage.read_json(result)), end="\n\n")
    print(*(result.absolute() for result in results), sep="\n")
    return 0


def _demo(options: argparse.Namespace) -> int:
    from pipelines import demo

    demo.run(
        options.out,
        impressions=options.impressions,
        seed=options.seed,
        parts=_parts("training", options),
        preset=options.preset,
        use_cache=not options.no_cache,
        as_backend=options.backend_inputs,
    )
    return 0


def _submit(options: argparse.Namespace) -> int:
    from pipelines import submission

    locations = _checked_locations(options)
    version, remark = submission.version(locations, options.data_version)
    backend = _backend(options)
    run_id = backend.submit(
        _compiled(options),
        _arguments(options, locations, version),
        experiment=options.experiment,
        name=options.name or options.pipeline,
        service_account=options.service_account,
        use_cache=not options.no_cache,
    )
    if remark:
        print(remark, file=sys.stderr)
    try:
        print(run_id, flush=True)
        if options.wait:
            print(backend.wait(run_id))
    except KeyboardInterrupt:
        print(f"\nNo longer followed; the run goes on. python -m pipelines diagnose {run_id}", file=sys.stderr)
        return 130
    return 0


def _schedule(options: argparse.Namespace) -> int:
    from pipelines import remote

    remote.check_cron(options.cron)
    locations = _checked_locations(options)
    done = _backend(options).schedule(
        _compiled(options),
        _arguments(options, locations, version=""),
        experiment=options.experiment,
        name=options.name or options.pipeline,
        cron=options.cron,
        service_account=options.service_account,
    )
    print(done.made + (f" (replaces {', '.join(done.deleted)})" if done.deleted else ""))
    for one in done.waiting:
        print(f"{one} is disabled. A run of it is under way and would go with it: schedule again, or delete it, after that run")
    return 0


def _diagnose(options: argparse.Namespace) -> int:
    print(*_backend(options).diagnose(options.run), sep="\n")
    return 0


def _compiled(options: argparse.Namespace) -> Path:
    from pipelines import compiling, running

    parts = _parts(options.pipeline, options)
    return compiling.prepared(options.pipeline, running.KEPT / "pipeline", parts=parts, engine=options.engine)


def _parts(pipeline: str, options: argparse.Namespace) -> frozenset[str]:
    """The parts of the pipeline that are asked for; giving a location that a part needs asks for it."""
    own = steps.parts_of(pipeline)
    given = {name for name in own if any(getattr(options, place, "") for place in steps.PARTS[name].locations)}
    return steps.parts(pipeline, {*options.having, *given}, options.lacking)


def _arguments(options: argparse.Namespace, locations: dict[str, str], version: str) -> dict[str, Any]:
    from pipelines import running

    how: dict[str, Any] = {"parts": _parts(options.pipeline, options), "engine": options.engine, "version": version}
    return running.arguments(options.pipeline, locations, options.preset, options.set, **how)


def _checked_locations(options: argparse.Namespace) -> dict[str, str]:
    """The locations of a run on a backend; a word on standard error about each that its pods may not be able to open."""
    from pipelines import submission

    locations = _locations(options)
    for doubt in submission.check_locations(_compiled(options), locations):
        print(f"warning: {doubt}", file=sys.stderr)
    return locations


def _locations(options: argparse.Namespace) -> dict[str, str]:
    """The locations that the pipeline takes, each given where it needs one."""
    from pipelines import running

    parts = _parts(options.pipeline, options)
    left_out = {place for name in steps.parts_of(options.pipeline) - parts for place in steps.PARTS[name].locations}
    wanted = [name for name in running.PLANS[options.pipeline].locations if name not in left_out]
    locations = {parameter: getattr(options, parameter) for parameter in wanted}
    for parameter in ("champion_model", "champion_encoder"):
        if locations.get(parameter) == "":
            problem = f"the pipeline {options.pipeline} needs a {parameter.replace('_', ' ')}"
            where = f"--{parameter.replace('_', '-')}"
            raise ConfigError(problem, where=where, remedy="Give the one that a training run made.")
    return locations


def _backend(options: argparse.Namespace) -> "remote.Backend":
    from pipelines import remote

    return remote.Backend(options.endpoint, namespace=options.namespace)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description="Compile pipelines, run them, show the demo.")
    commands = parser.add_subparsers(required=True, metavar="command")

    _add_compile(commands.add_parser("compile", help="write pipelines/compiled/, or a variant of training elsewhere"))

    command = commands.add_parser("run", help="run a compiled pipeline on your files")
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--local", action="store_true", help="on this machine, one subprocess per step")
    where.add_argument("--docker", action="store_true", help="on this machine, a container per step, without a network")
    command.add_argument("--gpus", action="store_true", help="with --docker: hand the containers every GPU")
    _add(command, "--network", "with --docker and a root in a store: the Docker network (bridge)", "bridge", "NAME")
    _add_data(command)
    command.add_argument("--no-cache", action="store_true", help="run every step, and store none for later runs")
    command.add_argument("--backend-inputs", action="store_true", help=_BACKEND_INPUTS)
    _add(command, "--root", "artifacts, logs, cache; artifacts also s3://, minio:// (build/run)", "build/run", "WHERE")
    _add(command, "--out", "results (build/results)", Path("build/results"), "DIR")
    command.set_defaults(do=_run)

    command = commands.add_parser("demo", help="simulate a log, run the pipeline on it, show ranked jobs")
    _add(command, "--impressions", "rows of the log (200000)", 200_000, "N")
    _add(command, "--seed", "of the log (0)", 0, "N")
    _add(command, "--preset", "knobs: demo, quick, or a TOML file (demo)", "demo", "NAME")
    _add(command, "--out", "folder for everything (build/demo)", Path("build/demo"), "DIR")
    _add_parts(command, needy=False)
    command.add_argument("--no-cache", action="store_true", help="make the log and run every step anew, store none for later")
    command.add_argument("--backend-inputs", action="store_true", help=_BACKEND_INPUTS)
    command.set_defaults(do=_demo)

    command = commands.add_parser("submit", help="run a pipeline on a Kubeflow Pipelines backend")
    _add_data(command)
    _add_backend(command)
    command.add_argument("--no-cache", action="store_true", help="run every step, whatever was run before")
    command.add_argument("--wait", action="store_true", help="until the run has ended; says why it failed")
    _add(command, "--data-version", "changes when the data do; else they are read from here", "", "TEXT")
    command.set_defaults(do=_submit)

    command = commands.add_parser("schedule", help="run a pipeline there by the clock")
    command.add_argument("--cron", required=True, help="six fields, seconds first: '0 30 3 * * *'")
    _add_data(command)
    _add_backend(command)
    command.set_defaults(do=_schedule)

    command = commands.add_parser("diagnose", help="say where a run on a backend is, or which step failed and why")
    command.add_argument("run", metavar="RUN", help="its id, as submit printed it")
    _add(command, "--endpoint", "address of the API, or KF_PIPELINES_ENDPOINT", "", "URL")
    _add(command, "--namespace", "of the run's pods (kubeflow)", "", "NAME")
    command.set_defaults(do=_diagnose)

    upkeep.add(commands)
    return parser


def _add_compile(command: argparse.ArgumentParser) -> None:
    command.add_argument("--check", action="store_true", help="only compare with what is there; exit status 1 if it differs")
    _add_parts(command)
    _add(command, "--out", "folder of a variant (build/pipelines)", Path("build/pipelines"), "DIR")
    command.set_defaults(do=_compile)


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("--pipeline", choices=("training", "batch"), default="training", help="which (training)")
    for option, text, is_needed in _LOCATIONS:
        # Each has the name of its parameter as well.
        former, parameter = option.split()
        command.add_argument(
            former, parameter, required=is_needed, default="", metavar="WHERE", dest=parameter[2:].replace("-", "_"), help=text
        )
    command.add_argument("--engine", choices=("duckdb", "spark"), default="duckdb", help="of ingest and features (duckdb)")
    _add_parts(command)
    _add(command, "--preset", "knobs: demo, quick, or a TOML file", "", "NAME")
    command.add_argument("--set", action="append", default=[], metavar="STEP.KNOB=VALUE", help="one knob; may be repeated")


def _add_parts(command: argparse.ArgumentParser, *, needy: bool = True) -> None:
    """Add the options that choose parts of training; `needy`: also those that need locations."""
    for option, name, is_default in (("--with", "having", False), ("--without", "lacking", True)):
        parts = [part for part in steps.PARTS.values() if part.is_default == is_default and (needy or not part.locations)]
        text = "; ".join(f"{part.name}: {part.about}" for part in parts)
        choices = [part.name for part in parts]
        command.add_argument(
            option, dest=name, action="append", default=[], choices=choices, help=f"a part of training: {text}"
        )


def _add_backend(command: argparse.ArgumentParser) -> None:
    _add(command, "--endpoint", "address of the API, or KF_PIPELINES_ENDPOINT", "", "URL")
    _add(command, "--namespace", "the user's, where the backend serves several", "", "NAME")
    _add(command, "--experiment", "its name (tritower)", "tritower", "NAME")
    _add(command, "--name", "of the run or schedule (the pipeline's)", "", "NAME")
    _add(command, "--service-account", "of the run's pods", "", "NAME")


def _add(command: argparse.ArgumentParser, option: str, text: str, default: str | int | Path, shown: str) -> None:
    command.add_argument(
        option, type=type(default) if not isinstance(default, Path) else Path, default=default, metavar=shown, help=text
    )


if __name__ == "__main__":
    sys.exit(main())
