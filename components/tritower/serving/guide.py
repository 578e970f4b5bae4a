"""What the page says beside the ranking: places to name, searches to try, and what is known of a visitor."""

from dataclasses import dataclass

import pyarrow as pa

from tritower.features.online import OnlineFeatures
from tritower.features.past import Past
from tritower.lookup import Lookup
from tritower.serving.places import Place, Places

_EXAMPLES = 5
_ASKED = 40
"""So many of the busiest users are looked at for examples: some never searched with words."""


@dataclass(frozen=True, kw_only=True)
class Clicked:
    """A job that somebody clicked, at a time in microseconds since 1970; empty texts where the catalogue lacks it."""

    title: str
    company: str
    ts: int


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the features know of a visitor; see `features.past.Past`."""

    past: Past
    clicks: tuple[Clicked, ...]

    def __bool__(self) -> bool:
        return bool(self.past.clicked or self.past.searched or self.past.wanted_titles or self.past.past_titles)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A search to try."""

    query: str
    place: str
    user_id: str


class Guide:
    """Of one bundle, whose jobs and features it asks."""

    def __init__(self, rows: Lookup, jobs: pa.Table, features: OnlineFeatures) -> None:
        """For a catalogue.

        Args:
            rows: the row of each job id.
            jobs: title, company, city, region, country by row.
            features: of the same bundle.
        """
        self._rows, self._jobs, self._features = rows, jobs, features
        self.places = Places(_counted(jobs))
        self._examples: list[Example] | None = None

    def known(self, user_id: str) -> Known:
        """What is known of a visitor; false where nothing is."""
        past = self._features.past(user_id)
        return Known(past=past, clicks=tuple(self._clicked(job_id, ts) for job_id, ts in past.clicks))

    def examples(self) -> list[Example]:
        """The latest searches of users who click much; the same on every call."""
        if self._examples is None:
            self._examples = [found for user_id in self._features.busiest(_ASKED) if (found := self._example(user_id))][
                :_EXAMPLES
            ]
        return self._examples

    def _example(self, user_id: str) -> Example | None:
        past = self._features.past(user_id)
        if not past.searches:
            return None
        rows = [row for job_id, _ in past.clicks if (row := self._row(job_id)) is not None]
        city, region = (self._jobs[name][rows[0]].as_py() if rows else None for name in ("city", "region"))
        return Example(query=past.searches[0][0], place=str(Place(city=city, region=region)), user_id=user_id)

    def _row(self, job_id: str) -> int | None:
        row = self._rows.find(job_id)
        return row if 0 <= row < len(self._jobs) else None

    def _clicked(self, job_id: str, ts: int) -> Clicked:
        row = self._row(job_id)
        title, company = ("" if row is None else self._jobs[name][row].as_py() for name in ("title", "company"))
        return Clicked(title=title or "", company=company or "", ts=ts)


def _counted(jobs: pa.Table) -> dict[tuple[str | None, str | None, str | None], int]:
    """How many jobs each place has, in the order of first jobs; a million jobs are not made Python's strings for it."""
    levels = ["city", "region", "country"]
    found = jobs.select(levels).group_by(levels, use_threads=False).aggregate([([], "count_all")])
    places = zip(*(found[name].to_pylist() for name in levels), strict=True)
    return dict(zip(places, found["count_all"].to_pylist(), strict=True))
