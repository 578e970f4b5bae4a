"""Conditions of jobs: a set, of which each type stands once."""

from typing import Any

from tests.support.apiserver.store import now

Object = dict[str, Any]


def has(status: Object, type_: str) -> bool:
    """A condition of this type is True."""
    return any(one["type"] == type_ and one["status"] == "True" for one in status.get("conditions", []))


def put(status: Object, type_: str, reason: str, message: str, *, is_true: bool = True) -> None:
    """Set a condition as the training operator does: Running and Restarting displace each other, the end makes Running False.

    After Succeeded or Failed nothing changes any more.
    """
    if has(status, "Succeeded") or has(status, "Failed"):
        return
    conditions = status.setdefault("conditions", [])
    new = {"type": type_, "status": "True" if is_true else "False", "reason": reason, "message": message}
    new |= {"lastUpdateTime": now(), "lastTransitionTime": now()}
    old = next((one for one in conditions if one["type"] == type_), None)
    if old and (old["status"], old["reason"]) == (new["status"], reason):
        return
    if old and old["status"] == new["status"]:
        new["lastTransitionTime"] = old["lastTransitionTime"]
    displaced = {type_, {"Running": "Restarting", "Restarting": "Running"}.get(type_, "") if is_true else ""}
    kept = [one for one in conditions if one["type"] not in displaced]
    if type_ in ("Succeeded", "Failed", "MetricsUnavailable"):
        kept = [one | {"status": "False"} if one["type"] == "Running" else one for one in kept]
    status["conditions"] = [*kept, new]
