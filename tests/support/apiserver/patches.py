"""Change an object by a part of it: merge patch (RFC 7396), JSON patch (RFC 6902: add, replace, remove, test), and apply on the
server, which knows the owners of fields."""

import copy
from collections.abc import Iterator
from typing import Any

from tests.support.apiserver import answers

Object = dict[str, Any]
JSON, MERGE, STRATEGIC, APPLY = (
    "application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)  # fmt: skip


_ATOMIC = ("selector", "labelSelector", "nodeSelector")
"""Maps that have one owner as a whole."""


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


def applied(old: Object, part: Object, manager: str, *, force: bool) -> Object:
    """Server-side apply: who set a field owns it, and what an owner no longer names goes. A list is one field here, and so is
    a selector.

    Raises: Refused: 409, for a field that another manager owns with another value.
    """
    new, fields = copy.deepcopy(old), dict(_leaves(part))
    owners = _owners(old)
    mine = owners.pop((manager, "Apply"), set())
    fights = [
        (who, path)
        for (who, _), paths in owners.items()
        for path in sorted(paths & fields.keys())
        if _at(old, path) != fields[path]
    ]
    if fights and not force:
        what = "1 conflict" if len(fights) == 1 else f"{len(fights)} conflicts"
        told = ", ".join(f'conflict with "{who}" using {old["apiVersion"]}: .{".".join(path)}' for who, path in fights)
        raise answers.Refused(409, "Conflict", f"Apply failed with {what}: {told}")
    owners = {who: paths - {path for _, path in fights} for who, paths in owners.items()}
    for path in mine - fields.keys() - set().union(*owners.values()):
        _remove(new, path)
    for path, value in fields.items():
        _put(new, path, value)
    return _owned(new, {**owners, (manager, "Apply"): set(fields)})


def noted(old: Object, new: Object, manager: str) -> Object:
    """The object after an update: what changed in it is the manager's."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    changed = {path for path, value in after.items() if before.get(path) != value}
    owners = {who: paths - changed for who, paths in _owners(old).items()}
    owners[manager, "Update"] = owners.get((manager, "Update"), set()) | changed
    return _owned(new, owners)


def _leaves(item: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in item.items():
        here = (*path, key)
        if here in (("apiVersion",), ("kind",), ("status",)) or (
            path == ("metadata",) and key not in ("labels", "annotations")
        ):
            continue
        if isinstance(value, dict) and value and key not in _ATOMIC:
            yield from _leaves(value, here)
        else:
            yield here, value


def _owners(item: Object) -> dict[tuple[str, str], set[tuple[str, ...]]]:
    found = item["metadata"].get("managedFields", [])
    return {(one["manager"], one["operation"]): {tuple(path) for path in one["fieldsV1"]["paths"]} for one in found}


def _owned(item: Object, owners: dict[tuple[str, str], set[tuple[str, ...]]]) -> Object:
    fields = [
        {"manager": who, "operation": how, "fieldsV1": {"paths": [list(path) for path in sorted(paths)]}}
        for (who, how), paths in sorted(owners.items())
        if paths
    ]
    return item | {"metadata": item["metadata"] | {"managedFields": fields}}


def _at(item: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        item = item.get(key) if isinstance(item, dict) else None
    return item


def _put(item: Object, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        if not isinstance(item.get(key), dict):
            item[key] = {}
        item = item[key]
    item[path[-1]] = copy.deepcopy(value)


def _remove(item: Object, path: tuple[str, ...]) -> None:
    home = _at(item, path[:-1])
    if isinstance(home, dict):
        home.pop(path[-1], None)


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
