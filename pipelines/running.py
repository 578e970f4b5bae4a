"""`run`: a compiled pipeline on files of the user's, its results copied to one folder."""

import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tritower import storage
from tritower.errors import ConfigError

from pipelines import compiling, containers, knobs, local, show
from pipelines.version import data_version


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a pipeline takes and gives.

    `locations` are its parameters that name files or folders, `results` the names that its outputs get, `knobs` those that its
    own defaults set.
    """

    locations: tuple[str, ...]
    results: Mapping[str, str]
    knobs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


PLANS = {
    "training": Plan(
        locations=("jobs", "impressions", "users", "truth", "previous_state"),
        results={
            "metrics": "metrics.json",
            "report": "report.html",
            "recommendations": "recommendations.parquet",
            "model": "model",
            "encoder": "encoder",
            "state": "state",
        },
    ),
    "batch": Plan(
        locations=("jobs", "impressions", "users", "model", "encoder", "previous_state"),
        results={"recommendations": "recommendations.parquet", "state": "state"},
        knobs={"candidates": {"split": "all", "latest_per_user": True, "answer_at": "end"}},
    ),
}


def run(
    name: str,
    locations: Mapping[str, str],
    *,
    preset: str = "",
    settings: Iterable[str] = (),
    engine: str = "duckdb",
    root: Path,
    out: Path,
    use_cache: bool = True,
    docker: bool = False,
    gpus: bool = False,
) -> list[Path]:
    """Execute a compiled pipeline here, show progress, and copy its results to `out`.

    Args:
        name: training or batch.
        locations: parameter -> file, folder or URI; empty where there is none.
        preset: name or TOML file of knobs.
        settings: `step.knob=value` texts.
        engine: duckdb or spark, of ingest and features.
        root: folder for artifacts, logs and cache.
        out: folder that gets the results.
        use_cache: reuse steps whose input did not change.
        docker: run each step in its image, without a network, in place of a subprocess.
        gpus: with `docker`, hand the containers every GPU.

    Returns:
        The results.

    Raises:
        TritowerError: a knob or an input is wrong, or a step failed.
    """
    locations = {parameter: _absolute(location) for parameter, location in locations.items()}
    values = arguments(name, locations, preset, settings, engine=engine)
    compiling.check_all()
    pipeline = compiling.yaml_path(name)
    print(f"Running {pipeline.name} with data version {values['data_version']}; logs and artifacts are in {root}")
    start = time.perf_counter()
    read_only = [Path(location) for location in locations.values() if location and "://" not in location]
    outcome = local.run(
        pipeline,
        values,
        root=root.absolute(),
        use_cache=use_cache,
        containers=containers.runner_arguments(read_only=read_only, gpus=gpus) if docker else None,
        report=show.Progress(len(_tasks(name)), sys.stdout),
    )
    cached = sum(step.status == "cached" for step in outcome.steps)
    print(f"{len(outcome.steps)} steps in {time.perf_counter() - start:.0f} s, {cached} of them taken from the cache\n")
    return [_copy(outcome.outputs[output], out / result) for output, result in PLANS[name].results.items()]


def arguments(
    name: str,
    locations: Mapping[str, str],
    preset: str,
    settings: Iterable[str],
    *,
    engine: str = "duckdb",
    versioned: bool = True,
) -> dict[str, Any]:
    """The parameters of a pipeline.

    Args:
        engine: duckdb or spark, of ingest and features.
        versioned: read the input and set its `data_version`; without it the parameters are the same whatever the input holds.

    Raises:
        TritowerError: a knob is wrong or of a step that the pipeline does not have, or an input is not there.
    """
    settings = list(settings)
    chosen = knobs.gather(preset, settings)
    known = set(_specification(name)["root"]["inputDefinitions"]["parameters"])
    for setting in settings:
        step = setting.split(".")[0].strip()
        if f"{step}_config" not in known:
            raise ConfigError(f"the pipeline {name} has no step {step!r}", where=f"--set {setting}", remedy="Leave it out.")
    own = PLANS[name].knobs
    values = knobs.arguments({step: {**own.get(step, {}), **chosen.get(step, {})} for step in own.keys() | chosen.keys()})
    version = data_version(*(locations.get(parameter, "") for parameter in PLANS[name].locations)) if versioned else ""
    return {
        **locations,
        "data_version": version,
        "engine": engine,
        **{key: value for key, value in values.items() if key in known},
    }


def _tasks(name: str) -> dict[str, Any]:
    tasks: dict[str, Any] = _specification(name)["root"]["dag"]["tasks"]
    return tasks


def _specification(name: str) -> dict[str, Any]:
    specification: dict[str, Any] = next(yaml.safe_load_all(compiling.yaml_path(name).read_text(encoding="utf-8")))
    return specification


def _copy(source: Path, final: Path) -> Path:
    if source.is_dir():
        with storage.atomic_directory(final) as temporary:
            shutil.copytree(source, temporary, dirs_exist_ok=True)
    else:
        with storage.atomic_file(final) as temporary:
            shutil.copyfile(source, temporary)
    return final


def _absolute(location: str) -> str:
    if not location or "://" in location:
        return location
    return str(Path(location).absolute())
