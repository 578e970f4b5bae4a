"""Custom resources against the schemas that their projects publish (tests/data/crds), as the API server applies them."""

import copy
import functools
import json
import re
from pathlib import Path
from typing import Any

from tests.support.apiserver import answers, kinds
from tests.support.apiserver.kinds import Kind

Object = dict[str, Any]
Cause = tuple[str, str, str]

CRDS = Path(__file__).parents[2] / "data" / "crds"
KATIB = "katib-openapi-v0.19.0"
KUBERNETES = "kubernetes-openapi-v1.34.9"
_MODELS = "models:"
_LABEL = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_LABEL_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
    f"an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '{_LABEL}')"
)
_REST = (
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors "
    "to complete validation"
)
_MOST_ANNOTATIONS = 262_144
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,),
}  # fmt: skip


@functools.cache
def of(kind: Kind) -> Object:
    """The schema of a kind, with every reference in it resolved; an empty one allows all."""
    if not kind.schema:
        return {}
    if kind.schema.startswith(_MODELS):
        return _of_model(kind.schema.removeprefix(_MODELS))
    text = json.loads((CRDS / f"{kind.schema}.json").read_text(encoding="utf-8"))
    if kind.schema in (KATIB, KUBERNETES):
        parts = text["components"]["schemas"]
        (name,) = (one for one in parts if f".{one}".endswith(f".{kind.version}.{kind.kind}") and not one.startswith("."))
        return _resolved({"$ref": f"#/components/schemas/{name}"}, parts)
    (version,) = (one for one in text["spec"]["versions"] if one["name"] == kind.version)
    return dict(version["schema"]["openAPIV3Schema"])


def unknown_fields(kind: Kind, item: Object) -> tuple[list[str], Object]:
    """The paths of fields that the schema does not know (metadata's are not looked at), and the object without them."""
    pruned = copy.deepcopy(item)
    found: list[str] = []
    _prune(of(kind), pruned, "", found)
    return found, pruned


def check(kind: Kind, item: Object) -> None:
    """Name, labels, types, ranges, patterns.

    Raises:
        Refused: 422, in the words of the real server.
    """
    meta = item.get("metadata") or {}
    name = meta.get("name", "")
    causes: list[Cause] = []
    if item.get("kind", kind.kind) != kind.kind:
        bad = item["kind"]
        cause = ("kind", "FieldValueInvalid", f'Invalid value: "{bad}": must be {kind.kind}')
        raise answers.invalid(bad, kind.group, name, [cause])
    if name and not re.fullmatch(answers.NAME, name):
        causes.append(("metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": {answers.NAME_RULE}'))
    if kind is kinds.SERVICE and len(name) > 63:
        causes.append(("metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": must be no more than 63 characters'))
    for value in (meta.get("labels") or {}).values():
        if not isinstance(value, str) or not re.fullmatch(_LABEL, value):
            causes.append(("metadata.labels", "FieldValueInvalid", f'Invalid value: "{value}": {_LABEL_RULE}'))
        elif len(value) > 63:
            causes.append(
                ("metadata.labels", "FieldValueInvalid", f'Invalid value: "{value}": must be no more than 63 characters')
            )
    if sum(len(key) + len(value) for key, value in (meta.get("annotations") or {}).items()) > _MOST_ANNOTATIONS:
        causes.append(
            ("metadata.annotations", "FieldValueTooLong", f"Too long: may not be more than {_MOST_ANNOTATIONS} bytes")
        )
    if kind is kinds.POD and not (item.get("spec") or {}).get("containers"):
        causes.append(("spec.containers", "FieldValueRequired", "Required value"))
    causes += _problems(of(kind), item, "")
    if causes:
        stops = any(reason != "FieldValueInvalid" for _, reason, _ in causes)
        rest = [("<nil>", "FieldValueInvalid", _REST)] if stops and kind.schema else []
        raise answers.invalid(kind.kind, kind.group, name, causes + rest)


def problems(manifest: Object) -> list[str]:
    """What is wrong with a manifest by its schema: unknown fields, then wrong values. Empty when it may be sent.

    Raises:
        LookupError: its apiVersion and kind are none that the server knows.
    """
    for kind in (*kinds.CUSTOM, *kinds.BUILT_IN):
        if (kind.api_version, kind.kind) == (manifest.get("apiVersion"), manifest.get("kind")):
            break
    else:
        raise LookupError(f"{manifest.get('apiVersion')} {manifest.get('kind')}")
    unknown, _ = unknown_fields(kind, manifest)
    try:
        check(kind, manifest)
    except answers.Refused as refused:
        return [*(f'unknown field "{path}"' for path in unknown), str(refused)]
    return [f'unknown field "{path}"' for path in unknown]


def _of_model(type_: str, depth: int = 0) -> Object:
    """The fields and types of a model of the official client; deep inside anything goes."""
    from kubernetes import client

    plain = {"str": "string", "int": "integer", "bool": "boolean", "float": "number", "datetime": "string"}
    if found := re.fullmatch(r"list\[(.*)\]", type_):
        return {"type": "array", "items": _of_model(found[1], depth)}
    if found := re.fullmatch(r"dict\(str, (.*)\)", type_):
        return {"type": "object", "additionalProperties": _of_model(found[1], depth)}
    if type_ in plain:
        return {"type": plain[type_]}
    if type_ in ("object", "V1ObjectMeta") or depth > 20:
        return {}
    model = getattr(client, type_)
    fields = {model.attribute_map[name]: _of_model(one, depth + 1) for name, one in model.openapi_types.items()}
    return {"type": "object", "properties": fields}


def _resolved(schema: Any, parts: Object, depth: int = 0) -> Any:
    if isinstance(schema, list):
        return [_resolved(one, parts, depth) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "allOf" in schema:
        whole = {key: value for key, value in schema.items() if key != "allOf"}
        for one in schema["allOf"]:
            whole |= _resolved(one, parts, depth)
        return whole
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name.endswith("unstructured.Unstructured") or name.endswith("meta.v1.ObjectMeta") or depth > 30:
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        if name.endswith("intstr.IntOrString"):
            return {"x-kubernetes-int-or-string": True}
        if name.endswith("resource.Quantity"):
            return {"x-kubernetes-int-or-string": True}
        if name.endswith("meta.v1.Time"):
            return {"type": "string"}
        return _resolved(parts[name], parts, depth + 1)
    return {key: _resolved(value, parts, depth) for key, value in schema.items()}


def _child(schema: Object, key: str) -> Object | None:
    """The schema of a field, None for one that is unknown."""
    if key in schema.get("properties", {}):
        return dict(schema["properties"][key])
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        return extra
    free = extra is True or schema.get("x-kubernetes-preserve-unknown-fields") or "properties" not in schema
    return {} if free else None


def _prune(schema: Object, value: Any, path: str, found: list[str]) -> None:
    if isinstance(value, list):
        for index, one in enumerate(value):
            _prune(schema.get("items", {}), one, f"{path}[{index}]", found)
    if not isinstance(value, dict) or not schema:
        return
    for key in list(value):
        here = f"{path}.{key}" if path else key
        if here in ("apiVersion", "kind", "metadata"):
            continue
        child = _child(schema, key)
        if child is None:
            found.append(here)
            del value[key]
        else:
            _prune(child, value[key], here, found)


def _problems(schema: Object, value: Any, path: str) -> list[Cause]:
    if not schema or value is None:
        return []
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            return [_wrong_type(path, value, "integer,string")]
    elif (wanted := schema.get("type")) and (
        not isinstance(value, _TYPES[wanted]) or (isinstance(value, bool) and wanted != "boolean")
    ):
        return [_wrong_type(path, value, wanted)]
    found = _bounds(schema, value, path)
    if isinstance(value, dict):
        found += [
            (f"{path}.{key}".lstrip("."), "FieldValueRequired", "Required value")
            for key in schema.get("required", [])
            if key not in value
        ]
        for key, one in value.items():
            here = f"{path}.{key}".lstrip(".")
            if here != "metadata":
                found += _problems(_child(schema, key) or {}, one, here)
    if isinstance(value, list):
        for index, one in enumerate(value):
            found += _problems(schema.get("items", {}), one, f"{path}[{index}]")
    return found


def _bounds(schema: Object, value: Any, path: str) -> list[Cause]:
    shown = json.dumps(value)
    if "enum" in schema and value not in schema["enum"]:
        allowed = ", ".join(json.dumps(one) for one in schema["enum"])
        return [(path, "FieldValueNotSupported", f"Unsupported value: {shown}: supported values: {allowed}")]
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        return [(path, "FieldValueInvalid", f"Invalid value: {shown}: {path} in body should match '{schema['pattern']}'")]
    if isinstance(value, int | float) and not isinstance(value, bool):
        for word, is_wrong in (
            ("minimum", value < schema.get("minimum", value)),
            ("maximum", value > schema.get("maximum", value)),
        ):
            if is_wrong:
                sign = "greater than or equal to" if word == "minimum" else "less than or equal to"
                return [(path, "FieldValueInvalid", f"Invalid value: {shown}: {path} in body should be {sign} {schema[word]}")]
    size = len(value) if isinstance(value, str | list) else None
    for word in ("maxLength", "maxItems"):
        if size is not None and size > schema.get(word, size):
            return [(path, "FieldValueTooLong", f"Too long: may not be more than {schema[word]}")]
    for word in ("minLength", "minItems"):
        if size is not None and size < schema.get(word, size):
            return [
                (path, "FieldValueInvalid", f"Invalid value: {shown}: {path} in body should be at least {schema[word]} long")
            ]
    return []


def _wrong_type(path: str, value: Any, wanted: str) -> Cause:
    names = {bool: "boolean", dict: "object", list: "array", str: "string", int: "integer", float: "number"}
    given = names.get(type(value), "null")
    message = f'Invalid value: "{given}": {path} in body must be of type {wanted}: "{given}"'
    return (path, "FieldValueTypeInvalid", message)
