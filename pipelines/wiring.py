"""From a function that wires steps to the function that KFP compiles: with the parameters and descriptions of its steps."""

import copy
import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl

from pipelines import names, steps
from pipelines.flavours import equipped, understood

_KINDS: dict[str, type] = {"Integer": int, "Float": float, "String": str}
"""Type of a component's input that is a parameter of the pipeline, too -> the same in Python."""


class Wiring:
    """Adds steps to the pipeline that is being built.

    Args:
        parts: the parts that the pipeline has.
        configs: table of knobs -> the pipeline's parameter.
        plain: name of a knob that is a parameter of its own -> that parameter.
        inner: name -> pipeline that can be nested in it.
    """

    def __init__(
        self, parts: frozenset[str], configs: Mapping[str, Any], plain: Mapping[str, Any], inner: Mapping[str, Any]
    ) -> None:
        self.parts, self.configs, self._plain, self._inner = parts, configs, plain, inner

    def add(self, name: str, **inputs: Any) -> dsl.PipelineTask:
        """Add a step of the registry with these inputs, its knobs being the pipeline's parameter unless `config` is given."""
        step = steps.STEPS[name]
        component = understood(_named(_component(step), step.name))
        knobs = {"config": self.configs[step.knobs]} if step.knobs else {}
        knobs |= {"cluster": self.configs[steps.CLUSTER.knobs]} if step.launched else {}
        knobs |= {name: value for name, value in self._plain.items() if name in component.component_spec.inputs}
        task = component(**knobs | inputs)
        if "_" in step.name:  # KFP's own names have hyphens
            task.set_display_name(step.name)
        if step.looks_anew:
            task.set_caching_options(enable_caching=False)
        return equipped(task, step)

    def nest(self, name: str, **inputs: Any) -> dsl.PipelineTask:
        """Add a nested pipeline with these inputs; the knobs of its steps are those of this pipeline."""
        component = self._inner[name]
        known = {names.settings(table): value for table, value in self.configs.items()} | dict(self._plain)
        taken = component.component_spec.inputs
        return component(**{parameter: value for parameter, value in known.items() if parameter in taken} | inputs)


def _component(step: steps.Step) -> Any:
    return getattr(importlib.import_module(f"tritower.{step.room}.component"), step.component)


def _input(step: steps.Step, name: str) -> Any:
    return _component(step).component_spec.inputs[name]


def _named(component: Any, name: str) -> Any:
    """A component under a step's name, so that tasks, pods and folders have it, and no two tasks of a run have one name.

    It says nothing of itself: a backend writes a step's specification into nine fields of the run's Workflow, and of one beyond
    1 MiB its API knows no tasks any more (`tritower._build`). The texts are in `components/catalogue`.
    """
    named = copy.copy(component)
    named.name = name.replace("_", "-")
    spec = component.component_spec
    named.component_spec = dataclasses.replace(
        spec,
        name=named.name,
        description=None,
        inputs={name: dataclasses.replace(one, description=None) for name, one in (spec.inputs or {}).items()},
        outputs={name: dataclasses.replace(one, description=None) for name, one in (spec.outputs or {}).items()},
    )
    return named


def pipeline(
    name: str, wire: Callable[..., Any], parts: frozenset[str], nested: Mapping[str, Callable[..., Any]]
) -> Callable[..., Any]:
    """The function to compile: `wire`, with the parameters of its parts and a `settings_<table>` per table.

    Args:
        name: the pipeline's, as the registry calls it.
        wire: takes a `Wiring`, then the pipeline's own parameters; its docstring describes these. The locations of a part that
            is left out are dropped.
        parts: the parts to wire.
        nested: name -> function that wires a pipeline to nest; like `wire`.
    """
    chosen = steps.of(name, parts)
    # KFP makes no pipeline while it makes another one.
    inner = {
        one: dsl.pipeline(_function(one, function, parts, steps.configs(within), {}), name=one)
        for one, function in nested.items()
        if (within := [step for step in chosen if step.within == one])
    }
    return _function(name, wire, parts, steps.configs(chosen), inner)


def _function(
    name: str,
    wire: Callable[..., Any],
    parts: frozenset[str],
    tables: Mapping[str, steps.Step],
    inner: Mapping[str, Any],
) -> Callable[..., Any]:
    signature, about = _signature(name, wire, parts, tables), _description(wire, tables)

    def function(*values: Any) -> Any:
        given = signature.bind(*values).arguments
        configs = {table: given.pop(names.settings(table)) for table in tables}
        plain = {name: given.pop(name) for step in tables.values() for name in step.plain}
        given |= {name: "" for name in _needless(parts) if name in inspect.signature(wire).parameters}
        return wire(Wiring(parts, configs, plain, inner), **given)

    function.__name__, function.__doc__ = name, about
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _signature(
    name: str, wire: Callable[..., Any], parts: frozenset[str], tables: Mapping[str, steps.Step]
) -> inspect.Signature:
    found = inspect.signature(wire)
    of_parts = {location: part.name for part in steps.PARTS.values() for location in part.locations}
    needless = _needless(parts)
    _, *own = found.parameters.values()
    needed, optional = [], []
    for parameter in own:
        if parameter.name in needless:
            continue
        if parameter.default is inspect.Parameter.empty:
            needed.append(parameter)
        elif of_parts.get(parameter.name) in {None, *parts} or name not in steps.with_part(of_parts[parameter.name]):
            optional.append(parameter)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    for step in tables.values():
        given = {one: _input(step, one) for one in step.plain}
        optional += [
            inspect.Parameter(name, kind, default=one.default, annotation=_KINDS[one.type]) for name, one in given.items()
        ]
    for table, step in tables.items():
        default = dict(step.preset.get(name, {}))
        optional.append(inspect.Parameter(names.settings(table), kind, default=default, annotation=dict[str, Any]))
    return found.replace(parameters=[*needed, *optional])


def _needless(parts: frozenset[str]) -> frozenset[str]:
    """Parameters of which the parts make what they would name."""
    return frozenset(name for part in parts for name in steps.PARTS[part].replaces)


def _description(wire: Callable[..., Any], tables: Mapping[str, steps.Step]) -> str:
    lines = (
        f"    {names.settings(table)}: knobs of `tritower.{step.room}.config.{step.config}`{step.about}{_wins(step)}."
        for table, step in tables.items()
    )
    plain = (
        f"    {name}: {inspect.cleandoc(_input(step, name).description or '')}"
        for step in tables.values()
        for name in step.plain
    )
    return "\n".join([inspect.getdoc(wire) or "", *plain, *lines])


def _wins(step: steps.Step) -> str:
    *names, last = ["", *(f"`{name}`" for name in step.plain)]
    return "; they win over " + " and ".join(filter(None, [", ".join(filter(None, names)), last])) if last else ""
