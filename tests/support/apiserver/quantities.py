"""Quantities: `500m`, `64Mi`, `2`, as numbers."""

import re
from typing import Any

Object = dict[str, Any]
_UNITS = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}


def number(quantity: str | int | float) -> float:
    found = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(quantity))
    if not found:
        raise ValueError(f"no quantity: {quantity!r}")
    return float(found[1]) * _UNITS[found[2]]


def text(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{round(value * 1000)}m"


def of_pod(spec: Object, resource: str) -> float:
    """What a pod asks for of a resource: the sum over its containers of requests, else limits."""
    total = 0.0
    for container in spec.get("containers", []):
        own = container.get("resources") or {}
        total += number((own.get("requests") or {}).get(resource, (own.get("limits") or {}).get(resource, 0)))
    return total
