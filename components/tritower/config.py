"""The one door for outside values: a dict of knobs in, a checked frozen dataclass out.

KFP turns an int inside a dict parameter into a float, Katib sends every value as text, TOML and the command line have
types of their own. A step therefore never reads a dict: it asks `from_dict` for its config class.
"""

import dataclasses
import difflib
import functools
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from tritower.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Removed:
    """A knob that a config class no longer has, in its `FORMER` table.

    Args:
        why: the reason that the error gives.
        off: the value that switched it off. A config with this value still loads, and the knob is ignored.
    """

    why: str
    off: Any

    def is_off(self, value: Any) -> bool:
        """Whether a value, text included, equals `off`."""
        try:
            return bool(TypeAdapter(type(self.off)).validate_python(value) == self.off)
        except ValidationError:
            return False


def from_dict(
    kind: type[T], values: Mapping[str, Any] | str | None, *, where: str = "", plain: Mapping[str, Any] | None = None
) -> T:
    """Build the config dataclass `kind` from plain values.

    Values are converted to the declared types: `5`, `5.0` and `"5"` become the int 5; `"true"` a bool; `"256,128"` or
    `"[256, 128]"` a tuple; a mapping or JSON text a nested config. A field that is not given keeps its default.

    Args:
        kind: a frozen dataclass whose `__post_init__` checks ranges.
        values: knob name -> value, also as JSON text; None means all defaults.
        where: named in the error; the class name when empty.
        plain: values of knobs that a step takes one by one; `values` wins where it names the same knob.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a knob that was removed, one that is given twice, a value that
            does not convert, a range error, or text that is no mapping in JSON.
    """
    where = where or kind.__name__
    hints = typing.get_type_hints(kind)
    given = current_names(kind, {} if values is None else _mapping(values, where), where=where)
    for key, value in current_names(kind, plain or {}, where=where).items():
        if key not in given:
            given[key] = value
        elif dataclasses.is_dataclass(hints[key]):
            given[key] = {**value, **_mapping(given[key], f"{where}.{key}")}
    converted = {key: _untext(hints[key], value, f"{where}.{key}") for key, value in given.items()}
    try:
        config: T = _adapter(typing.cast("Any", kind)).validate_python(converted)
        return config
    except ValidationError as error:
        raise _readable(error, where) from None


def current_names(kind: type[Any], values: Mapping[str, Any], *, where: str = "") -> dict[str, Any]:
    """The values by field of `kind`: dotted names nested, former names replaced, removed knobs left out.

    Raises:
        ConfigError: an unknown key, a knob that was removed, or one that is given twice.
    """
    where = where or kind.__name__
    hints = typing.get_type_hints(kind)
    fields = {field.name for field in dataclasses.fields(kind)}
    former: Mapping[str, str | Removed] = getattr(kind, "FORMER", {})
    found: dict[str, Any] = {}
    for key, value in values.items():
        now = key if key in fields else former.get(key, key)
        if isinstance(now, Removed):
            if not now.is_off(value):
                raise ConfigError(f"the knob {key!r} was removed: {now.why}", where=where, remedy="Leave it out.")
            continue
        name, _, inner = now.partition(".")
        if name not in fields or (inner and not dataclasses.is_dataclass(hints[name])):
            raise ConfigError(f"unknown knob {key!r}", where=where, remedy=_suggest(key, _known(kind)))
        given = {inner: value} if inner else value
        found[name] = _joined(found[name], given, f"{where}.{name}") if name in found else given
    return found


def _joined(first: Any, second: Any, where: str) -> dict[str, Any]:
    """Both parts of a nested config, one of which may be JSON text."""
    if isinstance(first, Mapping) or isinstance(second, Mapping):
        first, second = _mapping(first, where), _mapping(second, where)
        if not set(first) & set(second):
            return {**first, **second}
    raise ConfigError("this is given twice", where=where, remedy="Give it once, under its present name.")


def to_dict(config: Any) -> dict[str, Any]:
    """The knobs of a config dataclass as JSON-ready values: tuples become lists, nested configs become dicts."""
    return typing.cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(config))))


def check(condition: bool, knob: str, value: object, expected: str) -> None:
    """Raise ConfigError unless `condition` holds; for `__post_init__` of config classes.

    Args:
        condition: the range check.
        knob: the field's name.
        value: what was given.
        expected: the range in words, such as "between 0 and 1".
    """
    if not condition:
        raise ConfigError(f"{knob} is {value!r}", where=knob, remedy=f"Give a value {expected}.")


@functools.cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    # A standard dataclass takes its pydantic settings from this attribute; setting it here keeps every config.py free
    # of pydantic.
    settings = ConfigDict(extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)
    kind.__pydantic_config__ = settings
    return TypeAdapter(kind)


def _untext(hint: Any, value: Any, where: str) -> Any:
    """Turn text into a container where the declared type wants one, and a nested mapping into its config."""
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        if dataclasses.is_dataclass(option):
            return from_dict(typing.cast("type[Any]", option), _mapping(value, where), where=where)
        if typing.get_origin(option) is dict and isinstance(value, str):
            return _mapping(value, where)
        if typing.get_origin(option) in (tuple, list) and isinstance(value, str):
            return _container(value, where)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"the value is {value}", where=where, remedy="Give a finite number.")
    return value


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Union or type(hint).__name__ == "UnionType"


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    """A mapping, or the one that JSON text stands for.

    Raises:
        ConfigError: it is neither.
    """
    found = _container(value, where) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise ConfigError(f"expected a mapping, got {value!r}", where=where, remedy='Give JSON such as {"a": 1}.')
    return found


def _container(text: str, where: str) -> Any:
    text = text.strip()
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except RecursionError:
            raise ConfigError(
                "the text is nested too deep", where=where, remedy="Give a list or a mapping of values."
            ) from None
        except ValueError as error:
            raise ConfigError(f"the text is not JSON: {error}", where=where, remedy="Check brackets and quotes.") from None
    return [part.strip() for part in text.split(",") if part.strip()]


def _known(kind: Any) -> list[str]:
    """The knobs of a config class, those of nested ones dotted."""
    hints = typing.get_type_hints(kind)
    known = []
    for field in dataclasses.fields(kind):
        inner: Any = hints[field.name]
        known += [f"{field.name}.{name}" for name in _known(inner)] if dataclasses.is_dataclass(inner) else [field.name]
    return known


def _suggest(key: str, known: list[str]) -> str:
    by_last = {name.rpartition(".")[2]: name for name in reversed(known)}
    near = difflib.get_close_matches(key.rpartition(".")[2], by_last, n=1, cutoff=0.5)
    return f"Did you mean {by_last[near[0]]!r}?" if near else f"Known knobs: {', '.join(sorted(known)) or 'none'}."


def _readable(error: ValidationError, where: str) -> ConfigError:
    first = error.errors(include_url=False)[0]
    path = ".".join([where, *(str(part) for part in first["loc"])])
    if isinstance(first.get("ctx", {}).get("error"), ConfigError):
        inner = first["ctx"]["error"]
        return ConfigError(inner.problem, where=f"{where}.{inner.where}", remedy=inner.remedy)
    return ConfigError(
        f"{first['input']!r} does not fit: {first['msg']}", where=path, remedy="Give a value of the declared type."
    )
