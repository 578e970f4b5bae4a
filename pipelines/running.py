"""`run`: a compiled pipeline on files of the user's, its results copied to one folder."""

import inspect
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritower import storage
from tritower.errors import ConfigError

from pipelines import cleaning, compiling, containers, knobs, local, results, show, staged, steps
from pipelines.version import data_version

KEPT = Path("build/run")
"""Where runs keep what they need again, unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a pipeline takes and gives.

    `locations` are its parameters that name files or folders, `results` the names that its artifacts get.
    """

    locations: tuple[str, ...]
    results: Mapping[str, str]


LOCAL = "local"
"""The launcher that starts no jobs: every step works in its own process."""
POINTER = "model_champion"
"""Parameter of training and batch: the root of the pointer, which each run reads anew and moves."""
KEPT_BY_RUNS = frozenset({POINTER, "experiment_record"})
"""Parameters whose location each run reads anew and writes to."""
_DATA, _CHAMPION = ("data_jobs", "data_impressions", "data_users"), (POINTER, "model_ranker", "model_encoder")
PLANS = {
    "training": Plan(
        locations=(*_DATA, "data_truth", "data_state", *_CHAMPION),
        results={
            "metrics": "metrics.json",
            "report": "report.html",
            "recommendations": "recommendations.parquet",
            "ranker_model": "model",
            "encoder": "encoder",
            "state": "state",
        },
    ),
    "batch": Plan(
        locations=(*_DATA, "data_state", *_CHAMPION),
        results={"recommendations": "recommendations.parquet", "state": "state"},
    ),
    "experiment": Plan(
        locations=("data_exposures", "data_guardrails", "data_past", "experiment_record"),
        results={"metrics": "analysis.json", "report": "report.html"},
    ),
}


def run(
    name: str,
    locations: Mapping[str, str],
    *,
    parts: frozenset[str] | None = None,
    preset: str = "",
    settings: Iterable[str] = (),
    engine: str = "duckdb",
    launcher: str = LOCAL,
    root: str | Path,
    out: Path,
    use_cache: bool = True,
    docker: bool = False,
    gpus: bool = False,
    network: str = "bridge",
    as_backend: bool = False,
) -> list[Path]:
    """Execute a compiled pipeline here, show progress, and copy its results to `out`; where they are there.

    Args:
        name: training, batch or experiment.
        locations: parameter -> file, folder or URI; empty where there is none.
        parts: the parts of the pipeline (`steps.parts`); None for its own.
        preset: name or TOML file of knobs.
        settings: `step.knob=value` texts.
        engine: duckdb or spark, of ingest and features.
        launcher: local; another one needs a cluster, and is refused.
        root: folder for artifacts, logs and cache; or a location in an object store for the artifacts, the rest going to
            a folder in build/run.
        out: folder that gets the results; looked at first (see `results.py`).
        use_cache: reuse steps whose input did not change.
        docker: run each step in its image, without a network, in place of a subprocess.
        gpus: with `docker`, hand the containers every GPU.
        network: with `docker` and a root in a store, the Docker network by which containers reach it.
        as_backend: hand each step what a Kubeflow backend would.

    Raises:
        TritowerError: a knob or an input is wrong, or a step failed.
    """
    if launcher != LOCAL:
        problem, remedy = f"a run on this machine starts no {launcher}", "Leave it out, or `submit` the run to a backend."
        raise ConfigError(problem, where=f"--launcher {launcher}", remedy=remedy)
    names = PLANS[name].results
    results.check(out, names.values())
    locations = {parameter: _absolute(location) for parameter, location in locations.items()}
    values = arguments(name, locations, preset, settings, parts=parts, engine=engine)
    compiling.check_all()
    store, here = _places(root)
    pipeline = compiling.prepared(name, here / "pipeline", parts=parts, engine=engine if docker else "duckdb")
    print(f"Running {pipeline.name} with data version {values['data_version']}; artifacts are in {root}")
    if store:
        print(f"Logs and the cache's index are in {here}")
    outputs = _execute(
        pipeline,
        values,
        root=here.absolute(),
        store=store,
        use_cache=use_cache,
        containers=_container_arguments(locations, store, network, here, gpus=gpus, engine=engine) if docker else None,
        as_backend=as_backend,
    )
    locations_of_results = {result: outputs[output] for output, result in names.items()}
    cleaning.noted(here, name, locations_of_results.values())
    return results.deliver(out, locations_of_results)


def _places(root: str | Path) -> tuple[str, Path]:
    """The location in a store that gets the artifacts, empty where none does; and the folder that gets the rest."""
    if storage.is_local(root):
        return "", storage.local_path(root)
    store = str(root).rstrip("/")
    return store, staged.folder(store, KEPT)


def _execute(pipeline: Path, values: Mapping[str, Any], **how: Any) -> dict[str, Any]:
    """Run it as `local.run` does; tell of each step and of the whole."""
    start = time.perf_counter()
    outcome = local.run(pipeline, values, **how, report=show.Progress(len(local.tasks(pipeline)), sys.stdout))
    cached = sum(step.status == "cached" for step in outcome.steps)
    print(f"{len(outcome.steps)} steps in {time.perf_counter() - start:.0f} s, {cached} of them taken from the cache\n")
    return outcome.outputs


def arguments(
    name: str,
    locations: Mapping[str, str],
    preset: str,
    settings: Iterable[str],
    *,
    parts: frozenset[str] | None = None,
    engine: str = "duckdb",
    launcher: str = LOCAL,
    version: str | None = None,
) -> dict[str, Any]:
    """The parameters of a pipeline.

    Args:
        parts: the parts that it has; None for its own.
        engine: duckdb or spark, of ingest and features.
        launcher: what starts the steps that can be jobs on a cluster.
        version: the `data_version` to set; None to read the input for it.

    Raises:
        TritowerError: a knob is wrong or of a step that the pipeline does not have, the launcher takes no settings, or an
            input is not there.
    """
    settings = list(settings)
    chosen = knobs.gather(preset, settings)
    tables = steps.configs(steps.of(name, steps.parts(name) if parts is None else parts))
    for setting in settings:
        step = setting.split(".")[0].strip()
        if step not in tables:
            raise ConfigError(f"the pipeline {name} has no step {step!r}", where=f"--set {setting}", remedy=_remedy(name, step))
    _check_launcher(launcher, tables, settings)
    own = {table: step.preset[name] for table, step in tables.items() if name in step.preset}
    changed = [table for table in tables if table in own or table in chosen]
    values = knobs.arguments({table: {**own.get(table, {}), **chosen.get(table, {})} for table in changed})
    if version is None:
        # The cache of a run here knows the content behind a champion's locations: no reason to read the log again for it. The
        # pointer is read anew by every run.
        optional = {*KEPT_BY_RUNS, *(place for part in steps.parts_of(name) for place in steps.PARTS[part].locations)}
        version = data_version(*(locations.get(place, "") for place in PLANS[name].locations if place not in optional))
    launched = {} if launcher == LOCAL else {"launcher": launcher}  # versions published earlier know no launcher
    taken = inspect.signature(compiling.WIRED[name]).parameters
    for option, value, usual in (("engine", engine, "duckdb"), ("launcher", launcher, LOCAL)):
        if value != usual and option not in taken:
            where = f"--{option} {value}"
            raise ConfigError(f"the pipeline {name} has no {option} to choose", where=where, remedy="Leave it out.")
    engines = {"engine": engine} if "engine" in taken else {}
    return {**locations, "data_version": version, **engines, **launched, **values}


def _check_launcher(launcher: str, tables: Mapping[str, steps.Step], settings: Iterable[str]) -> None:
    if launcher == "trainjob" and steps.SEARCH in tables:
        problem, remedy = "no search runs in TrainJobs", "Take --launcher pytorchjob, or leave the part tune out."
        raise ConfigError(problem, where=f"--launcher {launcher}", remedy=remedy)
    for setting in settings:
        if launcher == LOCAL and setting.split(".")[0].strip() == steps.CLUSTER.knobs:
            remedy = "Add --launcher pytorchjob, or leave the setting out."
            raise ConfigError("without a job on a cluster it means nothing", where=f"--set {setting}", remedy=remedy)


def _remedy(name: str, table: str) -> str:
    parts = {step.part for step in steps.STEPS.values() if step.knobs == table and name in step.pipelines}
    return f"Give it the part by --with {parts.pop()}, or leave the setting out." if parts else "Leave it out."


def _container_arguments(
    locations: Mapping[str, str], store: str, network: str, here: Path, *, gpus: bool, engine: str
) -> dict[str, Any]:
    """How containers run: what they read is mounted, and they have no network unless the root is in a store."""
    mounts = [containers.user_names(here)] if engine == "spark" else []
    read = {name: Path(location) for name, location in locations.items() if location and "://" not in location}
    written = {read.pop(name) for name in KEPT_BY_RUNS & read.keys()}
    mounts += containers.writable(written)
    read_only = read.values()
    found = containers.runner_arguments(read_only=read_only, gpus=gpus)
    more = staged.container_arguments(store, network) if store else {"mounts": []}
    return found | more | {"mounts": [*found["mounts"], *more["mounts"], *mounts]}


def _absolute(location: str) -> str:
    if not location or "://" in location:
        return location
    return str(Path(location).absolute())
