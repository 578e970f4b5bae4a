"""Compile every pipeline to YAML, and check that what is committed is what the source gives."""

import ast
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler, dsl
from tritower import storage
from tritower.errors import ArtifactError

from pipelines import batch, experiment, graph, nested, steps, training, wiring
from pipelines.flavours import FLAVOURS, Flavour, compiling_for

COMPILED = Path(__file__).parent / "compiled"
WIRED: dict[str, Callable[..., Any]] = {
    "training": training.training, "batch": batch.batch, "experiment": experiment.experiment,
}  # fmt: skip
"""Pipeline name -> the function that wires it."""
NESTED: dict[str, dict[str, Callable[..., Any]]] = {
    "training": {"baselines": nested.baselines, "recommendations": nested.ranked_jobs},
    "batch": {"recommendations": nested.recommendations},
    "experiment": {},
}
"""Pipeline name -> name of a pipeline in it -> the function that wires that."""
_NEUTRAL_IMAGE = "tritower"
_BASE = re.compile(r"\bbase(?=:[^:/]*$)")
_DEFAULT = re.compile(r"(?<=dict )\[Default: (\{.+\})\](?=\n)")


def yaml_path(name: str, flavour: Flavour = "kfp") -> Path:
    """Where the compiled pipeline `name` is kept."""
    return COMPILED / flavour / f"{name}.yaml"


def compile_all(folder: Path = COMPILED) -> list[Path]:
    """Write every pipeline with its own parts, in every flavour, under `folder`; the same source gives the same bytes."""
    return [
        compile_one(folder / flavour / f"{name}.yaml", name, steps.parts(name), flavour)
        for flavour in FLAVOURS
        for name in WIRED
    ]


def compile_one(path: Path, name: str, parts: frozenset[str], flavour: Flavour = "kfp", size: str = "small") -> Path:
    """Write a pipeline with these parts, for pods of this size, to a file.

    It keeps its name, so that a backend's cache serves all variants.
    """
    with tempfile.TemporaryDirectory() as scratch:
        compiled = Path(scratch) / path.name
        with compiling_for(flavour, size):
            wired = wiring.pipeline(name, WIRED[name], parts, nested.of_parts(NESTED[name], parts))
            compiler.Compiler().compile(dsl.pipeline(wired, name=name), str(compiled))
        text = _DEFAULT.sub(_in_order, compiled.read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_text(path, text)
    return path


def compile_variant(name: str, parts: frozenset[str], folder: Path, size: str = "small") -> list[Path]:
    """Write a pipeline with these parts in every flavour: `folder/<flavour>/<variant>.yaml`."""
    file = f"{variant(name, parts)}{'' if size == 'small' else f'-{size}'}.yaml"
    return [compile_one(folder / flavour / file, name, parts, flavour, size) for flavour in FLAVOURS]


def prepared(name: str, folder: Path, *, parts: frozenset[str] | None = None, engine: str = "duckdb") -> Path:
    """The compiled pipeline to run: what is kept, or a copy in `folder` where other parts or images are wanted.

    Args:
        name: training, batch or experiment.
        folder: gets the copy.
        parts: the parts that it has; None for the pipeline's own.
        engine: duckdb or spark: which images the steps have that take an engine.
    """
    own = steps.parts(name)
    if parts is None or parts == own:
        return for_engine(yaml_path(name), engine, folder)
    return for_engine(compile_one(folder / f"{variant(name, parts)}.yaml", name, parts), engine, folder / "spark")


def variant(name: str, parts: frozenset[str]) -> str:
    """A pipeline with these parts in a word, such as `training-champion-without-baselines`; its name where they are its own."""
    own = steps.parts(name)
    return "-".join([name, *sorted(parts - own), *(f"without-{part}" for part in sorted(own - parts))])


def _in_order(default: re.Match[str]) -> str:
    """A dict in the head comment with its keys sorted: kfp takes them as a protobuf map happens to give them."""
    return f"[Default: {dict(sorted(ast.literal_eval(default[1]).items()))}]"


def for_engine(path: Path, engine: str, folder: Path) -> Path:
    """A compiled pipeline with images that have the engine: for Spark a copy in `folder`.

    What is kept names images that have DuckDB alone, unless TRITOWER_ENGINE_IMAGE said otherwise when compiling. In the copy
    the steps that take `engine` have the image `spark` of the same registry and tag.
    """
    if engine != "spark":
        return path
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    executors = documents[0]["deploymentSpec"]["executors"]
    for component in documents[0]["components"].values():
        if "executorLabel" in component and "engine" in component.get("inputDefinitions", {}).get("parameters", {}):
            container = executors[component["executorLabel"]]["container"]
            container["image"] = _BASE.sub("spark", container["image"])
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / path.name
    copy.write_text(yaml.safe_dump_all(documents, sort_keys=False), encoding="utf-8")
    return copy


def check_all(folder: Path = COMPILED) -> None:
    """Compile anew and compare with what is kept, the SDK's version and the images' registry and tag apart.

    Raises:
        ArtifactError: a kept file is missing, superfluous or differs.
    """
    with tempfile.TemporaryDirectory() as scratch:
        fresh = {path.relative_to(scratch): path for path in compile_all(Path(scratch))}
        kept = {path.relative_to(folder): path for path in folder.rglob("*.yaml")}
        differing = sorted(
            str(name)
            for name in fresh.keys() | kept.keys()
            if name not in fresh or name not in kept or canonical(fresh[name]) != canonical(kept[name])
        )
    if differing:
        raise ArtifactError(
            f"the compiled pipeline {differing[0]} is not what the source gives",
            where=str(folder),
            remedy="Run `make compile` and commit the result.",
        )
    for name in sorted(kept):
        check_importers(kept[name])


def check_importers(path: Path) -> None:
    """Check that no importer of a compiled pipeline has a display name.

    A backend records an importer under its display name and looks it up under its task's name: the driver of the step that
    takes the artifact then ends with "cannot find producer task" (kubeflow/pipelines#11173).

    Raises:
        ArtifactError: an importer has one.
    """
    for task in graph.tasks(graph.document(path)):
        shown = task.spec["taskInfo"]["name"]
        if task.kind == "importer" and shown != task.name:
            raise ArtifactError(
                f"the importer {task.name!r} has the display name {shown!r}; on a backend no step finds what it imports",
                where=str(path),
                remedy="Leave out `set_display_name` on importers.",
            )


def canonical(path: Path) -> list[Any]:
    """The YAML documents of a compiled pipeline without the SDK's version and with neutral image names."""
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    for document in documents:
        document.pop("sdkVersion", None)
        for executor in document.get("deploymentSpec", {}).get("executors", {}).values():
            if "container" in executor:
                executor["container"]["image"] = _neutral(executor["container"]["image"])
    return documents


def _neutral(image: str) -> str:
    """`registry/path/base:tag` as `tritower/base`: which image it is stays part of the comparison."""
    return f"{_NEUTRAL_IMAGE}/{image.partition('@')[0].rsplit('/', 1)[-1].split(':')[0]}"
