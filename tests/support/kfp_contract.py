"""The published OpenAPI of the Kubeflow Pipelines API as a check of what is sent and what is answered.

kfp-server-api is generated from that document: its models name the fields and their types, the docstrings of its calls the
parameters of a query. A real backend refuses an unknown field of a request (`DiscardUnknown: false`).
"""

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import kfp_server_api


@dataclass(frozen=True)
class Operation:
    """What may be sent to a path and what comes back; `pattern` is of the path below /apis/v2beta1."""

    method: str
    pattern: str
    service: str
    call: str
    body: str = ""
    answer: str = "object"

    def query(self) -> set[str]:
        """The names that a query may have."""
        text = getattr(getattr(kfp_server_api, self.service), self.call).__doc__ or ""
        return {name for name in re.findall(r":param (\w+):", text) if not name.startswith("_")}


_ID = r"([^/:]+)"
_PIPELINES, _RUNS, _SCHEDULES = "PipelineServiceApi", "RunServiceApi", "RecurringRunServiceApi"
_EXPERIMENTS, _UPLOADS = "ExperimentServiceApi", "PipelineUploadServiceApi"
_OPERATIONS = (
    ("GET", "healthz", "HealthzServiceApi", "healthz_service_get_healthz", "", "V2beta1GetHealthzResponse"),
    ("GET", "experiments", _EXPERIMENTS, "experiment_service_list_experiments", "", "V2beta1ListExperimentsResponse"),
    ("POST", "experiments", _EXPERIMENTS, "experiment_service_create_experiment", "V2beta1Experiment", "V2beta1Experiment"),
    ("GET", f"experiments/{_ID}", _EXPERIMENTS, "experiment_service_get_experiment", "", "V2beta1Experiment"),
    ("GET", "pipelines", _PIPELINES, "pipeline_service_list_pipelines", "", "V2beta1ListPipelinesResponse"),
    ("POST", "pipelines", _PIPELINES, "pipeline_service_create_pipeline", "V2beta1Pipeline", "V2beta1Pipeline"),
    ("GET", f"pipelines/names/{_ID}", _PIPELINES, "pipeline_service_get_pipeline_by_name", "", "V2beta1Pipeline"),
    ("POST", "pipelines/upload_version", _UPLOADS, "upload_pipeline_version", "", "V2beta1PipelineVersion"),
    ("GET", f"pipelines/{_ID}", _PIPELINES, "pipeline_service_get_pipeline", "", "V2beta1Pipeline"),
    ("DELETE", f"pipelines/{_ID}", _PIPELINES, "pipeline_service_delete_pipeline"),
    (
        "GET", f"pipelines/{_ID}/versions", _PIPELINES, "pipeline_service_list_pipeline_versions", "",
        "V2beta1ListPipelineVersionsResponse",
    ),
    (
        "GET", f"pipelines/{_ID}/versions/{_ID}", _PIPELINES, "pipeline_service_get_pipeline_version", "",
        "V2beta1PipelineVersion",
    ),
    ("DELETE", f"pipelines/{_ID}/versions/{_ID}", _PIPELINES, "pipeline_service_delete_pipeline_version"),
    ("GET", "runs", _RUNS, "run_service_list_runs", "", "V2beta1ListRunsResponse"),
    ("POST", "runs", _RUNS, "run_service_create_run", "V2beta1Run", "V2beta1Run"),
    ("GET", f"runs/{_ID}", _RUNS, "run_service_get_run", "", "V2beta1Run"),
    ("POST", f"runs/{_ID}:terminate", _RUNS, "run_service_terminate_run"),
    ("POST", f"runs/{_ID}:archive", _RUNS, "run_service_archive_run"),
    ("GET", "recurringruns", _SCHEDULES, "recurring_run_service_list_recurring_runs", "", "V2beta1ListRecurringRunsResponse"),
    (
        "POST", "recurringruns", _SCHEDULES, "recurring_run_service_create_recurring_run", "V2beta1RecurringRun",
        "V2beta1RecurringRun",
    ),
    ("GET", f"recurringruns/{_ID}", _SCHEDULES, "recurring_run_service_get_recurring_run", "", "V2beta1RecurringRun"),
    ("DELETE", f"recurringruns/{_ID}", _SCHEDULES, "recurring_run_service_delete_recurring_run"),
    ("POST", f"recurringruns/{_ID}:enable", _SCHEDULES, "recurring_run_service_enable_recurring_run"),
    ("POST", f"recurringruns/{_ID}:disable", _SCHEDULES, "recurring_run_service_disable_recurring_run"),
)  # fmt: skip
OPERATIONS = tuple(Operation(*one) for one in _OPERATIONS)


def operation(method: str, path: str) -> tuple[Operation, tuple[str, ...]] | None:
    """The operation at a path below /apis/v2beta1, and the ids that stand in it."""
    for one in OPERATIONS:
        if one.method == method and (found := re.fullmatch(one.pattern, path)):
            return one, found.groups()
    return None


def faults(value: Any, kind: str, path: str = "") -> Iterator[str]:
    """What in a JSON value is not as the OpenAPI has it, each with its place.

    Args:
        kind: a type as the generated models name it: `str`, `list[V2beta1Run]`, `V2beta1Run`...
    """
    listed, mapped = re.fullmatch(r"list\[(.+)\]", kind), re.fullmatch(r"dict\(str, (.+)\)", kind)
    if listed:
        yield from _inside(enumerate(value), listed[1], path) if isinstance(value, list) else [f"{path}: no list"]
    elif mapped:
        yield from _inside(value.items(), mapped[1], path) if isinstance(value, dict) else [f"{path}: no mapping"]
    elif kind == "datetime":
        if not (isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value)):
            yield f"{path}: {value!r} is no time"
    elif kind == "object":
        if not isinstance(value, dict):
            yield f"{path}: no mapping"
    elif kind in ("str", "int", "bool", "float"):
        allowed = {"str": str, "int": int, "bool": bool, "float": (int, float)}[kind]
        if not isinstance(value, allowed) or (kind == "int" and isinstance(value, bool)):  # type: ignore[arg-type]
            yield f"{path}: {value!r} is no {kind}"
    else:
        yield from _of_model(value, getattr(kfp_server_api, kind), path)


def _inside(items: Any, kind: str, path: str) -> Iterator[str]:
    for key, item in items:
        if kind != "object" or isinstance(item, dict):
            yield from faults(item, kind, f"{path}.{key}")


def _of_model(value: Any, model: Any, path: str) -> Iterator[str]:
    if hasattr(model, "allowable_values"):
        if value not in model.allowable_values:
            yield f"{path}: {value!r} is none of {model.allowable_values}"
    elif not isinstance(value, dict):
        yield f"{path}: no mapping"
    else:
        kinds = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
        for key, item in value.items():
            if key not in kinds:
                yield f"{path}.{key}: unknown field of {model.__name__}"
            else:
                yield from faults(item, kinds[key], f"{path}.{key}")


def now() -> str:
    """The time as the API writes it."""
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
