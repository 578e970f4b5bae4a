"""`run`: a compiled pipeline on files of the user's, its results copied to one folder."""

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tritower import storage
from tritower.errors import ConfigError

from pipelines import compiling, containers, knobs, local, results, show, staged
from pipelines.version import data_version

KEPT = Path("build/run")
"""Where runs keep what they need again, unless told otherwise."""


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
    root: str | Path,
    out: Path,
    use_cache: bool = True,
    docker: bool = False,
    gpus: bool = False,
    network: str = "bridge",
    as_backend: bool = False,
) -> list[Path]:
    """Execute a compiled pipeline here, show progress, and copy its results to `out`.

    Args:
        name: training or batch.
        locations: parameter -> file, folder or URI; empty where there is none.
        preset: name or TOML file of knobs.
        settings: `step.knob=value` texts.
        engine: duckdb or spark, of ingest and features.
        root: folder for artifacts, logs and cache; or a location in an object store for the artifacts, the rest going to
            a folder in build/run.
        out: folder that gets the results; looked at first (see `results.py`).
        use_cache: reuse steps whose input did not change.
        docker: run each step in its image, without a network, in place of a subprocess.
        gpus: with `docker`, hand the containers every GPU.
        network: with `docker` and a root in a store, the Docker network by which containers reach it.
        as_backend: hand each step what a Kubeflow backend would.

    Returns:
        The results.

    Raises:
        TritowerError: a knob or an input is wrong, or a step failed.
    """
    names = PLANS[name].results
    results.check(out, names.values())
    locations = {parameter: _absolute(location) for parameter, location in locations.items()}
    values = arguments(name, locations, preset, settings, engine=engine)
    compiling.check_all()
    store = "" if storage.is_local(root) else str(root).rstrip("/")
    here = staged.folder(store, KEPT) if store else storage.local_path(root)
    pipeline = compiling.yaml_path(name)
    if docker:
        pipeline = compiling.for_engine(pipeline, engine, here / "pipeline")
    print(f"Running {pipeline.name} with data version {values['data_version']}; artifacts are in {root}")
    if store:
        print(f"Logs and the cache's index are in {here}")
    users = [containers.user_names(here)] if docker and engine == "spark" else []
    start = time.perf_counter()
    outcome = local.run(
        pipeline,
        values,
        root=here.absolute(),
        store=store,
        use_cache=use_cache,
        containers=_container_arguments(locations, store, network, gpus=gpus, mounts=users) if docker else None,
        as_backend=as_backend,
        report=show.Progress(len(_tasks(name)), sys.stdout),
    )
    cached = sum(step.status == "cached" for step in outcome.steps)
    print(f"{len(outcome.steps)} steps in {time.perf_counter() - start:.0f} s, {cached} of them taken from the cache\n")
    return results.deliver(out, {result: outcome.outputs[output] for output, result in names.items()})


def arguments(
    name: str,
    locations: Mapping[str, str],
    preset: str,
    settings: Iterable[str],
    *,
    engine: str = "duckdb",
    version: str | None = None,
) -> dict[str, Any]:
    """The parameters of a pipeline.

    Args:
        engine: duckdb or spark, of ingest and features.
        version: the `data_version` to set; None to read the input for it.

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
    if version is None:
        version = data_version(*(locations.get(parameter, "") for parameter in PLANS[name].locations))
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


def _container_arguments(
    locations: Mapping[str, str], store: str, network: str, *, gpus: bool, mounts: Iterable[Any]
) -> dict[str, Any]:
    """How containers run: what they read is mounted, and they have no network unless the root is in a store."""
    read_only = [Path(location) for location in locations.values() if location and "://" not in location]
    found = containers.runner_arguments(read_only=read_only, gpus=gpus)
    more = staged.container_arguments(store, network) if store else {"mounts": []}
    return found | more | {"mounts": [*found["mounts"], *more["mounts"], *mounts]}


def _absolute(location: str) -> str:
    if not location or "://" in location:
        return location
    return str(Path(location).absolute())
