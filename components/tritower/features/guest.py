"""Somebody who searches and is described in the request, in the numbers of the live tables.

What the tables do not know (a title, a search) is numbered for this request only, from `UNNUMBERED` on.

Legend: C clicks, S searches, X texts that have no number, D dimensions.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tritower.features import entities as found_entities
from tritower.features import rings
from tritower.features.live import LiveTables, clean
from tritower.features.strings import UNNUMBERED, normalised

Int32 = npt.NDArray[np.int32]
Describe = Callable[[Sequence[str]], tuple[npt.NDArray[np.uint16], pa.Table | None]]
"""Texts in, their vectors (X, D) as bits of float16 and their entities out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guest:
    """A person by what is known of them, in words.

    Attributes:
        wanted_titles, past_titles: of the profile.
        clicks: job ids and times (microseconds since 1970), in any order. A job that the tables lack counts for nothing.
        searches: texts and times, in any order; blank ones count for nothing.
    """

    wanted_titles: tuple[str, ...] = ()
    past_titles: tuple[str, ...] = ()
    clicks: tuple[tuple[str, int], ...] = ()
    searches: tuple[tuple[str, int], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts of one request: those that have no number are -2, -3, ...; `at` finds them.

    Attributes:
        vector_XD: bits of float16.
        plain_X: numbers of their plain forms; new ones from `UNNUMBERED` on, -1 = blank.
        level_X: the highest level of seniority that each names, -1 = none.
        plain: the new plain forms.
    """

    vector_XD: npt.NDArray[np.uint16]
    plain_X: Int32
    level_X: npt.NDArray[np.int8]
    plain: list[str]

    @staticmethod
    def at(text_T: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where such texts stand in a list, and which of the X each of them is."""
        place = np.flatnonzero(text_T < -1)
        return place, (-2 - text_T[place]).astype(np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbered:
    """A guest in numbers, as of the request's time: the past as rings, and the profile as texts."""

    clicked: rings.Rings
    searched: rings.Rings
    wanted: Int32
    past: Int32
    texts: Texts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Described:
    """The texts of a guest that have no number: each once, its vector and its entities."""

    number: dict[str, int]
    vector_XD: npt.NDArray[np.uint16]
    rows: pa.Table | None


def describe(guest: Guest, live: LiveTables, describe_texts: Describe) -> Described:
    """Describe what the tables lack."""
    given = [*guest.wanted_titles, *guest.past_titles, *(text for text, _ in guest.searches)]
    texts = [text for text in dict.fromkeys(map(clean, given)) if text and live.text(text) < 0]
    vector_XD, rows = describe_texts(texts)
    return Described(number={text: -2 - x for x, text in enumerate(texts)}, vector_XD=vector_XD, rows=rows)


def number(
    guest: Guest, described: Described, live: LiveTables, now: int, plain_query: str, sizes: tuple[int, int]
) -> Numbered:
    """In numbers. What has got a number since it was described keeps its description, which is the same.

    Args:
        guest: the person.
        described: of what the tables lacked.
        live: the tables.
        now: only what lies strictly before counts.
        plain_query: plain form of the request's query.
        sizes: clicks and searches that a ring remembers.
    """
    clicks = [(ts, int(live.jobs.find(job_id))) for job_id, ts in guest.clicks if ts < now]
    searches = [(ts, _text(text, described, live)) for text, ts in guest.searches if ts < now and normalised(clean(text))]
    plain = {plain_query: UNNUMBERED} if plain_query else {}

    def plain_number(text: str) -> int:
        form = normalised(text)
        known = live.plain.find(form) if form else -1
        return known if known >= 0 or not form else plain.setdefault(form, UNNUMBERED + len(plain))

    count = len(described.number)
    texts = Texts(
        vector_XD=described.vector_XD,
        plain_X=np.array([plain_number(text) for text in described.number], np.int32),
        level_X=_levels(described.rows, count),
        plain=list(plain),
    )
    return Numbered(
        clicked=rings.given([(ts, job) for ts, job in clicks if job >= 0], sizes[0]),
        searched=rings.given(searches, sizes[1]),
        wanted=_listed(guest.wanted_titles, described, live),
        past=_listed(guest.past_titles, described, live),
        texts=texts,
    )


def _text(text: str, described: Described, live: LiveTables) -> int:
    cleaned = clean(text)
    return described.number.get(cleaned, live.text(cleaned))


def _listed(titles: Iterable[str], described: Described, live: LiveTables) -> Int32:
    """Titles as texts, without blank ones."""
    return np.array([_text(title, described, live) for title in titles if normalised(clean(title))], np.int32)


def _levels(rows: pa.Table | None, texts: int) -> npt.NDArray[np.int8]:
    if rows is None or not texts:
        return np.full(texts, found_entities.UNKNOWN, np.int8)
    return found_entities.of_texts(rows, found_entities.numberer({}), texts).level_T
