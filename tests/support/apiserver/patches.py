"""Change an object by a part of it: merge patch (RFC 7396) and JSON patch (RFC 6902: add, replace, remove, test)."""

import copy
from typing import Any

from tests.support.apiserver import answers

Object = dict[str, Any]
JSON, MERGE, STRATEGIC, APPLY = (
    "application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)  # fmt: skip


def check_type(content_type: str, *, is_custom: bool) -> None:
    """Raises: Refused: 415 for a way to patch that is none, or (STRATEGIC) none of custom resources."""
    if content_type not in (JSON, MERGE, APPLY, *(() if is_custom else (STRATEGIC,))):
        accepted = f"{JSON}, {MERGE}, {APPLY}"
        message = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
        raise answers.Refused(415, "UnsupportedMediaType", message)


def patched(item: Object, patch: Any, content_type: str) -> Object:
    """The object with the patch applied. A strategic patch replaces lists as a merge patch does. Raises: Refused: 400, 422."""
    if content_type == JSON and isinstance(patch, list):
        return _by_operations(copy.deepcopy(item), patch)
    if not isinstance(patch, dict):
        why = "json: cannot unmarshal array into Go value of type map[string]interface {}"
        raise answers.bad_request(f"error decoding patch: {why}")
    return dict(_merged(item, patch))


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    whole = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            whole.pop(key, None)
        else:
            whole[key] = _merged(whole.get(key), value)
    return whole


def _by_operations(item: Object, patch: list[Object]) -> Object:
    for step in patch:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        try:
            home: Any = item
            for part in way:
                home = home[int(part)] if isinstance(home, list) else home[part]
            _apply(home, last, step)
        except (KeyError, IndexError, ValueError, TypeError):
            message = f"the server rejected our request due to an error in our request: {step['op']} {step['path']}"
            raise answers.Refused(422, "Invalid", message) from None
    return item


def _apply(home: Any, last: str, step: Object) -> None:
    if isinstance(home, list):
        at = len(home) if last == "-" else int(last)
        if step["op"] == "add":
            home.insert(at, step["value"])
        elif step["op"] == "replace":
            home[at] = step["value"]
        elif step["op"] == "remove":
            del home[at]
        elif home[at] != step["value"]:
            raise ValueError
    elif step["op"] == "add":
        home[last] = step["value"]
    elif step["op"] == "remove":
        del home[last]
    elif step["op"] == "replace":
        home[last]
        home[last] = step["value"]
    elif home[last] != step["value"]:
        raise ValueError
