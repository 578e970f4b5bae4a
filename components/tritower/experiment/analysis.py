"""What a test says, and whether one may stop: from moments to a verdict in one sentence."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.stats import norm

from tritower import assignment
from tritower.experiment import checks, ratio, sequential
from tritower.experiment.config import AnalysisConfig, Guardrail
from tritower.experiment.moments import Moments
from tritower.experiment.ratio import Effect
from tritower.experiment.sums import DAY_US
from tritower.experiment.tables import Found, Tables

Decision = Literal["invalid", "stop", "go on", "ended"]
CLAIMS: dict[Decision, str] = {
    "invalid": "do not trust this test", "stop": "one may stop", "ended": "one may stop", "go on": "go on",
}  # fmt: skip
"""What a decision means for whoever runs the test, in a few words that never change."""
_HASHED = 100_000
"""Units whose arm is worked out anew."""
_WRONG = 0.001
"""Share of wrong arms, mixed units or clicks before their exposure from which a test is not believed."""


@dataclass(frozen=True)
class Look:
    """A look at the test.

    Attributes:
        day: days since the start.
        bound: standard errors that the effect must be away from 0.
        effect: with CUPED where there is a past.
        crossed: whether it is.
    """

    day: int
    bound: float
    effect: Effect

    @property
    def crossed(self) -> bool:
        """Whether the effect is beyond the bound."""
        return abs(self.effect.z) >= self.bound


@dataclass(frozen=True)
class Segment:
    """The effect in a part of the users; `p` is corrected for the number of parts."""

    column: str
    value: str
    users: int
    effect: Effect
    p: float


@dataclass(frozen=True)
class Rail:
    """A guardrail: the relative change, its confidence sequence, and `safe`, `harmed` or `not known yet`."""

    guardrail: Guardrail
    change: float
    low: float
    high: float
    state: str


@dataclass
class Result:
    """All that the report shows.

    Attributes:
        decision: `invalid` (not to be believed), `stop` (a bound is crossed, or a guardrail), `go on`,
            `ended` (planned length).
        sentence: the verdict.
        reasons: why it is not to be believed; `warnings`: what is odd; `notes`: what was left out, and that is all.
        plain: the effect from users as they are; `effect`: with CUPED; `saved`: share of variance that CUPED took away.
        interval: of `effect`, valid whatever was seen before: that of a look, and between two that of the confidence sequence.
        naive_error: log error if impressions were independent.
        asked: what is seen at each look by day, those that bring nothing new included.
        by_day: cumulative effect after each day; `of_day`: of each day alone.
        sequence_by_day: reach of the confidence sequence on the log scale.
        novelty: log ratio of late effect to early effect and its standard error; None where nobody was seen twice.
    """

    decision: Decision = "go on"
    sentence: str = ""
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plain: Effect | None = None
    effect: Effect | None = None
    saved: float = 0.0
    interval: tuple[float, float] = (-1.0, math.inf)
    naive_error: float = math.nan
    ratios: dict[str, float] = field(default_factory=dict)
    mismatch: checks.Mismatch | None = None
    looks: list[Look] = field(default_factory=list)
    asked: dict[int, Effect] = field(default_factory=dict)
    by_day: list[Effect] = field(default_factory=list)
    of_day: list[Effect] = field(default_factory=list)
    sequence_by_day: list[float] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    rails: list[Rail] = field(default_factory=list)
    novelty: tuple[float, float] | None = None


def analyse(
    tables: Tables, config: AnalysisConfig, *, taken: Mapping[int, Effect] | None = None, now_us: int | None = None
) -> tuple[Found, Result]:
    """Read a test.

    Args:
        tables: its tables.
        config: how it is read.
        taken: what earlier runs saw at their looks, by day: it stands, whatever the tables say of that day by now.
        now_us: the time, microseconds since 1970: a look waits until all clicks of its day can have come. None for a test that
            is over.

    Raises:
        DataError: the tables have no such arms, or an event of a guardrail is missing.
    """
    found, result = tables.read(), Result()
    found.settled = settled_days(found, config, now_us)
    control, treated = (found.total[arm][-1] for arm in (config.control, config.treated))
    result.ratios = {arm: ratio.ratio(found.total[arm][-1]).value for arm in (config.control, config.treated)}
    result.plain = ratio.effect(control, treated)
    result.effect, result.saved = ratio.adjusted(control, treated)
    result.naive_error = _naive(control, treated)
    _look(found, result, config, taken or {})
    _believe(tables, found, result, config)
    result.segments = _segments(tables, config)
    result.rails = [_rail(guardrail, tables, found, config) for guardrail in config.guardrails]
    result.novelty = _novelty(*tables.novelty(config.look_days))
    result.decision, result.sentence = verdict(found, result, config)
    return found, result


def verdict(found: Found, result: Result, config: AnalysisConfig) -> tuple[Decision, str]:
    """The decision and what one may claim, in a sentence."""
    assert result.effect is not None
    if result.reasons:
        return "invalid", f"Do not believe this test, and claim nothing: {result.reasons[0]}."
    harmed = [rail.guardrail.name for rail in result.rails if rail.state == "harmed"]
    if harmed:
        return "stop", f"Stop: {config.treated} harms {', '.join(harmed)}."
    crossed = next((look for look in result.looks if look.crossed), None)
    if crossed is not None:
        word = "better" if crossed.effect.relative > 0 else "worse"
        size = _size(crossed.effect, crossed.effect.interval(crossed.bound), f" by day {crossed.day}", config)
        return "stop", f"You may stop: {config.treated} is {word}, with {size}."
    if found.settled >= config.planned_days:
        effect, ends = result.effect, result.interval
        if result.looks and result.looks[-1].day >= config.planned_days:
            effect = result.looks[-1].effect
            ends = effect.interval(result.looks[-1].bound)
        size = _size(effect, ends, " may be chance", config)
        return "ended", f"The planned {config.planned_days} days are over and no difference is shown, so claim none: {size}."
    following = (found.settled // config.look_days + 1) * config.look_days
    following = min(following, config.planned_days)
    size = _size(result.effect, result.interval, " so far may be chance", config)
    return "go on", f"Do not stop yet, and claim nothing: {size}. The next look is after day {following}."


def _size(effect: Effect, ends: tuple[float, float], rest: str, config: AnalysisConfig) -> str:
    """The uplift and its interval in words, such as `2.0% more clicks per impression (95% sure: 1.0% to 3.0% more)`."""
    (low, high), value = ends, effect.relative
    if not math.isfinite(value):
        return "there are too few clicks to tell"
    if low <= -1 or not math.isfinite(high):
        sure = "it could be anything"
    elif low >= 0 or high <= 0:
        least, most = sorted((abs(low), abs(high)))
        sure = f"{1 - config.alpha:.0%} sure: {least:.1%} to {most:.1%} {'more' if low >= 0 else 'fewer'}"
    else:
        sure = f"{1 - config.alpha:.0%} sure: between {-low:.1%} fewer and {high:.1%} more"
    return f"{abs(value):.1%} {'more' if value >= 0 else 'fewer'} clicks per impression{rest} ({sure})"


def settled_days(found: Found, config: AnalysisConfig, now_us: int | None) -> int:
    """Days of the test of which all clicks that count can have come; all days where no time is given, or one before them."""
    if now_us is None or now_us < found.start_us + (found.days - 1) * DAY_US:
        return found.days
    return max(0, min(found.days, int((now_us - found.start_us - config.click_window_h * 3_600_000_000) // DAY_US)))


def look_days(days: int, config: AnalysisConfig, taken: Collection[int] = ()) -> list[int]:
    """The days after which one looks, up to `days`, and those of looks that were taken.

    The planned end is one of them, and so is what has come after it until the first look that is so late: there is one last
    look.
    """
    planned = [day for day in range(config.look_days, config.planned_days, config.look_days) if day <= days]
    is_over = days >= config.planned_days and not any(day >= config.planned_days for day in taken)
    return sorted({*planned, *taken, *([days] if is_over else [])})


def looks(by_day: Mapping[int, Effect], config: AnalysisConfig) -> list[Look]:
    """The looks with their bounds; one that gives nothing new is left out."""
    kept, information = list[int](), list[float]()
    for day, effect in by_day.items():
        # Later data can look less sure by chance.
        if 0 < effect.log_error < math.inf and (not information or effect.log_error**-2 > information[-1] * 1.0001):
            kept.append(day)
            information.append(effect.log_error**-2)
    if not kept:
        return []
    bounds = sequential.bounds(information, config.alpha, [min(1.0, day / config.planned_days) for day in kept])
    return [Look(day, bound, by_day[day]) for day, bound in zip(kept, bounds, strict=True)]


def _look(found: Found, result: Result, config: AnalysisConfig, taken: Mapping[int, Effect]) -> None:
    arms = [found.total[arm] for arm in (config.control, config.treated)]
    result.by_day = [ratio.adjusted(*pair)[0] for pair in zip(*arms, strict=True)]
    result.of_day = [
        ratio.effect(*pair) for pair in zip(*(found.daily[arm] for arm in (config.control, config.treated)), strict=True)
    ]
    days = look_days(found.settled, config, taken)
    result.asked = {day: taken[day] if day in taken else result.by_day[day - 1] for day in days}
    result.looks = looks(result.asked, config)
    assert result.effect is not None
    sequence = _sequence(result.effect.log_error, found.days, config)
    # Between two looks only what holds on every day holds.
    is_look = bool(result.looks) and result.looks[-1].day == found.days
    error = result.effect.log_error
    result.interval = (
        result.looks[-1].effect.interval(result.looks[-1].bound)
        if is_look
        else result.effect.interval(sequence.reach(error) / max(error, 1e-300))
    )
    result.sequence_by_day = [sequence.reach(effect.log_error) for effect in result.by_day]


def _sequence(log_error: float, days: int, config: AnalysisConfig) -> sequential.ConfidenceSequence:
    """Narrowest at the planned end, where errors have shrunk as the square root of time."""
    planned = log_error * math.sqrt(days / max(days, config.planned_days)) if math.isfinite(log_error) else 1.0
    return sequential.ConfidenceSequence(planned, config.alpha)


def _naive(control: Moments, treated: Moments) -> float:
    sums = [(arm.users * arm.mean_V[0], arm.users * arm.mean_V[1]) for arm in (control, treated)]
    if any(clicks <= 0 for clicks, _ in sums):
        return math.inf
    return math.sqrt(sum(ratio.unclustered(*both).log_variance for both in sums))


def _believe(tables: Tables, found: Found, result: Result, config: AnalysisConfig) -> None:
    shares = {config.control: 1 - config.treated_share, config.treated: config.treated_share}
    result.mismatch = checks.mismatch(found.assigned, shares)
    total = max(1, sum(found.assigned.values()))
    if result.mismatch.is_bad:
        have = " and ".join(f"{found.assigned.get(arm, 0):,} {arm}" for arm in shares)
        result.reasons.append(
            f"there are {have} units where {config.treated_share:.1%} should be {config.treated}; "
            "by chance that happens in fewer than one of 1,000 tests"
        )
    mixed = found.left_out.get("units in both arms", 0)
    if mixed > _WRONG * total:
        result.reasons.append(f"{mixed:,} units were shown both arms: the assignment did not hold")
    elif mixed:
        result.notes.append(f"{mixed:,} units were shown both arms, and are left out.")
    if config.salt:
        wrong, asked = _hashed(tables, config)
        if wrong > _WRONG * asked:
            result.reasons.append(f"{wrong:,} of {asked:,} units have another arm than the hash of {config.salt!r} gives them")
    without = found.left_out.get("rows without an arm", 0)
    if without:
        result.notes.append(f"{without:,} exposures have no arm: they were shown after the start and are left out.")
    for arm in shares:
        clicks = found.total[arm][-1].users * found.total[arm][-1].mean_V[0]
        early = found.clocks.get(f"clicks before their exposure: {arm}", 0)
        if early > _WRONG * max(clicks, 1):
            result.reasons.append(f"{early:,} clicks of {arm} are older than their exposures: clocks differ")
    for reason, (of_control, of_treated) in found.by_arm.items():
        bad = checks.mismatch({config.control: of_control, config.treated: of_treated}, shares)
        if bad.is_bad and reason != "units in both arms":
            both = f"{of_control:,} of {config.control}, {of_treated:,} of {config.treated}"
            result.warnings.append(f"{reason.capitalize()}: {both}; that is no chance. They are left out.")
        elif reason != "units in both arms":
            result.notes.append(f"{of_control + of_treated:,} {reason} (machines, perhaps) are left out.")
    copies = found.left_out.get("rows that came twice", 0)
    if copies:
        result.notes.append(f"{copies:,} exposures came more than once; each counts once.")


def _hashed(tables: Tables, config: AnalysisConfig) -> tuple[int, int]:
    """Units whose arm is not what the hash gives, and how many were looked at."""
    shares = (1 - config.treated_share, config.treated_share)
    arms = tuple(
        assignment.Arm(name=arm, share=share) for arm, share in zip((config.control, config.treated), shares, strict=True)
    )
    test = assignment.Experiment(name=config.experiment or "test", salt=config.salt, arms=arms)
    units = tables.units(_HASHED)
    return sum(test.assign(unit).arm != arm for unit, arm in units), len(units)


def _segments(tables: Tables, config: AnalysisConfig) -> list[Segment]:
    parts = [(column, value, pair) for column in config.segments for value, pair in tables.segments(column).items()]
    effects = [ratio.adjusted(*pair)[0] for *_, pair in parts]
    corrected = checks.holm([effect.p for effect in effects])
    return [
        Segment(column, value, pair[0].users + pair[1].users, effect, p)
        for (column, value, pair), effect, p in zip(parts, effects, corrected, strict=True)
    ]


def _rail(guardrail: Guardrail, tables: Tables, found: Found, config: AnalysisConfig) -> Rail:
    effect = ratio.effect(*tables.guardrail(guardrail))
    reach = _sequence(effect.log_error, found.days, config).reach(effect.log_error)
    if not math.isfinite(reach) or not effect.relative > -1:
        return Rail(guardrail, effect.relative, -1.0, math.inf, "not known yet")
    middle = math.log1p(effect.relative)
    low, high = math.expm1(middle - reach), math.expm1(min(middle + reach, 700))
    limit = guardrail.margin
    if guardrail.worse == "higher":
        state = "harmed" if low > limit else "safe" if high < limit else "not known yet"
    else:
        state = "harmed" if high < -limit else "safe" if low > -limit else "not known yet"
    return Rail(guardrail, effect.relative, low, high, state)


def _novelty(control: Moments, treated: Moments) -> tuple[float, float] | None:
    """How much the log effect has changed between units' first days and later ones, and its standard error."""
    shifts = [_shift(arm) for arm in (control, treated)]
    if any(shift is None for shift in shifts):
        return None
    (before, spread), (after, wider) = (shift for shift in shifts if shift is not None)
    return after - before, math.sqrt(spread + wider)


def _shift(arm: Moments) -> tuple[float, float] | None:
    """log(late ratio / early ratio) of an arm, and its variance."""
    if arm.users < 2 or arm.mean_V.min() <= 0:
        return None
    early_x, early_y, late_x, late_y = arm.mean_V
    gradient_V = np.array([-1 / early_x, 1 / early_y, 1 / late_x, -1 / late_y])
    variance = float(gradient_V @ arm.cov_VV @ gradient_V) / arm.users
    return math.log(late_x / late_y) - math.log(early_x / early_y), variance


def sure_of(shift: tuple[float, float]) -> float:
    """Two-sided p-value of a change of the effect."""
    return float(2 * norm.sf(abs(shift[0]) / shift[1])) if shift[1] else 1.0


def figures(found: Found, result: Result) -> Mapping[str, float | str]:
    """Headline figures, those that a backend's page shows."""
    assert result.effect is not None and result.mismatch is not None
    users: Sequence[int] = list(found.units.values())
    return {
        "decision": result.decision,
        "uplift_pct": round(100 * result.effect.relative, 3),
        "uplift_low_pct": round(100 * result.interval[0], 3),
        "uplift_high_pct": round(100 * min(result.interval[1], 1e6), 3),
        "days": found.days,
        "units": sum(users),
        "sample_ratio_p": result.mismatch.p,
        "cuped_saved_pct": round(100 * result.saved, 1),
    }
