"""Moments from sums that DuckDB computes, and those of every day in one pass.

Legend: D days since the start, V the variables of `ratio.py`: clicks x, impressions y, and the same before the test, cx and cy.
"""

from collections.abc import Sequence

import duckdb
import numpy as np

from tritower.experiment.moments import Moments

DAY_US = 86_400_000_000


def _listed(*names: str) -> str:
    products = [f"sum({one} * {other})" for at, one in enumerate(names) for other in names[at:]]
    return ", ".join(["count(*)", *(f"sum({name})" for name in names), *products])


TWO, FOUR = _listed("x", "y"), _listed("x", "y", "cx", "cy")
"""What `moments` takes: users, sums, sums of products."""


def moments(values: Sequence[float]) -> Moments:
    """From users, the sums of V variables and the V (V + 1) / 2 sums of their products; 6 or 15 values."""
    number = {6: 2, 15: 4}[len(values)]
    users, sum_V = int(values[0]), np.array(values[1 : number + 1], np.float64)
    mean_V, scatter_VV = sum_V / max(users, 1), np.zeros((number, number))
    row, column = np.triu_indices(number)
    scatter_VV[row, column] = scatter_VV[column, row] = values[number + 1 :]
    scatter_VV -= users * np.outer(mean_V, mean_V)
    return Moments(users, mean_V, scatter_VV / max(users - 1, 1))


def by_day(
    connection: duckdb.DuckDBPyConnection, arms: Sequence[str], days: int
) -> tuple[dict[str, list[Moments]], dict[str, list[Moments]]]:
    """By arm, the four variables' moments after each day, and clicks and impressions of each day alone.

    A sum of squares grows by (X + x)^2 - X^2, so one pass gives them for all days.

    Args:
        connection: has the tables unit_day (unit, arm, day, x, y) and unit_total (unit, arm, first, weight, cx, cy).
        arms: whose.
        days: D.
    """
    before = "OVER (PARTITION BY unit ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
    new = "FILTER (is_new)"
    total = [f"count(*) {new}", "sum(x)", "sum(y)", f"sum(cx) {new}", f"sum(cy) {new}"]
    total += ["sum(x * (2 * bx + x))", "sum(x * by_ + y * bx + x * y)", "sum(x * cx)", "sum(x * cy)"]
    total += ["sum(y * (2 * by_ + y))", "sum(y * cx)", "sum(y * cy)"]
    total += [f"sum(cx * cx) {new}", f"sum(cx * cy) {new}", f"sum(cy * cy) {new}"]
    rows = connection.execute(
        "WITH walk AS (SELECT unit_day.arm, day, weight * unit_day.x AS x, weight * unit_day.y AS y, cx, cy, "
        f"day = first AS is_new, coalesce(sum(weight * unit_day.x) {before}, 0) AS bx, "
        f"coalesce(sum(weight * unit_day.y) {before}, 0) AS by_ FROM unit_day JOIN unit_total USING (unit, arm)) "
        f"SELECT arm, day, {', '.join(total)}, {TWO} FROM walk GROUP BY arm, day ORDER BY arm, day"
    ).fetchall()
    after, alone = {}, {}
    for arm in arms:
        total_DS, alone_DS = np.zeros((days, len(total))), np.zeros((days, 6))
        for name, day, *values in rows:
            if name == arm and 0 <= day < days:
                total_DS[day] = [value or 0 for value in values[: len(total)]]
                alone_DS[day] = values[len(total) :]
        after[arm] = [moments(row) for row in total_DS.cumsum(axis=0).tolist()]
        alone[arm] = [moments(row) for row in alone_DS.tolist()]
    return after, alone
