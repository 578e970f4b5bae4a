"""The options of commands that run a pipeline, and what follows from them: its parts, its locations, its arguments."""

import argparse
from pathlib import Path
from typing import Any, get_args

from tritower.errors import ConfigError
from tritower.jobs import LauncherName

from pipelines import steps

_LOCATIONS = (
    ("--jobs --data-jobs", "adverts: file or folder, CSV, JSON Lines or Parquet"),
    ("--impressions --data-impressions", "jobs shown for searches, and clicks"),
    ("--users --data-users", "what is known of users"),
    ("--truth --data-truth", "true probabilities of a simulated log (training)"),
    ("--champion --model-champion", "root of the pointer to the model in use and its state; runs that succeed move it"),
    ("--model --champion-model --model-ranker", "the ranker in use: for batch, and for training's gate to compare with"),
    ("--encoder --champion-encoder --model-encoder", "the text encoder that it was trained with"),
    ("--previous-state --data-state", "the state that an earlier run handed back, to continue from"),
    ("--exposures --data-exposures", "who was shown what in which arm, and clicked (experiment)"),
    ("--guardrails --data-guardrails", "events that must not get worse, such as unsubscribes (experiment)"),
    ("--past --data-past", "impressions from before the test, for CUPED and the plan (experiment)"),
    ("--record --experiment-record", "root of a test's record: what was planned, which looks were taken (experiment)"),
)
_NEEDED = ("data_jobs", "data_impressions", "data_exposures")
"""Locations without which a pipeline that takes them cannot run."""


def compiled(given: argparse.Namespace) -> Path:
    """The compiled pipeline with the parts and the engine that are asked for."""
    from pipelines import compiling, running

    having = parts(given.pipeline, given)
    return compiling.prepared(given.pipeline, running.KEPT / "pipeline", parts=having, engine=given.engine)


def variant(given: argparse.Namespace) -> str:
    """The name of the pipeline with these parts and this engine, such as `training-champion-spark`."""
    from pipelines import compiling

    name = compiling.variant(given.pipeline, parts(given.pipeline, given))
    return name if given.engine == "duckdb" else f"{name}-{given.engine}"


def parts(pipeline: str, given: argparse.Namespace) -> frozenset[str]:
    """The parts of the pipeline that are asked for; giving a location that a part needs asks for it."""
    own = steps.parts_of(pipeline)
    asked = {name for name in own if any(getattr(given, place, "") for place in steps.PARTS[name].locations)}
    return steps.parts(pipeline, {*given.having, *asked}, given.lacking)


def variants(given: argparse.Namespace) -> dict[str, frozenset[str]]:
    """Pipelines to compile with the parts that are asked for, or for another size: name -> parts."""
    from pipelines import compiling

    found = {}
    for name in compiling.WIRED:
        having, lacking = (sorted(steps.parts_of(name) & set(asked)) for asked in (given.having, given.lacking))
        if having or lacking or given.size != "small":
            found[name] = steps.parts(name, having, lacking)
    return found


def arguments(given: argparse.Namespace, locations: dict[str, str], version: str) -> dict[str, Any]:
    """The pipeline's parameters, `version` being its data version."""
    from pipelines import running

    how: dict[str, Any] = {"parts": parts(given.pipeline, given), "engine": given.engine, "launcher": given.launcher}
    return running.arguments(given.pipeline, locations, given.preset, given.set, **how, version=version)


def locations(given: argparse.Namespace) -> dict[str, str]:
    """The locations that the pipeline takes, each given where it needs one."""
    from pipelines import running

    having = parts(given.pipeline, given)
    left_out = {place for name in steps.parts_of(given.pipeline) - having for place in steps.PARTS[name].locations}
    left_out |= {place for name in having for place in steps.PARTS[name].replaces}
    wanted = [name for name in running.PLANS[given.pipeline].locations if name not in left_out]
    found = {parameter: getattr(given, parameter) for parameter in wanted}
    if missing := [option for option, name in _spelled() if name in _NEEDED and found.get(name) == ""]:
        given.command.error(f"the following arguments are required: {', '.join(missing)}")
    for parameter in ("model_ranker", "model_encoder"):
        if found.get(parameter) == "" and not given.model_champion:
            what = parameter.removeprefix("model_")
            problem, where = f"the pipeline {given.pipeline} needs a champion's {what}", f"--{parameter.replace('_', '-')}"
            remedy = "Give the one that a training run made, or --champion, the root of the pointer to it."
            raise ConfigError(problem, where=where, remedy=remedy)
    return found


def add_data(command: argparse.ArgumentParser) -> None:
    """Add what a pipeline is run on: locations, engine, parts, knobs."""
    command.set_defaults(command=command)
    command.add_argument("--pipeline", choices=("training", "batch", "experiment"), default="training", help="which (training)")
    for option, text in _LOCATIONS:
        # Each has the name of its parameter as well.
        spellings = option.split()
        command.add_argument(*spellings, default="", metavar="WHERE", dest=_parameter(spellings[-1]), help=text)
    command.add_argument("--engine", choices=("duckdb", "spark"), default="duckdb", help="of ingest and features (duckdb)")
    text = "where finetune, embed, tune and the ranker work: in their own pods, or in jobs on the backend's cluster (local)"
    command.add_argument("--launcher", choices=get_args(LauncherName), default="local", help=text)
    add_parts(command)
    add(command, "--preset", "knobs: demo, quick, gpu, or a TOML file", "", "NAME")
    command.add_argument("--set", action="append", default=[], metavar="STEP.KNOB=VALUE", help="one knob; may be repeated")


def add_parts(command: argparse.ArgumentParser, *, needy: bool = True) -> None:
    """Add the options that choose parts of a pipeline; `needy`: also those that need locations."""
    for option, name, is_default in (("--with", "having", False), ("--without", "lacking", True)):
        found = [part for part in steps.PARTS.values() if part.is_default == is_default and (needy or not part.locations)]
        text = "; ".join(f"{part.name}: {part.about}" for part in found)
        choices = [part.name for part in found]
        command.add_argument(
            option, dest=name, action="append", default=[], choices=choices, help=f"a part of the pipeline: {text}"
        )


def _spelled() -> list[tuple[str, str]]:
    """The spellings of each location's option, and its parameter."""
    return [("/".join(option.split()), _parameter(option.split()[-1])) for option, _ in _LOCATIONS]


def _parameter(spelling: str) -> str:
    return spelling[2:].replace("-", "_")


def add(command: argparse.ArgumentParser, option: str, text: str, default: str | int | Path, shown: str) -> None:
    """Add an option with the type of its default; `shown` stands for its value in the help."""
    command.add_argument(
        option, type=type(default) if not isinstance(default, Path) else Path, default=default, metavar=shown, help=text
    )
