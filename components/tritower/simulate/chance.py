"""Random numbers as a function of where they are used.

A streamed generator must not let the size of its batches change a value. `uniform` hashes (seed, purpose, row, slot) with
the SplitMix64 finaliser (Steele, Lea & Flood, 2014), so any number can be drawn alone, in any order and in any batch.
"""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SLOT = np.uint64(0xD1B54A32D192ED03)
Floats = NDArray[np.float64]


def key(seed: int, purpose: str) -> np.uint64:
    """The stream of one purpose under one seed."""
    return np.uint64(_mix(np.array([seed], np.uint64) * _GOLDEN + np.uint64(zlib.crc32(purpose.encode())))[0])


def generator(seed: int, purpose: str) -> np.random.Generator:
    """A sequential generator for tables that are built whole (the world)."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def uniform(stream: np.uint64, row: NDArray[Any], slot: NDArray[Any] | None = None) -> Floats:
    """Uniform numbers in [0, 1) with 53 random bits: one per row, or (rows, slots) where `slot` is given."""
    x = _mix(row.astype(np.uint64) * _GOLDEN + stream)
    if slot is not None:
        x = _mix(x[:, None] + (slot.astype(np.uint64) + np.uint64(1))[None, :] * _SLOT)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(stream: np.uint64, row: NDArray[Any], slot: NDArray[Any] | None = None) -> Floats:
    """Nearly normal numbers, mean 0 and variance 1: the sum of three uniforms (range -3 to 3), which needs no logarithm."""
    x = _mix(row.astype(np.uint64) * _GOLDEN + stream)
    if slot is not None:
        x = _mix(x[:, None] + (slot.astype(np.uint64) + np.uint64(1))[None, :] * _SLOT)
    third = np.uint64((1 << 21) - 1)
    total = (x & third) + ((x >> np.uint64(21)) & third) + ((x >> np.uint64(42)) & third)
    return np.asarray(total.astype(np.float64) * (2.0 / 2**21) - 3.0)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
