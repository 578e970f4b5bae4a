"""From a function that wires steps to the function that KFP compiles: with the parameters and descriptions of its steps."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl

from pipelines import names, steps
from pipelines.flavours import opens_store


class Wiring:
    """Adds steps to the pipeline that is being built.

    Args:
        parts: the parts that the pipeline has.
        configs: table of knobs -> the pipeline's parameter.
    """

    def __init__(self, parts: frozenset[str], configs: Mapping[str, Any]) -> None:
        self.parts, self.configs = parts, configs

    def add(self, name: str, **inputs: Any) -> dsl.PipelineTask:
        """Add a step of the registry with these inputs, its knobs being the pipeline's parameter unless `config` is given."""
        step = steps.STEPS[name]
        component = getattr(importlib.import_module(f"tritower.{step.room}.component"), step.component)
        knobs = {"config": self.configs[step.knobs]} if step.knobs else {}
        task = component(**knobs | inputs)
        if step.name != step.component:
            task.set_display_name(step.name)
        return opens_store(task) if step.opens_store else task


def pipeline(name: str, wire: Callable[..., Any], parts: frozenset[str]) -> Callable[..., Any]:
    """The function to compile: `wire`, with the parameters of its parts and a `settings_<table>` per table.

    Args:
        name: the pipeline's, as the registry calls it.
        wire: takes a `Wiring`, then the pipeline's own parameters; its docstring describes these. The locations of a part have
            defaults there, which are dropped: a pipeline with that part needs them.
        parts: the parts to wire.
    """
    tables = steps.configs(steps.of(name, parts))
    signature, about = _signature(name, wire, parts, tables), _description(wire, tables)

    def function(*values: Any) -> Any:
        given = signature.bind(*values).arguments
        configs = {table: given.pop(names.settings(table)) for table in tables}
        return wire(Wiring(parts, configs), **given)

    function.__name__, function.__doc__ = name, about
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _signature(
    name: str, wire: Callable[..., Any], parts: frozenset[str], tables: Mapping[str, steps.Step]
) -> inspect.Signature:
    found = inspect.signature(wire)
    of_parts = {location: part.name for part in steps.PARTS.values() for location in part.locations}
    _, *own = found.parameters.values()
    needed, optional = [], []
    for parameter in own:
        if of_parts.get(parameter.name) in parts or parameter.default is inspect.Parameter.empty:
            needed.append(parameter.replace(default=inspect.Parameter.empty))
        elif parameter.name not in of_parts:
            optional.append(parameter)
    for table, step in tables.items():
        default = dict(step.preset.get(name, {}))
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        optional.append(inspect.Parameter(names.settings(table), kind, default=default, annotation=dict[str, Any]))
    return found.replace(parameters=[*needed, *optional])


def _description(wire: Callable[..., Any], tables: Mapping[str, steps.Step]) -> str:
    lines = (
        f"    {names.settings(table)}: knobs of `tritower.{step.room}.config.{step.config}`{step.about}."
        for table, step in tables.items()
    )
    return "\n".join([inspect.getdoc(wire) or "", *lines])
