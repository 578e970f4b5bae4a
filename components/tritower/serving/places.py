"""The places of the catalogue, found by what somebody typed: "Austin, TX", "austin", "TX"."""

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tritower.features.live import clean

_MOST_NAMED = 200
"""Places that a list of suggestions has."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A city in its region and country, or one of these alone; None = not told."""

    city: str | None = None
    region: str | None = None
    country: str | None = None

    def __str__(self) -> str:
        return ", ".join(word for word in (self.city, self.region) if word) or self.country or ""


class Places:
    """Every way to name a place that a job has. Where two places have one name, that with more jobs has it."""

    def __init__(
        self,
        rows: Iterable[tuple[str | None, str | None, str | None]] | Mapping[tuple[str | None, str | None, str | None], int],
    ) -> None:
        """Of the jobs: the city, region and country of each, or how many jobs each place has."""
        counts = collections.Counter(rows)
        self._place_by_name: dict[str, Place] = {}
        for (city, region, country), _ in counts.most_common():
            whole = Place(city=city, region=region, country=country)
            around = Place(region=region, country=country)
            for words, place in (
                ((city, region, country), whole), ((city, region), whole), ((city, country), whole), ((city,), whole),
                ((region, country), around), ((region,), around), ((country,), Place(country=country)),
            ):  # fmt: skip
                if words[0] and (name := _name(words)):
                    self._place_by_name.setdefault(name, place)
        cities = (
            Place(city=city, region=region, country=country) for (city, region, country), _ in counts.most_common() if city
        )
        self.named: list[str] = list(dict.fromkeys(map(str, cities)))[:_MOST_NAMED]
        """The cities with the most jobs, most first."""

    def find(self, text: str) -> Place | None:
        """The place that a text names; None where no job has it."""
        return self._place_by_name.get(_name(text.split(",")))


def _name(words: Iterable[str | None]) -> str:
    return ",".join(word for word in (clean(part).casefold() for part in words) if word)
