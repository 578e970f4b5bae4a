"""Run steps here as a Kubeflow Pipelines backend runs them: its executor input, its rules for what a step hands back.

`kfp.local` is kinder than a backend, so that a pipeline can run here and fail there at its first artifact. What a backend
does (KFP 2.17, its driver, launcher and metadata store):

* An input artifact has a number for a name and no type: `{"instanceSchema": ""}` in place of a schemaTitle. The SDK then makes
  it from the annotation, which fails for `Optional[Input[...]]`.
* Metadata come back from the store changed: numbers and truth values as floats, a list as `{"list": [...]}`, a mapping as
  `{"struct": {...}}`, with `display_name` and `store_session_info` added. It takes no null and no number that is not finite.
* Each step has one more output artifact, `executor-logs`, which its function does not name.
* A parameter must have the declared type: a dict given as text is refused.

`kfp.local` has no setting for any of this; the executor input is exchanged where a step is started.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tritower.errors import ArtifactError, ConfigError, TritowerError

from pipelines import graph, names

_OPTION = "--executor_input"
_LOGS = "executor-logs"
_SESSION = {
    "Provider": "minio",
    "Params": {
        "accessKeyKey": "accesskey",
        "disableSSL": "true",
        "endpoint": "seaweedfs.kubeflow:9000",
        "fromEnv": "false",
        "region": "minio",
        "secretKeyKey": "secretkey",
        "secretName": "mlpipeline-minio-artifact",
    },
}
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "STRUCT": ((dict,), "a dict"),
    "LIST": ((list, tuple), "a list"),
    "STRING": ((str,), "a text"),
    "BOOLEAN": ((bool,), "true or false"),
    "NUMBER_INTEGER": ((int, float), "a number"),
    "NUMBER_DOUBLE": ((int, float), "a number"),
}
"""Parameter types of a compiled pipeline -> what a value may be, in Python and in words."""


def check_arguments(pipeline: Path, arguments: Mapping[str, Any]) -> None:
    """Check a pipeline's arguments against the parameters that it declares, as a backend does when a run is submitted.

    Raises:
        ConfigError: there is no such parameter, one is missing, or a value has another type.
    """
    check(graph.document(pipeline), arguments, where=pipeline.name)


def check(specification: Mapping[str, Any], arguments: Mapping[str, Any], *, where: str) -> None:
    """The same for a compiled pipeline as a backend's API gives it: with its second document or without."""
    document = specification.get("pipeline_spec", specification)
    declared = document.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    for name in sorted(arguments.keys() - declared.keys()):
        now = names.parameter(document.get("pipelineInfo", {}).get("name", ""), name)
        remedy = f"It is called {now!r} now." if now in declared else f"Its parameters: {', '.join(sorted(declared))}."
        raise ConfigError(f"the pipeline has no parameter {name!r}", where=where, remedy=remedy)
    for name, one in declared.items():
        if name not in arguments and not one.get("isOptional", False) and "defaultValue" not in one:
            raise ConfigError(f"parameter {name!r} is missing", where=where, remedy="Give it a value.")
    for problem in _mismatches(arguments, declared):
        raise ConfigError(problem, where=where, remedy="Give a value of that type.")


@contextlib.contextmanager
def steps(pipeline: Path, failures: list[TritowerError]) -> Iterator[None]:
    """While the block runs, `kfp.local` hands the steps of a compiled pipeline a backend's executor input.

    Args:
        pipeline: the compiled YAML.
        failures: gets the error of a step that hands back, or is given, what a backend refuses.
    """
    from kfp.local import docker_task_handler, subprocess_task_handler

    handlers: list[Any] = [subprocess_task_handler.SubprocessTaskHandler, docker_task_handler.DockerTaskHandler]
    originals = [handler.run for handler in handlers]
    components, numbers = graph.document(pipeline)["components"], dict[str, int]()
    for handler, original in zip(handlers, originals, strict=True):
        handler.run = _exchanged(original, components, numbers, failures)
    try:
        yield
    finally:
        for handler, original in zip(handlers, originals, strict=True):
            handler.run = original


def executor_input(given: dict[str, Any], numbers: dict[str, int]) -> dict[str, Any]:
    """What a backend would hand the step to which `kfp.local` hands `given`.

    Args:
        given: the executor input.
        numbers: location -> number of the artifact in the metadata store; new ones are added.
    """
    outputs = given["outputs"]
    root = str(PurePosixPath(outputs["outputFile"]).parent)
    logs = {"name": _LOGS, "type": {"schemaTitle": "system.Artifact"}, "uri": f"{root}/{_LOGS}", "metadata": {}}
    inputs = dict(given.get("inputs", {}))
    inputs["artifacts"] = {
        name: {"artifacts": [_from_store(artifact, numbers) for artifact in listed["artifacts"]]}
        for name, listed in inputs.get("artifacts", {}).items()
    }
    artifacts = {**outputs.get("artifacts", {}), _LOGS: {"artifacts": [logs]}}
    return given | {"inputs": inputs, "outputs": outputs | {"artifacts": artifacts}}


def check_output(output: Mapping[str, Any], component: Mapping[str, Any]) -> None:
    """Check what a step handed back as a backend does.

    Args:
        output: the executor output.
        component: the step's component in the compiled pipeline.

    Raises:
        ArtifactError: a backend's launcher or metadata store would refuse it.
    """
    declared = component.get("outputDefinitions", {}).get("parameters", {})
    for problem in _mismatches(output.get("parameterValues", {}), declared):
        raise ArtifactError(f"output {problem}", where="the executor output", remedy="Return a value of that type.")
    for name, listed in output.get("artifacts", {}).items():
        for artifact in listed["artifacts"]:
            for key, value in artifact.get("metadata", {}).items():
                if value is None or not _is_finite(value):
                    raise ArtifactError(
                        f"a backend cannot store {value!r}" if value is None else "a backend stores finite numbers only",
                        where=f"metadata {key!r} of the output {name!r}",
                        remedy="Leave the key out where there is no value.",
                    )


def stored(value: Any) -> Any:
    """A value of an artifact's metadata as the metadata store gives it back."""
    if isinstance(value, dict):
        return {"struct": _floats(value)}
    return {"list": _floats(value)} if isinstance(value, list) else float(value) if isinstance(value, bool) else _floats(value)


def _exchanged(
    original: Callable[[Any], Any], components: Mapping[str, Any], numbers: dict[str, int], failures: list[TritowerError]
) -> Callable[[Any], Any]:
    def run(handler: Any) -> Any:
        from kfp.local.status import Status

        command = list(handler.full_command)
        at = command.index(_OPTION) + 1
        given = json.loads(command[at])
        result = Path(given["outputs"]["outputFile"])
        component = components[f"comp-{result.parent.name}"]
        try:
            _check_input(given, component)
        except ConfigError as error:
            return _refused(error, failures)
        command[at] = json.dumps(executor_input(given, numbers))
        handler.full_command = command
        status = original(handler)
        try:
            if status == Status.SUCCESS:
                _take(result, component)
        except ArtifactError as error:
            return _refused(error, failures)
        return status

    return run


def _refused(error: TritowerError, failures: list[TritowerError]) -> Any:
    """The status of a step that a backend refuses; the reason goes to the step's log, too."""
    from kfp.local.status import Status

    failures.append(error)
    print(f"{type(error).__name__}: {error}")
    return Status.FAILURE


def _check_input(given: Mapping[str, Any], component: Mapping[str, Any]) -> None:
    declared = component.get("inputDefinitions", {}).get("parameters", {})
    for problem in _mismatches(given.get("inputs", {}).get("parameterValues", {}), declared):
        raise ConfigError(f"input {problem}", where="the executor input", remedy="Hand over a value of that type.")


def _take(result: Path, component: Mapping[str, Any]) -> None:
    """Check a step's executor output and leave it as `kfp.local` understands it, without the log artifact."""
    output = json.loads(result.read_text(encoding="utf-8"))
    check_output(output, component)
    output.get("artifacts", {}).pop(_LOGS, None)
    result.write_text(json.dumps(output), encoding="utf-8")


def _from_store(artifact: Mapping[str, Any], numbers: dict[str, int]) -> dict[str, Any]:
    uri = artifact["uri"]
    known = {"display_name": PurePosixPath(uri).name, "store_session_info": json.dumps(_SESSION)}
    return {
        "name": str(numbers.setdefault(uri, len(numbers) + 1)),
        "type": {"instanceSchema": ""},
        "uri": uri,
        "metadata": known | {key: stored(value) for key, value in artifact.get("metadata", {}).items()},
    }


def _floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_floats(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_finite(item) for item in value.values())
    if isinstance(value, list):
        return all(_is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def _mismatches(values: Mapping[str, Any], declared: Mapping[str, Any]) -> Iterator[str]:
    """The parameters whose value does not have the declared type, in words."""
    for name, value in values.items():
        definition = declared.get(name, {})
        kinds, wanted = _TYPES.get(definition.get("parameterType", ""), ((), ""))
        if not kinds or (value is None and definition.get("isOptional", False)):
            continue
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            yield f"parameter {name!r} is to be {wanted}, not {type(value).__name__}"
