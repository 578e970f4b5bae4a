"""Whose search it was: ids that many people share are no user.

A log writes one id for everybody who is not signed in. Taken as a user, such an id is one draw of thousands of searches, and no
interval means anything. Each search under a shared id counts as a user of its own.

Legend: N rows, R searches.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tritower.evaluation.rows import Rows

NAMES = {
    *("anon", "anonymous", "anonymous_user", "default", "empty", "guest", "guest_user", "logged_out", "loggedout", "n/a", "na"),
    *("nan", "nil", "nobody", "none", "not_logged_in", "not_set", "(not_set)", "null", "public", "signed_out", "undefined"),
    *("unknown", "unknown_user", "unregistered", "visitor", "_1"),
}
"""Ids that stand for nobody, in lower case, with underscores for blanks and hyphens."""
SHARE = 0.05
"""Share of the searches that an id must pass to be taken for a shared one by its size alone."""
TIMES = 10
"""So many times the searches of the largest other id, too: a heavy user has neighbours in size, a shared id has none."""
MIN_SEARCHES = 100
"""And at least so many searches, unless no other id is there."""
MOST = 3
"""So many ids at most are shared by their size, such as one for the site and one for the app."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The user numbers that are no user, and what share of the searches is theirs."""

    users: tuple[int, ...]
    searches: int
    share: float


def shared(rows: Rows, named: frozenset[int]) -> Shared:
    """Find the ids that many share.

    Args:
        named: users whose id is one of `NAMES`.
    """
    first = np.flatnonzero(np.diff(rows.request, prepend=rows.request[0] - 1))
    users, count = np.unique(rows.user[first], return_counts=True)
    by_name = np.isin(users, np.array(sorted(named), dtype=users.dtype))
    chosen = [int(user) for user in users[by_name]] + _by_size(users[~by_name], count[~by_name], int(count.sum()))
    searches = int(count[np.isin(users, chosen)].sum())
    return Shared(users=tuple(sorted(chosen)), searches=searches, share=searches / max(int(count.sum()), 1))


def apart(rows: Rows, found: Shared) -> Rows:
    """The same rows; each search of a shared id gets a user number of its own, above all others."""
    if not found.users:
        return rows
    of_shared_N = np.isin(rows.user, np.array(found.users, dtype=rows.user.dtype))
    own_N = np.unique(rows.request, return_inverse=True)[1] + int(rows.user.max()) + 1
    return replace(rows, user=np.where(of_shared_N, own_N, rows.user).astype(np.int32))


def stands_for_nobody(user_id: str) -> bool:
    """Whether an id is one of `NAMES`, or holds nothing but zeros, signs and blanks."""
    plain = user_id.strip().lower().replace("-", "_").replace(" ", "_")
    return plain in NAMES or not plain.strip("0_.")


def _by_size(user_U: npt.NDArray[np.int32], count_U: npt.NDArray[np.int64], searches: int) -> list[int]:
    """The largest ids where a gap of `TIMES` divides them from the rest; an only id is shared, an only pair is not."""
    order = np.argsort(-count_U, kind="stable")
    if len(order) == 1:
        return [int(user_U[0])]
    for many in range(1, min(MOST, len(order) - 1) + 1):
        least, rest = int(count_U[order[many - 1]]), int(count_U[order[many]])
        if least < max(SHARE * searches, MIN_SEARCHES):
            break
        if least >= TIMES * rest:
            return [int(user) for user in user_U[order[:many]]]
    return []
