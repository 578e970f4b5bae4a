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
    unit: str = field(default="user_id")
    """Column that says who will be assigned."""
    memory_limit: str = "2GiB"
    """What DuckDB may take; more goes to disk."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        check(self.effect > 0, "effect", self.effect, "above 0")
        check(0 < self.alpha < self.power < 1, "power", self.power, "between alpha and 1")
        check(self.looks >= 1, "looks", self.looks, "of at least 1")
        check(0 < self.traffic <= 1, "traffic", self.traffic, "above 0 and at most 1")
        check(self.cuped_days >= 0, "cuped_days", self.cuped_days, "of at least 0")
