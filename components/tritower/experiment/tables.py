"""From exposures, one row for each job shown, to what the arms' users did day by day; by DuckDB, in bounded memory.

What may not count is counted and left out here, each kind by a stated rule: rows seen twice, rows without an arm, units in both
arms, machines that click.

Legend: D days since the start, V the variables of `ratio.py`: clicks, impressions, and the same before the test.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from tritower.errors import ConfigError, DataError
from tritower.experiment import sources, sums
from tritower.experiment.config import AnalysisConfig, Guardrail
from tritower.experiment.moments import Moments

_BOT_SHOWN = 50


@dataclass
class Found:
    """What the tables hold.

    Attributes:
        start_us: first moment of the test, microseconds since 1970.
        days: days of the test that the table reaches into.
        settled: those of which all clicks can have come.
        first_us: the first exposure with an arm, microseconds since 1970.
        left_out: rows or units left out, by reason; `by_arm` has those of units for control and treated.
        total: both arms' moments after each day, by arm: cumulative.
        daily: of each day by itself.
        cap: impressions beyond which a unit counts with so many.
        units: kept, by arm.
        has_past: whether anybody did anything before the test.
    """

    start_us: int
    days: int
    settled: int = 0
    first_us: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    by_arm: dict[str, tuple[int, int]] = field(default_factory=dict)
    clocks: dict[str, int] = field(default_factory=dict)
    total: dict[str, list[Moments]] = field(default_factory=dict)
    daily: dict[str, list[Moments]] = field(default_factory=dict)
    cap: float = 0.0
    units: dict[str, int] = field(default_factory=dict)
    assigned: dict[str, int] = field(default_factory=dict)
    has_past: bool = False


class Tables:
    """The tables of one test; `open` makes one."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, config: AnalysisConfig, *, keyed: bool) -> None:
        self.sql, self.config, self.keyed = connection, config, keyed
        self.arms = (config.control, config.treated)

    @staticmethod
    @contextlib.contextmanager
    def open(
        shown: Sequence[str], config: AnalysisConfig, *, events: Sequence[str] = (), past: Sequence[str] = ()
    ) -> Iterator["Tables"]:
        """While the block runs, the files as tables.

        Args:
            shown: Parquet or CSV files of exposures: `schema.SHOWN`, or a user's own with `ts`, `unit` (or `user_id`), `arm`
                and `clicked`; `clicked_at`, `request_id` and `job_id` where known. Rows before the start are the past.
            events: files with `unit`, `ts`, `name`, `value`, for the guardrails.
            past: files like `shown`, without arms, from before the test.

        Raises:
            SchemaError: a column is missing.
            DataError: a file cannot be read.
        """
        with sources.opened(config.memory_limit) as connection:
            keyed = sources.exposures(connection, shown, config)
            sources.earlier(connection, past, config.unit)
            if events:
                sources.events(connection, events, config.unit)
            yield Tables(connection, config, keyed=keyed)

    def read(self) -> Found:
        """Count, leave out, and sum up."""
        found = self._period()
        self._rows(found)
        self._units(found)
        found.total, found.daily = sums.by_day(self.sql, self.arms, found.days)
        return found

    def segments(self, column: str) -> dict[str, tuple[Moments, Moments]]:
        """Control and treated of each value of a segment's column, over the whole test."""
        rows = self.sql.execute(
            f"SELECT seen.{sources.name(column)}, arm, {sums.FOUR} FROM unit_total "
            f"JOIN segment_of seen USING (unit) GROUP BY 1, 2 HAVING seen.{sources.name(column)} IS NOT NULL"
        ).fetchall()
        parts: dict[str, dict[str, Moments]] = {}
        for value, arm, *values in rows:
            parts.setdefault(str(value), {})[arm] = sums.moments(values)
        both = {value: arms for value, arms in parts.items() if len(arms) == 2}
        return {value: (arms[self.arms[0]], arms[self.arms[1]]) for value, arms in sorted(both.items())}

    def novelty(self, days: int = 7) -> tuple[Moments, Moments]:
        """Clicks and impressions in a unit's first days, then those after them, of units seen in both; control and treated."""
        rows = self.sql.execute(
            "WITH phases AS (SELECT unit, arm, weight * sum(unit_day.x) FILTER (day - first < $days) AS x, "
            "weight * sum(unit_day.y) FILTER (day - first < $days) AS y, "
            "weight * sum(unit_day.x) FILTER (day - first >= $days) AS cx, "
            "weight * sum(unit_day.y) FILTER (day - first >= $days) AS cy "
            "FROM unit_day JOIN unit_total USING (unit, arm) GROUP BY unit, arm, weight "
            "HAVING count(*) FILTER (day - first >= $days) > 0) "
            f"SELECT arm, {sums.FOUR} FROM phases GROUP BY arm",
            {"days": days},
        ).fetchall()
        found = {arm: sums.moments(values) for arm, *values in rows}
        nobody = sums.moments([0.0] * 15)
        return found.get(self.arms[0], nobody), found.get(self.arms[1], nobody)

    def guardrail(self, rail: Guardrail) -> tuple[Moments, Moments]:
        """The figure's moments, control and treated: events and units, or values and events."""
        y = "1.0::DOUBLE" if rail.of == "units" else "coalesce(e.events, 0)"
        x = "coalesce(e.events, 0)" if rail.of == "units" else "coalesce(e.value, 0)"
        rows = self.sql.execute(
            "WITH e AS (SELECT unit, count(*)::DOUBLE AS events, sum(value)::DOUBLE AS value "
            "FROM event WHERE name = $name GROUP BY unit), "
            f"u AS (SELECT arm, {x} AS x, {y} AS y FROM unit_total LEFT JOIN e USING (unit)) "
            f"SELECT arm, {sums.TWO} FROM u GROUP BY arm",
            {"name": rail.name},
        ).fetchall()
        arms = {arm: sums.moments(values) for arm, *values in rows}
        if not rows or not sum(moments.mean_V[0] for moments in arms.values()):
            known = [name for (name,) in self.sql.execute("SELECT DISTINCT name FROM event ORDER BY name LIMIT 10").fetchall()]
            raise DataError(
                f"there is no event {rail.name!r} of a unit of the test",
                where="guardrails",
                remedy=f"The table has: {', '.join(known)}.",
            )
        return arms[self.arms[0]], arms[self.arms[1]]

    def units(self, limit: int) -> list[tuple[str, str]]:
        """Some units and their arms, in a stable order."""
        return self.sql.execute(f"SELECT unit, arm FROM unit_total ORDER BY hash(unit), unit LIMIT {limit:d}").fetchall()

    def _period(self) -> Found:
        config = self.config
        in_arms = "arm IN ($control, $treated)"
        arms = {"control": config.control, "treated": config.treated}
        first, last, rows = self.sql.execute(
            f"SELECT min(ts), max(ts), count(*) FROM shown WHERE {in_arms}", arms
        ).fetchone() or (None, None, 0)
        if not rows:
            named = [str(arm) for (arm,) in self.sql.execute("SELECT DISTINCT arm FROM shown ORDER BY arm LIMIT 10").fetchall()]
            raise DataError(
                f"no row has the arm {config.control!r} or {config.treated!r}",
                where="exposures",
                remedy=f"Arms there: {named}.",
            )
        exposed = first
        if config.start:
            try:
                (first,) = self.sql.execute("SELECT epoch_us($start::TIMESTAMPTZ)", {"start": config.start}).fetchone() or (
                    first,
                )
            except duckdb.Error:
                raise ConfigError(
                    f"start is {config.start!r}", where="start", remedy="Give ISO 8601, such as 2026-01-31T00:00:00Z."
                ) from None
        return Found(start_us=first, first_us=exposed, days=max(1, int((last - first) // sums.DAY_US + 1)))

    def _rows(self, found: Found) -> None:
        """`unit_day` of all units with an arm, and the counts of rows that do not count."""
        config, window = self.config, int(self.config.click_window_h * 3_600_000_000)
        given = {"start": found.start_us, "control": config.control, "treated": config.treated}
        of_test = "ts >= $start AND arm IN ($control, $treated)"
        source = self._without_copies(found, of_test, given) if self.keyed else "shown"
        (no_arm, odd_arm) = self.sql.execute(
            "SELECT count(*) FILTER (arm = ''), count(*) FILTER (arm NOT IN ('', $control, $treated)) "
            "FROM shown WHERE ts >= $start",
            given,
        ).fetchone() or (0, 0)
        found.left_out |= {"rows without an arm": no_arm, "rows of another arm": odd_arm}
        counts = "clicked AND coalesce(clicked_at - ts, 0) BETWEEN 0 AND $window"
        given = given | {"window": window}
        self.sql.execute(
            f"CREATE TABLE unit_day AS SELECT unit, arm, ((ts - $start) // {sums.DAY_US})::INTEGER AS day, "
            f"count(*) FILTER ({counts})::DOUBLE AS x, count(*)::DOUBLE AS y, "
            "count(*) FILTER (clicked AND clicked_at < ts) AS early, "
            "count(*) FILTER (clicked AND clicked_at - ts > $window) AS late "
            f"FROM {source} WHERE {of_test} GROUP BY ALL",
            given,
        )
        if config.segments:
            firsts = ", ".join(f"arg_min({sources.name(one)}, ts) AS {sources.name(one)}" for one in config.segments)
            segment = {name: given[name] for name in ("start", "control", "treated")}
            self.sql.execute(
                f"CREATE TABLE segment_of AS SELECT unit, {firsts} FROM shown WHERE {of_test} GROUP BY unit", segment
            )
        for arm, early, late in self.sql.execute("SELECT arm, sum(early), sum(late) FROM unit_day GROUP BY arm").fetchall():
            found.clocks[f"clicks before their exposure: {arm}"] = int(early)
            found.clocks[f"clicks later than {config.click_window_h:g} h: {arm}"] = int(late)
        past = {"start": found.start_us, "window": window}
        self.sql.execute(
            f"CREATE TABLE past AS SELECT unit, count(*) FILTER ({counts})::DOUBLE AS cx, count(*)::DOUBLE AS cy "
            "FROM earlier WHERE ts < $start GROUP BY unit",
            past,
        )

    def _without_copies(self, found: Found, of_test: str, given: dict[str, Any]) -> str:
        """A view of `shown` in which each request's job counts once; rows without a key all count.

        Few rows have copies: all rows are grouped by a hash of 8 bytes, and by their keys only those whose hash is not alone.
        """
        self.sql.execute(
            f"CREATE TABLE copied AS SELECT key FROM shown WHERE {of_test} AND key IS NOT NULL "
            "GROUP BY key HAVING count(*) > 1",
            given,
        )
        self.sql.execute(
            "CREATE TABLE once AS SELECT first(unit) AS unit, min(ts) AS ts, first(arm) AS arm, "
            "bool_or(clicked) AS clicked, min(clicked_at) AS clicked_at, count(*) AS copies "
            f"FROM shown SEMI JOIN copied USING (key) WHERE {of_test} GROUP BY request_id, job_id",
            given,
        )
        self.sql.execute(
            "CREATE VIEW counted AS SELECT unit, ts, arm, clicked, clicked_at FROM shown ANTI JOIN copied USING (key) "
            "UNION ALL SELECT unit, ts, arm, clicked, clicked_at FROM once"
        )
        (copies,) = self.sql.execute("SELECT coalesce(sum(copies - 1), 0) FROM once").fetchone() or (0,)
        found.left_out["rows that came twice"] = int(copies)
        return "counted"

    def _units(self, found: Found) -> None:
        """`unit_total`: the units that count, with what they did and their weight."""
        config = self.config
        self.sql.execute(
            "CREATE TABLE whole AS SELECT unit, min(arm) AS arm, count(DISTINCT arm) > 1 AS is_mixed, min(day) AS first, "
            "sum(x) AS x, sum(y) AS y, max(y) AS most, sum(x + early + late) AS clicks "
            "FROM unit_day GROUP BY unit"
        )
        self.sql.execute(
            "CREATE TABLE judged AS SELECT *, CASE WHEN is_mixed THEN 'units in both arms' "
            "WHEN most > $most THEN 'units shown more than a person can see in a day' "
            f"WHEN y >= {_BOT_SHOWN} AND clicks > $through * y THEN 'units that click on nearly everything' END AS reason "
            "FROM whole",
            {"most": config.bot_impressions_per_day, "through": config.bot_click_through},
        )
        for arm, reason, units in self.sql.execute(
            "SELECT arm, reason, count(*) FROM judged WHERE reason IS NOT NULL GROUP BY ALL"
        ).fetchall():
            found.left_out[reason] = found.left_out.get(reason, 0) + units
            before = found.by_arm.get(reason, (0, 0))
            found.by_arm[reason] = (before[0] + units * (arm == config.control), before[1] + units * (arm == config.treated))
        found.assigned = dict(self.sql.execute("SELECT arm, count(*) FROM judged WHERE NOT is_mixed GROUP BY arm").fetchall())
        (cap,) = self.sql.execute(
            f"SELECT quantile_cont(y, {config.cap_quantile:f}) FROM judged WHERE reason IS NULL"
        ).fetchone() or (None,)
        if cap is None:
            raise DataError("no unit is left", where="exposures", remedy=f"Left out: {found.left_out}.")
        found.cap = float(cap)
        self.sql.execute(
            "CREATE TABLE unit_total AS SELECT unit, arm, first, least(1.0, $cap / y) AS weight, "
            "x * least(1.0, $cap / y) AS x, y * least(1.0, $cap / y) AS y, "
            "coalesce(cx, 0.0) * least(1.0, $past / greatest(cy, 1)) AS cx, "
            "coalesce(cy, 0.0) * least(1.0, $past / greatest(cy, 1)) AS cy "
            "FROM judged LEFT JOIN past USING (unit) WHERE reason IS NULL",
            {"cap": found.cap, "past": self._past_cap()},
        )
        found.units = dict(self.sql.execute("SELECT arm, count(*) FROM unit_total GROUP BY arm").fetchall())
        (found.has_past,) = self.sql.execute("SELECT coalesce(sum(cx), 0) > 0 FROM unit_total").fetchone() or (False,)
        if self.config.guardrails:
            self.sql.execute("CREATE VIEW event AS SELECT * FROM all_events WHERE ts >= " + str(found.start_us))

    def _past_cap(self) -> float:
        (cap,) = self.sql.execute(f"SELECT quantile_cont(cy, {self.config.cap_quantile:f}) FROM past").fetchone() or (None,)
        return float(cap) if cap else 1.0
