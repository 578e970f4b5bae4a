"""Employers and their adverts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tritower.errors import ConfigError
from tritower.simulate import lexicon
from tritower.simulate.config import SimulateConfig
from tritower.simulate.lexicon import Lexicon
from tritower.simulate.world import Jobs
from tritower.vocabulary import Place

DAY_US = 86_400_000_000

# Industry -> (last words of company names, major groups of the SOC that it mostly hires).
INDUSTRIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "health": (("Health", "Medical Center", "Care Partners", "Clinics", "Hospital Group"), ("29", "31", "21", "19")),
    "logistics": (("Logistics", "Freight", "Trucking", "Distribution", "Express"), ("53", "43")),
    "retail": (("Stores", "Market", "Outfitters", "Retail Group", "Supply"), ("41", "43", "53")),
    "technology": (("Software", "Systems", "Technologies", "Data", "Labs"), ("15", "17", "27")),
    "finance": (("Financial", "Bank", "Insurance", "Capital", "Credit Union"), ("13", "43", "41")),
    "education": (("Schools", "Academy", "College", "Learning"), ("25", "21", "39")),
    "construction": (("Construction", "Builders", "Contracting", "Roofing"), ("47", "49", "17")),
    "manufacturing": (("Manufacturing", "Industries", "Components", "Foods", "Plastics"), ("51", "49", "17", "53")),
    "hospitality": (("Hotels", "Restaurants", "Kitchen", "Resorts", "Catering"), ("35", "37", "39")),
    "public": (("County", "City Services", "State Agency", "Public Works"), ("33", "23", "21", "43", "37")),
    "energy": (("Energy", "Power", "Oil and Gas", "Solar"), ("47", "49", "51", "17", "45")),
    "staffing": (("Staffing", "Recruiting", "Workforce", "Talent Solutions"), ()),
}
# Major groups whose work can be done from home.
_DESK = frozenset(("11", "13", "15", "17", "23", "27", "43"))
_ONSETS = (
    "Bar", "Bel", "Bran", "Cal", "Cor", "Dal", "Del", "Elm", "Fair", "Glen", "Har", "Hol", "Kes", "Lan", "Mar", "Mil",
    "Nor", "Oak", "Pell", "Quin", "Ros", "Sel", "Ster", "Tal", "Thorn", "Var", "Wes", "Win", "Yar", "Zel",
)  # fmt: skip
_MIDDLES = (
    "a", "e", "i", "o", "u", "en", "er", "in", "or", "al",
)  # fmt: skip
_ENDS = [
    "bridge",
    "brook",
    "croft",
    "dale",
    "field",
    "ford",
    "gate",
    "ham",
    "lund",
    "mere",
    "mont",
    "mont",
    "moor",
    "ness",
    "port",
    "ridge",
    "stead",
    "ton",
    "vale",
    "vane",
    "wick",
    "wood",
]
STAFFING = list(INDUSTRIES).index("staffing")


@dataclass(frozen=True, kw_only=True)
class Companies:
    """Employers: `industry_C` indexes INDUSTRIES; `size_C` are shares of adverts; `reputation_C` in standard deviations."""

    names: list[str]
    industry_C: NDArray[np.int32]
    size_C: NDArray[np.float64]
    reputation_C: NDArray[np.float32]


def towns(places: tuple[Place, ...], regions: int, rng: np.random.Generator, per_region: int = 5) -> list[Place]:
    """The cities of the market: the largest of `regions` states drawn by population, sorted by state."""
    by_region: dict[str, list[Place]] = {}
    for place in sorted(places, key=lambda p: -p.weight):
        by_region.setdefault(place.region, []).append(place)
    names = sorted(by_region)
    weight = np.array([sum(p.weight for p in by_region[n]) for n in names], float)
    chosen = rng.choice(len(names), min(regions, len(names)), replace=False, p=weight / weight.sum())
    return [place for i in sorted(chosen) for place in by_region[names[i]][:per_region]]


def companies(count: int, rng: np.random.Generator) -> Companies:
    """Invented employers, all of different names; sizes follow Zipf's law."""
    industry = rng.integers(len(INDUSTRIES), size=count)
    industry[: len(INDUSTRIES)] = np.arange(len(INDUSTRIES))[:count]
    kinds = list(INDUSTRIES)
    names: list[str] = []
    taken: set[str] = set()
    for number in range(count):
        tails = INDUSTRIES[kinds[industry[number]]][0]
        while True:
            stem = _ONSETS[rng.integers(len(_ONSETS))] + (_MIDDLES[rng.integers(len(_MIDDLES))] if rng.random() < 0.4 else "")
            name = f"{stem}{_ENDS[rng.integers(len(_ENDS))]} {tails[rng.integers(len(tails))]}"
            if rng.random() < 0.15:
                name += (" Inc", " LLC", " Co", ", Inc.")[rng.integers(4)]
            if name not in taken:
                break
        taken.add(name)
        names.append(name)
    size = 1.0 / (1 + rng.permutation(count)) ** 0.8
    return Companies(
        names=names,
        industry_C=industry.astype(np.int32),
        size_C=size / size.sum(),
        reputation_C=rng.standard_normal(count).astype(np.float32),
    )


def jobs(
    config: SimulateConfig, words: Lexicon, cities: list[Place], firms: Companies, first_us: int, rng: np.random.Generator
) -> Jobs:
    """Adverts sorted by the time of posting; a month's worth is open when the log begins."""
    count = config.num_jobs
    occupation = rng.choice(len(words.codes), count, p=words.weight_O).astype(np.int32)
    company = _hire(words.codes, firms, occupation, rng)
    population = np.array([p.weight for p in cities], float) ** 0.7
    city = rng.choice(len(cities), count, p=population / population.sum()).astype(np.int32)
    life_days = np.clip(rng.lognormal(np.log(28), 0.5, count), 5, 90)
    posted = np.sort(rng.uniform(-30, config.days - 0.5, count))
    desk = np.array([code[:2] in _DESK for code in words.codes])
    category = _misfile(config, words.relatedness_OO, occupation, rng)
    return Jobs(
        occupation=occupation,
        variant=lexicon.draw(words.employer_cumulative_V, words.variant_start_O1, occupation, rng.random(count)),
        seniority=rng.choice(5, count, p=[0.06, 0.2, 0.44, 0.2, 0.1]).astype(np.int32),
        city=city,
        region=region_of(cities)[city],
        remote=rng.random(count) < np.where(desk[occupation], 0.15, 0.01),
        company=company,
        industry=firms.industry_C[company],
        reputation=firms.reputation_C[company],
        appeal=rng.standard_normal(count).astype(np.float32),
        category=category,
        posted_us=_whole_minutes(first_us + posted * DAY_US),
        expires_us=_whole_minutes(first_us + (posted + life_days) * DAY_US),
    )


def check_open(config: SimulateConfig, adverts: Jobs, first_us: int) -> None:
    """Every page of every day must be possible to fill.

    Raises:
        ConfigError: on some day fewer jobs than a page holds are open from midnight to midnight.
    """
    midnight = first_us + np.arange(config.days)[:, None] * DAY_US
    step = max(1, 10_000_000 // len(adverts.posted_us))
    for days in np.split(midnight, range(step, config.days, step)):
        is_open = (adverts.posted_us <= days) & (adverts.expires_us >= days + DAY_US)
        least = int(is_open.sum(1).min())
        problem = f"only {least} jobs are open on some day, fewer than a page holds"
        if least < config.page_high:
            raise ConfigError(problem, where="jobs", remedy="Give more jobs or fewer days.")


def region_of(cities: list[Place]) -> NDArray[np.int32]:
    """The number of each city's state, by order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(p.region, len(numbers)) for p in cities], np.int32)


def _hire(codes: list[str], firms: Companies, occupation: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int32]:
    """A company for each job: one whose industry hires the occupation's major group, nine times in ten."""
    company = np.empty(len(occupation), np.int32)
    hires = [set(groups) for _, groups in INDUSTRIES.values()]
    for number, code in enumerate(codes):
        mine = np.flatnonzero(occupation == number)
        fits = np.array([code[:2] in groups for groups in hires])
        weight = firms.size_C * (np.where(fits[firms.industry_C], 9.0, 0.1) + np.where(firms.industry_C == STAFFING, 1.5, 0))
        company[mine] = rng.choice(len(weight), len(mine), p=weight / weight.sum())
    return company


def _misfile(
    config: SimulateConfig, related_OO: NDArray[np.float32], occupation: NDArray[np.int32], rng: np.random.Generator
) -> NDArray[np.int32]:
    category = occupation.copy()
    for i in np.flatnonzero(rng.random(len(occupation)) < config.occupation_wrong):
        weight = related_OO[occupation[i]].astype(float) + 0.01
        weight[occupation[i]] = 0
        category[i] = rng.choice(len(weight), p=weight / weight.sum())
    return category


def _whole_minutes(us: NDArray[np.float64]) -> NDArray[np.int64]:
    return (us // 60_000_000).astype(np.int64) * 60_000_000
