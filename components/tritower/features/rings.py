"""The latest few things each user did, as vectors to compare a candidate with.

A user gets a slot at the first event; a slot is a ring of H items with their times. When a row asks, the vectors of the ring
are widened to float32 once per request (rows of a request follow one another) and stay in the first-level cache.

Legend: U users, S slots, H items remembered, T texts, D dimensions.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tritower.features.half import products, widen

Array = npt.NDArray[Any]


class Rings(NamedTuple):
    """The state; `used_1` is the number of slots taken, `count_S` counts all items ever put into a slot."""

    slot_U: Array
    count_S: Array
    item_SH: Array
    ts_SH: Array
    used_1: Array


class Vectors(NamedTuple):
    """Unit vectors as bits of float16: those of the dataset's texts, then those that only a continued state knows."""

    matrix_TD: Array
    extra_XD: Array


class Open(NamedTuple):
    """One ring, widened: vectors and weights newest first, their weighted sum, room for products and for the items' traits."""

    vector_HD: Array
    weight_H: Array
    sum_D: Array
    product_H: Array
    trait_4H: Array


def empty(users: int, items: int) -> Rings:
    """Rings of `items` for `users` users, no slot taken."""
    return Rings(
        slot_U=np.full(max(users, 1), -1, np.int32),
        count_S=np.zeros(1024, np.int64),
        item_SH=np.zeros((1024, items), np.int32),
        ts_SH=np.zeros((1024, items), np.int64),
        used_1=np.zeros(1, np.int64),
    )


def reserve(rings: Rings, slots: int) -> Rings:
    """Rings with room for `slots` more slots; growth doubles, so that its cost is spread."""
    have, need = len(rings.count_S), int(rings.used_1[0]) + slots
    if need <= have:
        return rings
    more = max(need - have, have)
    return rings._replace(
        count_S=np.concatenate([rings.count_S, np.zeros(more, np.int64)]),
        item_SH=np.concatenate([rings.item_SH, np.zeros((more, rings.item_SH.shape[1]), np.int32)]),
        ts_SH=np.concatenate([rings.ts_SH, np.zeros((more, rings.ts_SH.shape[1]), np.int64)]),
    )


@njit(cache=True)
def remember(rings: Rings, user: int, item: int, ts: int) -> None:
    """Put an item into the user's ring, over the oldest."""
    if rings.slot_U[user] < 0:
        rings.slot_U[user] = rings.used_1[0]
        rings.used_1[0] += 1
    slot = rings.slot_U[user]
    at = rings.count_S[slot] % rings.item_SH.shape[1]
    rings.item_SH[slot, at] = item
    rings.ts_SH[slot, at] = ts
    rings.count_S[slot] += 1


@njit(cache=True, inline="always")
def place(rings: Rings, slot: Any, h: Any) -> Any:
    """Column of the h-th newest item of a slot."""
    return (rings.count_S[slot] - 1 - h) % rings.item_SH.shape[1]


@njit(cache=True, fastmath=True)
def widen_ring(rings: Rings, slot: Any, vectors: Vectors, text_of: Array, half_life_us: float, ring: Open) -> tuple[Any, Any]:
    """Widen a ring's vectors; return how many it holds and the length of their sum weighted 2^(-age / half-life).

    Ages are taken from the newest item, which scales all weights alike and changes no cosine.
    """
    held = min(rings.count_S[slot], rings.item_SH.shape[1])
    newest = rings.ts_SH[slot, place(rings, slot, 0)]
    ring.sum_D[:] = 0.0
    for h in range(held):
        at = place(rings, slot, h)
        text = text_of[rings.item_SH[slot, at]]
        if text < vectors.matrix_TD.shape[0]:
            widen(vectors.matrix_TD, text, ring.vector_HD, h)
        else:
            widen(vectors.extra_XD, text - vectors.matrix_TD.shape[0], ring.vector_HD, h)
        weight = np.float32(np.exp2((rings.ts_SH[slot, at] - newest) / half_life_us))
        ring.weight_H[h] = weight
        for d in range(ring.sum_D.shape[0]):
            ring.sum_D[d] += weight * ring.vector_HD[h, d]
    square = np.float32(0.0)
    for d in range(ring.sum_D.shape[0]):
        square += ring.sum_D[d] * ring.sum_D[d]
    return held, np.sqrt(square)


@njit(cache=True)
def clip(cosine: Any) -> Any:
    """Rounding may leave a cosine just outside [-1, 1]."""
    return min(np.float32(1.0), max(np.float32(-1.0), np.float32(cosine)))


@njit(cache=True, fastmath=True)
def cosines(
    matrix_TD: Array, row: Any, held: Any, length: Any, vector_HD: Array, weight_H: Array, product_H: Array
) -> tuple[Any, Any, Any]:
    """Cosine of a row of halves with the ring's weighted sum, the largest with any item, and that with the newest.

    The sum needs no product of its own: it is the weighted sum of the items' products.
    """
    products(matrix_TD, row, vector_HD, held, product_H)
    total, best = np.float32(0.0), np.float32(-2.0)
    for h in range(held):
        total += weight_H[h] * product_H[h]
        best = max(best, product_H[h])
    return clip(total / length if length > 0.0 else 0.0), clip(best), clip(product_H[0])
