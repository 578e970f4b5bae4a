"""What users did in a log without arms: what a plan is made from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tritower.errors import DataError
from tritower.experiment import ratio, sources, sums
from tritower.experiment.config import PlanConfig
from tritower.experiment.moments import Moments


@dataclass(frozen=True)
class History:
    """What users did in a log without arms, as if its days after the past were a test's.

    Attributes:
        by_day: users' clicks and impressions after each day: cumulative.
        saved: share of the variance that CUPED takes away.
        lists_by_day: lists (mailings, searches) that a user was shown by the end of each day, on average; empty where the log
            has no requests.
    """

    by_day: list[Moments]
    saved: float
    lists_by_day: list[float]


def read(files: Sequence[str], config: PlanConfig) -> History:
    """Read a log: its first days, at most `cuped_days` and half of it, are the past, the others stand for a test.

    Raises:
        SchemaError: a column is missing.
        DataError: nobody clicked.
    """
    with sources.opened(config.memory_limit) as connection:
        columns = sources.view(connection, "given", files)
        unit = config.unit if config.unit in columns else "user_id"
        sources.need(dict.fromkeys((unit, "ts", "clicked"), f"There are: {', '.join(columns)}."), columns, "log")
        who = sources.who(config.unit, columns)
        lists = "count(DISTINCT request_id)" if "request_id" in columns else "0"
        connection.execute(
            f"CREATE TABLE log AS SELECT {who} AS unit, "
            f"(epoch_us(ts::TIMESTAMPTZ) // {sums.DAY_US}) AS day, count(*) FILTER (clicked)::DOUBLE AS x, "
            f"count(*)::DOUBLE AS y, {lists} AS lists FROM given WHERE {who} IS NOT NULL GROUP BY ALL"
        )
        first, last = connection.execute("SELECT min(day), max(day) FROM log").fetchone() or (None, None)
        if first is None:
            raise DataError("the log is empty", where="log", remedy="Give raw impressions.")
        start = first + min(config.cuped_days, int(last - first + 1) // 2)
        connection.execute(
            "CREATE TABLE unit_day AS SELECT unit, '' AS arm, day - $start AS day, x, y FROM log WHERE day >= $start",
            {"start": start},
        )
        connection.execute(
            "CREATE TABLE unit_total AS SELECT unit, '' AS arm, min(day) FILTER (day >= $start) - $start AS first, "
            "1.0::DOUBLE AS weight, coalesce(sum(x) FILTER (day < $start), 0) AS cx, "
            "coalesce(sum(y) FILTER (day < $start), 0) AS cy "
            "FROM log GROUP BY unit HAVING count(*) FILTER (day >= $start) > 0",
            {"start": start},
        )
        by_day = sums.by_day(connection, [""], int(last - start + 1))[0][""]
        counted = dict(
            connection.execute(
                "SELECT day - $start, sum(lists) FROM log WHERE day >= $start GROUP BY 1", {"start": start}
            ).fetchall()
        )
    if by_day[-1].mean_V[0] <= 0:
        raise DataError("nobody clicked in the log", where="log", remedy="Give a longer log.")
    lists_D = np.cumsum([float(counted.get(day, 0)) for day in range(len(by_day))])
    per_user = [float(lists) / max(user.users, 1) for lists, user in zip(lists_D, by_day, strict=True)]
    return History(by_day, ratio.foretold(by_day[-1]), per_user if per_user[-1] > 0 else [])
