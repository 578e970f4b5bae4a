"""The latest few things each user did, as vectors to compare a candidate with.

A user gets a slot at the first event; a slot is a ring of H items with their times. When a row asks, the vectors of the ring
are widened to float32 once per request (rows of a request follow one another) and stay in the first-level cache.

Legend: U users, S slots, H items remembered, T texts, D dimensions.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tritower.half import widen
from tritower.numba_cache import njit

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
    product_2H: Array
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


def with_users(rings: Rings, users: int) -> Rings:
    """Rings for `users` users, the further ones without a slot."""
    if users == len(rings.slot_U):
        return rings
    more = np.full(users - len(rings.slot_U), -1, np.int32)
    return rings._replace(slot_U=np.concatenate([rings.slot_U, more]))


def of_user(rings: Rings, user: int) -> Rings:
    """A copy of one user's ring (-1 = without a slot), as user 0 of two."""
    slot = int(rings.slot_U[user]) if user >= 0 else -1
    held = slice(slot, slot + 1) if slot >= 0 else slice(0, 0)
    return Rings(
        slot_U=np.array([0 if slot >= 0 else -1, -1], np.int32),
        count_S=rings.count_S[held].copy(),
        item_SH=rings.item_SH[held].copy(),
        ts_SH=rings.ts_SH[held].copy(),
        used_1=np.array([int(slot >= 0)]),
    )


def given(events: Sequence[tuple[int, int]], items: int) -> Rings:
    """A ring that took (time, item) pairs in the order of time, as user 0 of two; of no event none."""
    held = int(bool(events))
    item_SH, ts_SH = np.zeros((held, items), np.int32), np.zeros((held, items), np.int64)
    for number, (ts, item) in enumerate(sorted(events, key=lambda event: event[0])):
        item_SH[0, number % items], ts_SH[0, number % items] = item, ts
    count_S = np.full(held, len(events), np.int64)
    return Rings(np.array([held - 1, -1], np.int32), count_S, item_SH, ts_SH, np.array([held]))


# The passes take a tuple's arrays apart once: numba counts a reference for each field that is read.


@njit(cache=True, forceinline=True)
def remember(slot_U: Array, count_S: Array, item_SH: Array, ts_SH: Array, used_1: Array, user: Any, item: Any, ts: Any) -> None:
    """Put an item into the user's ring, over the oldest."""
    if slot_U[user] < 0:
        slot_U[user] = used_1[0]
        used_1[0] += 1
    slot = np.int64(slot_U[user])
    at = count_S[slot] % item_SH.shape[1]
    item_SH[slot, at] = item
    ts_SH[slot, at] = ts
    count_S[slot] += 1


@njit(cache=True, forceinline=True)
def column(count: Any, items: Any, h: Any) -> Any:
    """Column of the h-th newest item of a ring of `items` that took `count`."""
    return (count - 1 - h) % items


# No fastmath in what follows: it would let the order of a sum, and with it the last bit, depend on the processor.


@njit(cache=True)
def widen_ring(
    item_SH: Array, ts_SH: Array, slot: Any, count: Any, matrix_TD: Array, extra_XD: Array, text_of: Array, half_life_us: float,
    vector_HD: Array, weight_H: Array, sum_D: Array,
) -> tuple[Any, Any]:  # fmt: skip
    """Widen a ring's vectors; return how many it holds and the length of their sum weighted 2^(-age / half-life).

    Ages are taken from the newest item, which scales all weights alike and changes no cosine.
    """
    items = item_SH.shape[1]
    held = min(count, items)
    newest = ts_SH[slot, column(count, items, 0)]
    sum_D[:] = 0.0
    for h in range(held):
        at = column(count, items, h)
        text = text_of[item_SH[slot, at]]
        if text < matrix_TD.shape[0]:
            widen(matrix_TD, text, vector_HD, h)
        else:
            widen(extra_XD, text - matrix_TD.shape[0], vector_HD, h)
        weight = np.float32(np.exp2((ts_SH[slot, at] - newest) / half_life_us))
        weight_H[h] = weight
        for d in range(sum_D.shape[0]):
            sum_D[d] += weight * vector_HD[h, d]
    square = 0.0
    for d in range(sum_D.shape[0]):
        square += np.float64(sum_D[d]) * sum_D[d]
    return held, np.sqrt(square)


@njit(cache=True, forceinline=True)
def clip(cosine: Any) -> Any:
    """Rounding may leave a cosine just outside [-1, 1]."""
    return min(np.float32(1.0), max(np.float32(-1.0), np.float32(cosine)))


@njit(cache=True, forceinline=True)
def cosines(product_2H: Array, which: Any, held: Any, length: Any, weight_H: Array) -> tuple[Any, Any, Any]:
    """A row's cosine with the ring's weighted sum, the largest with any item, and that with the newest, from `half.products`.

    The sum needs no product of its own: it is the weighted sum of the items' products.
    """
    total, best = np.float32(0.0), np.float32(-2.0)
    for h in range(held):
        total += weight_H[h] * product_2H[which, h]
        best = max(best, product_2H[which, h])
    return clip(total / length if length > 0.0 else 0.0), clip(best), clip(product_2H[which, 0])
