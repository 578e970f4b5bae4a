"""Loaders of the package data. pyarrow is imported when a Parquet table is first asked for."""

import functools
from collections.abc import Iterator, Mapping
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from tritower.vocabulary.text import key, normalise

if TYPE_CHECKING:
    import pyarrow as pa


LEVELS = ("trainee", "entry", "middle", "senior", "lead", "manager", "director", "executive")
"""Names of the seniority levels; the position is the level, so that a distance is a difference of positions."""


class Place(NamedTuple):
    """A city: name, region code ("CA"), region name ("California"), ISO country code, weight (population in thousands)."""

    city: str
    region: str
    region_name: str
    country: str
    weight: int


@functools.cache
def titles() -> "pa.Table":
    """Job titles that have an occupation (O*NET and SOC 2018), about 60,000 rows sorted by (occupation, kind, title).

    Columns: `title` as written; `occupation`, an O*NET-SOC code such as "29-1141.00"; `occupation_title`; `kind`, one of
    "occupation" (the occupation's own name), "alternate", "reported" (by people who hold the job); `short`, an acronym
    of the title such as "CTT", or null.
    """
    return _parquet("titles.parquet")


@functools.cache
def other_titles() -> "pa.Table":
    """Further job titles, without an O*NET-SOC code.

    Columns: `title`; `source`, "esco" or "find-job-titles"; `group`, the ISCO-08 group of an ESCO title, or null.
    """
    return _parquet("other_titles.parquet")


@functools.cache
def skills() -> "pa.Table":
    """Skills and tools.

    Columns: `skill`; `kind`, "technology" or "skill"; `hot`, often asked for in adverts (O*NET); `short`, an acronym or null.
    """
    return _parquet("skills.parquet")


@functools.cache
def descriptions() -> "pa.Table":
    """What people of each occupation do (O*NET): `occupation`, `description` of one to four sentences."""
    return _parquet("descriptions.parquet")


@functools.cache
def title_tokens() -> "pa.Table":
    """Tokens of job titles tagged by three experts (IPOD): `token`, `tag` (RES, FUN, LOC or O, the majority), `votes` of 3."""
    return _parquet("title_tokens.parquet")


@functools.cache
def places(country: str = "US") -> tuple[Place, ...]:
    """Cities of a country (ISO code), largest first for the United States; `country=""` gives all countries."""
    names = dict(_rows("regions_us.txt"))
    states = [Place(city, code, names[code], "US", int(weight)) for city, code, weight in _rows("places_us.txt")]
    world = [Place(city, code, name, land, int(weight)) for city, code, name, land, weight in _rows("places_world.txt")]
    return tuple(place for place in states + world if country in ("", place.country))


@functools.cache
def coordinates() -> Mapping[tuple[str, str], tuple[float, float]]:
    """(City, state code) of the United States' `places` -> latitude and longitude in degrees, right to a kilometre."""
    rows = _rows("coordinates_us.txt")
    return MappingProxyType({(city, code): (float(north), float(east)) for city, code, north, east in rows})


@functools.cache
def regions() -> Mapping[str, str]:
    """State code -> state name of the United States, with the District of Columbia."""
    return MappingProxyType(dict(_rows("regions_us.txt")))


@functools.cache
def abbreviations() -> Mapping[str, tuple[str, ...]]:
    """Normalised short form -> expansions, the likeliest first: "rn" -> ("registered nurse",)."""
    return MappingProxyType({normalise(short): tuple(expansions) for short, *expansions in _rows("abbreviations.txt")})


@functools.cache
def misspellings() -> Mapping[str, str]:
    """Normalised slip or foreign spelling -> what was meant: "wharehouse" -> "warehouse"."""
    return MappingProxyType({normalise(written): normalise(meant) for written, meant in _rows("misspellings.txt")})


@functools.cache
def seniorities() -> tuple[tuple[str, int], ...]:
    """(word or phrase, level): 0 trainee, 1 entry, 2 middle, 3 senior, 4 lead, 5 manager, 6 director, 7 executive."""
    return tuple((phrase, int(level)) for phrase, level in _rows("seniorities.txt"))


@functools.cache
def employment_types() -> Mapping[str, str]:
    """Word or phrase -> canonical employment type, shift or workplace: "pt" -> "part time"."""
    return MappingProxyType(dict(_rows("employment_types.txt")))


@functools.cache
def qualifications() -> Mapping[str, str]:
    """Word or phrase -> canonical qualification, licence or certificate: "class a cdl" -> ..."""
    return MappingProxyType(dict(_rows("qualifications.txt")))


@functools.cache
def companies() -> tuple[str, ...]:
    """Large employers, as people write their names; a data set brings its own."""
    return tuple(name for (name,) in _rows("companies.txt"))


@functools.cache
def fields_of_work() -> tuple[str, ...]:
    """Fields of work and units one can be trained in ("payroll", "wound care"): skills that no tool list has."""
    return tuple(name for (name,) in _rows("fields.txt"))


@functools.cache
def tools() -> tuple[str, ...]:
    """Tools and skills by the plain names people use ("excel", "aws"): all of them worth taking on their own."""
    return tuple(name for (name,) in _rows("tools.txt"))


@functools.cache
def title_heads() -> frozenset[str]:
    """Lookup keys of words that end a job title ("manager", "nurse") beside the one-word titles of the lists."""
    return frozenset(key(word) for (word,) in _rows("heads.txt"))


@functools.cache
def not_titles() -> frozenset[str]:
    """Lookup keys of one-word entries of the title lists that usually mean something else ("counter", "general")."""
    return frozenset(key(word) for (word,) in _rows("not_titles.txt"))


@functools.cache
def stop_words() -> frozenset[str]:
    """Normalised words that carry no meaning of their own in a title or a query."""
    return frozenset(word for (word,) in _rows("stop_words.txt"))


def _rows(name: str) -> Iterator[list[str]]:
    text = resources.files(__package__).joinpath("data", name).read_text(encoding="utf-8")
    for line in text.splitlines():
        if line and not line.startswith("# "):
            yield line.split("|")


def _parquet(name: str) -> "pa.Table":
    import pyarrow.parquet as pq

    with resources.as_file(resources.files(__package__).joinpath("data", name)) as path:
        return pq.read_table(path)
