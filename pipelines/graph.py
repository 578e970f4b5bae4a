"""A compiled pipeline read as a graph: its tasks, those of nested pipelines too."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of a pipeline or of one that is nested in it."""

    name: str
    """What the compiled pipeline calls it."""

    shown: str
    """What a reader calls it: the registry's name of a step."""

    component: str
    """Its component without `comp-`: what `kfp.local` calls the task."""

    kind: Literal["step", "importer", "dag"]
    """A dag is a nested pipeline."""

    within: tuple[str, ...]
    """The tasks that hold it, from the root downwards."""

    parameters: Mapping[str, str]
    """Its inputs that are parameters of the root -> their names there."""

    spec: Mapping[str, Any]
    """The task as it is compiled."""


def document(pipeline: Path) -> dict[str, Any]:
    """The first YAML document of a compiled pipeline: the one that every backend reads."""
    found: dict[str, Any] = next(yaml.safe_load_all(pipeline.read_text(encoding="utf-8")))
    return found


def tasks(spec: Mapping[str, Any]) -> Iterator[Task]:
    """Every task of a compiled pipeline; a nested pipeline comes before its own tasks."""
    root = spec.get("root", {})
    own = root.get("inputDefinitions", {}).get("parameters", {})
    yield from _tasks(spec, root, (), {name: name for name in own})


def steps(spec: Mapping[str, Any]) -> list[Task]:
    """The tasks that run something, importers among them."""
    return [task for task in tasks(spec) if task.kind != "dag"]


def _tasks(
    spec: Mapping[str, Any], holder: Mapping[str, Any], within: tuple[str, ...], known: Mapping[str, str]
) -> Iterator[Task]:
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    for name, task in holder.get("dag", {}).get("tasks", {}).items():
        called = task.get("componentRef", {}).get("name", "")
        component = spec.get("components", {}).get(called, {})
        is_importer = "importer" in executors.get(component.get("executorLabel", ""), {})
        given = task.get("inputs", {}).get("parameters", {}).items()
        taken = {one: known.get(value.get("componentInputParameter", ""), "") for one, value in given}
        parameters = {one: parameter for one, parameter in taken.items() if parameter}
        yield Task(
            name=name,
            shown=task.get("taskInfo", {}).get("name", name).replace("-", "_"),
            component=called.removeprefix("comp-"),
            kind="dag" if "dag" in component else "importer" if is_importer else "step",
            within=within,
            parameters=parameters,
            spec=task,
        )
        yield from _tasks(spec, component, (*within, name), parameters)
