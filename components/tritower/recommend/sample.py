"""Which searches of the log are answered."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tritower.errors import DataError

Ints = NDArray[np.int64]


def by_id(request_ids: Sequence[str], wanted: Sequence[str]) -> Ints:
    """The request numbers of the wanted ids, ascending.

    Args:
        request_ids: every request's id; position = request number.
        wanted: the ids asked for.

    Raises:
        DataError: an id is not in the log.
    """
    number = {request_id: request for request, request_id in enumerate(request_ids)}
    unknown = [request_id for request_id in wanted if request_id not in number]
    if unknown:
        raise DataError(
            f"no request has the id {unknown[0]!r}",
            where="request_ids",
            remedy="Give ids that occur in the impressions, or leave `request_ids` out to draw a sample.",
        )
    return np.unique([number[request_id] for request_id in wanted])


def latest(requests: Ints, *, count: int, share: float, seed: int) -> Ints:
    """`count` of the latest `share` of the requests, drawn without replacement and ascending; all of them if fewer.

    Args:
        requests: request numbers in time order.
    """
    pool = requests[len(requests) - max(1, round(share * len(requests))) :]
    if len(pool) <= count:
        return pool
    drawn: Ints = np.sort(np.random.default_rng(seed).choice(pool, size=count, replace=False))
    return drawn


def latest_per_user(requests: Ints, users: Ints) -> Ints:
    """The last request of every user, ascending.

    Args:
        requests: request numbers in time order.
        users: the user of each.
    """
    _, last = np.unique(users[::-1], return_index=True)
    chosen: Ints = np.sort(requests[::-1][last])
    return chosen
