"""Kubernetes' quantities, such as `500m` and `16Gi`."""

import re

_FACTORS = {
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


def value(text: str) -> float:
    """The number that a quantity stands for; 0 for what is none."""
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    return float(found[1]) * _FACTORS.get(found[2], 0.0) if found else 0.0
