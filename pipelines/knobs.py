"""The knobs of a run: a preset file, then `--set step.knob=value`, checked before anything starts."""

import copy
import difflib
import functools
import importlib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tritower.config import current_names, from_dict
from tritower.errors import ConfigError, of_system

from pipelines import names, steps

PRESETS = Path(__file__).parent / "presets"


def gather(preset: str = "", settings: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """The knobs that differ from the defaults, by step.

    Args:
        preset: a name in `pipelines/presets/`, a TOML file, or empty for none. A table of the file is a step.
        settings: texts `step.knob=value`, or `step.group.knob=value` where knobs are nested; they override the preset.

    Raises:
        ConfigError: an unknown step or knob, or a value that does not fit.
    """
    knobs = _preset(preset) if preset else {}
    chosen = {step: current_names(kind_of(step), values, where=step) for step, values in knobs.items()}
    for setting in settings:
        name, separator, value = setting.partition("=")
        step, dot, knob = name.strip().partition(".")
        if not (separator and dot and knob):
            raise ConfigError(f"{setting!r} is not a setting", where="--set", remedy="Write step.knob=value.")
        _override(chosen.setdefault(step, {}), current_names(kind_of(step), {knob: value.strip()}, where=step))
    for step, values in chosen.items():
        check(step, values)
    return chosen


def _override(values: dict[str, Any], others: dict[str, Any]) -> None:
    for name, value in others.items():
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            _override(values[name], value)
        else:
            values[name] = value


def kind_of(step: str) -> type[Any]:
    """The config class of a step.

    Raises:
        ConfigError: there is no such step.
    """
    known = steps.configs()
    if step not in known:
        near = difflib.get_close_matches(names.table(step), known, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Known steps: {', '.join(known)}."
        raise ConfigError(f"there is no step {step!r}", where="knobs", remedy=remedy)
    module = importlib.import_module(f"tritower.{known[step].room}.config")
    kind: type[Any] = getattr(module, known[step].config)
    return kind


def check(step: str, values: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the values are knobs of the step and in range."""
    from_dict(kind_of(step), values, where=step)


def arguments(knobs: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The knobs as pipeline parameters: those that are parameters of their own as such, the others in `settings_<table>`."""
    known, found = steps.configs(), dict[str, Any]()
    for table, values in knobs.items():
        values = copy.deepcopy(dict(values))
        for parameter, knob in known[table].plain.items():
            group, _, name = knob.rpartition(".")
            holder = values.get(group, {}) if group else values
            if isinstance(holder, dict) and name in holder:
                config = from_dict(kind_of(table), {knob: holder.pop(name)}, where=table)
                found[parameter] = functools.reduce(getattr, knob.split("."), config)
            if group and holder == {}:
                values.pop(group, None)
        if values or not known[table].plain:
            found[names.settings(table)] = values
    return found


def _preset(preset: str) -> dict[str, dict[str, Any]]:
    path = Path(preset) if preset.endswith(".toml") else PRESETS / f"{preset}.toml"
    try:
        found = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in PRESETS.glob("*.toml")))
        raise ConfigError(f"there is no preset {preset!r}", where=str(path), remedy=f"Known presets: {known}.") from None
    except OSError as error:
        raise of_system(error, where=str(path), verb="read") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = f"the preset is not UTF-8: line {line} has the byte 0x{error.object[error.start]:02x}"
        raise ConfigError(problem, where=str(path), remedy="Save it as UTF-8.") from None
    except RecursionError:
        raise ConfigError("the preset is nested too deep", where=str(path), remedy="Write a table of knobs per step.") from None
    except ValueError as error:
        raise ConfigError(f"the preset is not TOML: {error}", where=str(path), remedy="Mend the line named.") from None
    for step, values in found.items():
        if not isinstance(values, dict):
            raise ConfigError(f"{step!r} is not a table of knobs", where=str(path), remedy=f"Write [{step}] above its knobs.")
    return found
