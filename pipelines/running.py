"""`run`: the compiled training pipeline on files of the user's, its results copied to one folder."""

import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tritower import storage

from pipelines import compiling, containers, knobs, local, show
from pipelines.version import data_version

RESULTS = {"metrics": "metrics.json", "report": "report.html", "recommendations": "recommendations.parquet"}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where the raw tables are; `truth` is empty for real logs."""

    jobs: str
    impressions: str
    users: str = ""
    truth: str = ""

    def absolute(self) -> "Inputs":
        """The same with local paths made absolute, as steps and cache keys need them."""
        return Inputs(**{name: _absolute(location) for name, location in vars(self).items()})

    def local_paths(self) -> list[Path]:
        """Those on this machine's file system."""
        return [Path(location) for location in vars(self).values() if location and "://" not in location]


def run(
    inputs: Inputs,
    *,
    preset: str = "",
    settings: Iterable[str] = (),
    root: Path,
    out: Path,
    use_cache: bool = True,
    docker: bool = False,
    gpus: bool = False,
) -> dict[str, Any]:
    """Execute the compiled training pipeline here, show progress, and copy its results to `out`.

    Args:
        preset: name or TOML file of knobs.
        settings: `step.knob=value` texts.
        root: folder for artifacts, logs and cache.
        out: folder that gets metrics.json, report.html and recommendations.parquet.
        use_cache: reuse steps whose input did not change.
        docker: run each step in its image, without a network, in place of a subprocess.
        gpus: with `docker`, hand the containers every GPU.

    Returns:
        The metrics.

    Raises:
        TritowerError: a knob or an input is wrong, or a step failed.
    """
    inputs = inputs.absolute()
    values = arguments(inputs, preset, settings)
    compiling.check_all()
    pipeline = compiling.yaml_path("training")
    print(f"Running {pipeline.name} with data version {values['data_version']}; logs and artifacts are in {root}")
    start = time.perf_counter()
    outcome = local.run(
        pipeline,
        values,
        root=root.absolute(),
        use_cache=use_cache,
        containers=containers.runner_arguments(read_only=inputs.local_paths(), gpus=gpus) if docker else None,
        report=show.Progress(_step_count(pipeline), sys.stdout),
    )
    cached = sum(step.status == "cached" for step in outcome.steps)
    print(f"{len(outcome.steps)} steps in {time.perf_counter() - start:.0f} s, {cached} of them taken from the cache\n")
    out.mkdir(parents=True, exist_ok=True)
    for output, name in RESULTS.items():
        with storage.atomic_file(out / name) as temporary:
            shutil.copyfile(outcome.outputs[output], temporary)
    metrics: dict[str, Any] = storage.read_json(out / "metrics.json")
    return metrics


def arguments(inputs: Inputs, preset: str, settings: Iterable[str], *, versioned: bool = True) -> dict[str, Any]:
    """The pipeline's parameters.

    Args:
        versioned: read the input and set its `data_version`; without it the parameters are the same whatever the input holds.

    Raises:
        TritowerError: a knob is wrong, or an input is not there.
    """
    chosen = knobs.gather(preset, settings)
    version = data_version(inputs.jobs, inputs.impressions, inputs.users, inputs.truth) if versioned else ""
    return {**vars(inputs), "data_version": version, **knobs.arguments(chosen)}


def _step_count(pipeline: Path) -> int:
    spec = next(yaml.safe_load_all(pipeline.read_text(encoding="utf-8")))
    return len(spec["root"]["dag"]["tasks"])


def _absolute(location: str) -> str:
    if not location or "://" in location:
        return location
    return str(Path(location).absolute())
