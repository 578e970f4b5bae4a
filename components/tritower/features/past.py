"""What the features of a user's past rest on, in names: for a page that shows it, never for a score."""

from dataclasses import dataclass

import numpy as np

from tritower.features import rings
from tritower.features.feature_state import FeatureState
from tritower.features.live import LiveTables, user_lists
from tritower.features.timeline import Rows
from tritower.lookup import Lookup


@dataclass(frozen=True, kw_only=True)
class Past:
    """One user's.

    Attributes:
        clicks: job ids and times (microseconds since 1970, UTC) of the clicks remembered, newest first.
        clicked: all clicks counted.
        searches: texts and times of the searches remembered, newest first; blank ones are not among them.
        searched: all searches counted.
        wanted_titles, past_titles: of the profile.
    """

    clicks: tuple[tuple[str, int], ...] = ()
    clicked: int = 0
    searches: tuple[tuple[str, int], ...] = ()
    searched: int = 0
    wanted_titles: tuple[str, ...] = ()
    past_titles: tuple[str, ...] = ()


def of_user(state: FeatureState, live: LiveTables, user: int) -> Past:
    """The past of a user by number (-1 = never met), with what waits to be counted at the next instant."""
    if user < 0:
        return Past()
    clicks, clicked = _held(rings.of_user(state.history.rings, user))
    searches, searched = _held(rings.of_user(state.searches.rings, user))
    waiting = _of(state.timeline.clicks, user)
    new_clicks = list(zip(waiting.job.tolist(), waiting.clicked_at.tolist(), strict=True))
    queued = _of(state.timeline.impressions, user)
    # The rows of a search share its number.
    last = {
        r: (text, ts) for r, text, ts in zip(queued.request.tolist(), queued.query.tolist(), queued.ts.tolist(), strict=True)
    }
    new_searches = [(text, ts) for text, ts in last.values() if live.tables.texts.plain_T[text] >= 0]
    texts, tables = live.texts, live.tables
    return Past(
        clicks=tuple((live.jobs[job], ts) for job, ts in [*new_clicks[::-1], *clicks]),
        clicked=clicked + len(new_clicks),
        searches=tuple((texts[text], ts) for text, ts in [*new_searches[::-1], *searches]),
        searched=searched + len(new_searches),
        wanted_titles=tuple(texts[text] for text in user_lists(tables.wanted, user).tolist()),
        past_titles=tuple(texts[text] for text in user_lists(tables.past, user).tolist()),
    )


def busiest(state: FeatureState, users: Lookup, most: int) -> list[str]:
    """Ids of the users with the most clicks counted, in falling order; at most `most`."""
    slot_U, count_S = state.history.rings.slot_U, state.history.rings.count_S
    clicks_U = np.where(slot_U >= 0, count_S[slot_U], 0)[: len(users)]
    order = np.argsort(-clicks_U, kind="stable")[:most]
    return [users[user] for user in order.tolist() if clicks_U[user] > 0]


def _held(ring: rings.Rings) -> tuple[list[tuple[int, int]], int]:
    """Items and times, newest first, and the count of all items ever."""
    if ring.slot_U[0] < 0:
        return [], 0
    count, size = int(ring.count_S[0]), ring.item_SH.shape[1]
    columns = [(count - 1 - h) % size for h in range(min(count, size))]
    return [(int(ring.item_SH[0, at]), int(ring.ts_SH[0, at])) for at in columns], count


def _of(rows: Rows, user: int) -> Rows:
    return rows.take(rows.user == user)
