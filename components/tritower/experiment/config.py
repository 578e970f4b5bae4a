"""Knobs of planning and analysing a test."""

from dataclasses import dataclass, field
from typing import Literal

from tritower.config import check


@dataclass(frozen=True, kw_only=True)
class Guardrail:
    """A figure that must not get worse, from the table of events."""

    name: str
    """Value of the events' column `name`, such as `unsubscribe`."""
    of: Literal["units", "events"] = "units"
    """`units`: events for each unit, as with unsubscribes; `events`: mean value of an event, as with latencies."""
    worse: Literal["higher", "lower"] = "higher"
    """Which way is harm."""
    margin: float = 0.0
    """Relative change that is borne, of at least 0."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        check(bool(self.name), "name", self.name, "not empty")
        check(self.margin >= 0, "margin", self.margin, "of at least 0")


@dataclass(frozen=True, kw_only=True)
class AnalysisConfig:
    """How a test is read."""

    control: str = "control"
    """Arm that the other is compared with."""
    treated: str = "treated"
    """Arm in question."""
    treated_share: float = 0.5
    """Planned share of the treated among the units of both arms, in (0, 1)."""
    unit: str = "unit"
    """Column that says who was assigned; `user_id` is taken where it is missing."""
    experiment: str = ""
    """Only rows of this experiment, by the column `experiment`; empty = all rows."""
    start: str = ""
    """First moment of the test, ISO 8601, UTC; empty = the first exposure with an arm."""
    planned_days: int = 42
    """Length that was planned, in days, at least 1."""
    look_days: int = 7
    """Days between two looks, at least 1."""
    alpha: float = 0.05
    """Two-sided error rate over all looks, in (0, 1)."""
    click_window_h: float = 24.0
    """A click counts if it comes within so many hours of being shown; above 0."""
    cap_quantile: float = 0.999
    """Units with more impressions than this quantile of all units count with as many, click-through unchanged; in (0, 1]."""
    bot_impressions_per_day: int = 1_000
    """Units shown more on any day are left out, whatever they clicked; at least 1."""
    bot_click_through: float = 0.9
    """Units that clicked more than this share of at least 50 impressions are left out; above 0."""
    segments: tuple[str, ...] = ()
    """Columns whose values part the units; the first value of a unit counts."""
    guardrails: tuple[Guardrail, ...] = ()
    """Figures that must not get worse."""
    salt: str = ""
    """Salt of the assignment: the arms are worked out anew and compared; empty = not looked at."""
    memory_limit: str = "2GiB"
    """What DuckDB may take; more goes to disk."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        check(self.control != self.treated, "treated", self.treated, "another than the control")
        check(0 < self.treated_share < 1, "treated_share", self.treated_share, "between 0 and 1")
        check(self.planned_days >= 1, "planned_days", self.planned_days, "of at least 1")
        check(self.look_days >= 1, "look_days", self.look_days, "of at least 1")
        check(0 < self.alpha < 1, "alpha", self.alpha, "between 0 and 1")
        check(self.click_window_h > 0, "click_window_h", self.click_window_h, "above 0")
        check(0 < self.cap_quantile <= 1, "cap_quantile", self.cap_quantile, "above 0 and at most 1")
        check(self.bot_impressions_per_day >= 1, "bot_impressions_per_day", self.bot_impressions_per_day, "of at least 1")
        check(self.bot_click_through > 0, "bot_click_through", self.bot_click_through, "above 0")


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """What a test is to find."""

    effect: float = 0.05
    """Relative uplift to find, above 0."""
    power: float = 0.8
    """Probability to find it, in (alpha, 1)."""
    alpha: float = 0.05
    """Two-sided error rate, in (0, 1)."""
    looks: int = 6
    """Looks at equal distances, at least 1."""
    traffic: float = 1.0
    """Share of the users that take part, in (0, 1]."""
    cuped_days: int = 28
    """Days before the test whose clicks CUPED uses; 0 = none."""
    unit: str = "unit"
    """Column that says who will be assigned; `user_id` is taken where it is missing."""
    memory_limit: str = "2GiB"
    """What DuckDB may take; more goes to disk."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        check(self.effect > 0, "effect", self.effect, "above 0")
        check(0 < self.alpha < self.power < 1, "power", self.power, "between alpha and 1")
        check(self.looks >= 1, "looks", self.looks, "of at least 1")
        check(0 < self.traffic <= 1, "traffic", self.traffic, "above 0 and at most 1")
        check(self.cuped_days >= 0, "cuped_days", self.cuped_days, "of at least 0")


@dataclass(frozen=True, kw_only=True)
class Habits:
    """What users do."""

    visits: float = 0.15
    """Mean number of visits a day, above 0."""
    unevenness: float = 1.3
    """Standard deviation of the logarithm of a user's visits: at 1.3 the busiest hundredth makes a tenth of all visits."""
    shown: int = 8
    """Impressions a visit, at least 1."""
    click_rate: float = 0.06
    """Mean click-through, in (0, 1)."""
    click_spread: float = 6.0
    """Concentration of users' click-through (a + b of the beta); smaller = users differ more."""
    mailings: bool = False
    """Visits come on two days of the week only, as with e-mails."""
    effect: float = 0.0
    """Relative uplift of the treated users' click-through, above -1."""
    fades_after_days: float = 0.0
    """Days after which the effect of novelty has halved; 0 = it stays."""
    segment_effect: float = 0.0
    """Further relative uplift for half of the users."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        check(self.visits > 0, "visits", self.visits, "above 0")
        check(self.unevenness >= 0, "unevenness", self.unevenness, "of at least 0")
        check(self.shown >= 1, "shown", self.shown, "of at least 1")
        check(0 < self.click_rate < 1, "click_rate", self.click_rate, "between 0 and 1")
        check(self.click_spread > 0, "click_spread", self.click_spread, "above 0")
        check(self.effect > -1, "effect", self.effect, "above -1")


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What is wrong with the log; shares from 0 to 1."""

    moved: float = 0.0
    """Share of the treated that never reaches the log, as when a version is too slow: a sample-ratio mismatch."""
    wrong_hash: float = 0.0
    """Share of users with another arm than the hash gives."""
    mixed: float = 0.0
    """Share of users that see both arms."""
    unassigned: float = 0.0
    """Share of exposures without an arm."""
    twice: float = 0.0
    """Share of exposures that come twice."""
    bots: int = 0
    """Machines in the treated arm that click on everything, 200 impressions a day."""
    late: float = 0.0
    """Share of clicks that come after two days."""
    clock: float = 0.0
    """Share of clicks whose clock is an hour behind."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        for name in ("moved", "wrong_hash", "mixed", "unassigned", "twice", "late", "clock"):
            value = getattr(self, name)
            check(0 <= value <= 1, name, value, "from 0 to 1")
        check(self.bots >= 0, "bots", self.bots, "of at least 0")


@dataclass(frozen=True, kw_only=True)
class SimulateConfig:
    """A test that never was: its size, its users, and what is wrong with its log."""

    users: int = 20_000
    """Who take part, at least 2."""
    days: int = 42
    """Its length, at least 1."""
    seed: int = 0
    """Of everything."""
    salt: str = "test"
    """Of the assignment."""
    habits: Habits = field(default_factory=Habits)
    """What the users do, and what the treated arm changes."""
    faults: Faults = field(default_factory=Faults)
    """What is wrong with the log."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        check(self.users >= 2, "users", self.users, "of at least 2")
        check(self.days >= 1, "days", self.days, "of at least 1")
        check(self.seed >= 0, "seed", self.seed, "of at least 0")


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """How interleaved and shuffled lists are read."""

    unit: str = "user_id"
    """Column that says who searched; `unit` is taken where it is missing."""
    salt: str = ""
    """Only drafts of this salt, by the column `interleaving`; empty = all."""
    alpha: float = 0.05
    """Two-sided error rate, in (0, 1)."""
    bot_click_through: float = 0.9
    """Users who clicked more than this share of at least 50 jobs have no vote; above 0."""
    memory_limit: str = "2GiB"
    """What DuckDB may take; more goes to disk."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        check(0 < self.alpha < 1, "alpha", self.alpha, "between 0 and 1")
        check(self.bot_click_through > 0, "bot_click_through", self.bot_click_through, "above 0")
