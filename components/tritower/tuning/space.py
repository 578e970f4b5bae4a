"""One search space, two readers: Optuna's suggestions and Katib's parameter specs."""

from typing import Any

import optuna

from tritower.tuning.config import Parameter


def suggest(trial: optuna.Trial, space: tuple[Parameter, ...]) -> dict[str, str]:
    """A value for every parameter, as text."""
    return {parameter.name: _suggest(trial, parameter) for parameter in space}


def texts(params: dict[str, Any]) -> dict[str, str]:
    """Optuna's recorded values as the text the tuned step gets."""
    return {name: _text(value) for name, value in params.items()}


def katib(space: tuple[Parameter, ...]) -> list[dict[str, Any]]:
    """`spec.parameters` of a Katib Experiment (v1beta1): every value of a feasibleSpace is text."""
    return [
        {"name": parameter.name, "parameterType": parameter.kind, "feasibleSpace": _feasible(parameter)} for parameter in space
    ]


def _suggest(trial: optuna.Trial, parameter: Parameter) -> str:
    if parameter.kind == "categorical":
        return str(trial.suggest_categorical(parameter.name, parameter.choices))
    assert parameter.low is not None and parameter.high is not None
    if parameter.kind == "int":
        return _text(trial.suggest_int(parameter.name, int(parameter.low), int(parameter.high), log=parameter.log))
    return _text(trial.suggest_float(parameter.name, parameter.low, parameter.high, log=parameter.log))


def _feasible(parameter: Parameter) -> dict[str, Any]:
    if parameter.kind == "categorical":
        return {"list": list(parameter.choices)}
    assert parameter.low is not None and parameter.high is not None
    ends = [int(end) if parameter.kind == "int" else end for end in (parameter.low, parameter.high)]
    feasible = {"min": _text(ends[0]), "max": _text(ends[1])}
    return feasible | ({"distribution": "logUniform"} if parameter.log else {})


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)
