"""Figures of several seeds as one."""

import statistics
from typing import Any


def pooled(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over seeds of a lift, with the 95 % interval of that mean: seeds are independent, their variances add.

    The ends are null where the lift of a seed cannot be judged, with the `reason` of the first such seed.
    """
    values = [part["value"] for part in parts]
    value = None if None in values else statistics.mean(values)
    unjudged = [part for part in parts if part["low"] is None or part["high"] is None]
    if unjudged or value is None:
        reason = next((part["reason"] for part in unjudged if "reason" in part), "too few clicks")
        return {"value": value, "low": None, "high": None, "reason": reason}
    half = sum(((part["high"] - part["low"]) / 2) ** 2 for part in parts) ** 0.5 / len(parts)
    return {"value": value, "low": value - half, "high": value + half}
