"""What users did in a log without arms: what a plan is made from."""

from collections.abc import Sequence

from tritower.errors import DataError, SchemaError
from tritower.experiment import ratio, sources, sums
from tritower.experiment.config import PlanConfig
from tritower.experiment.moments import Moments


def read(files: Sequence[str], config: PlanConfig) -> tuple[list[Moments], float]:
    """Of a log without arms: its users' clicks and impressions after each day, and the share of variance that CUPED takes away.

    The log's last `cuped_days` stand for a test, the days before for its past; days are counted after the past.

    Raises:
        SchemaError: a column is missing.
        DataError: nobody clicked.
    """
    with sources.opened(config.memory_limit) as connection:
        columns = sources.view(connection, "given", files)
        for needed in (config.unit, "ts", "clicked"):
            if needed not in columns:
                raise SchemaError(f"the column {needed!r} is missing", where="log", remedy=f"There are: {', '.join(columns)}.")
        connection.execute(
            f"CREATE TABLE log AS SELECT {sources.name(config.unit)}::VARCHAR AS unit, "
            f"(epoch_us(ts::TIMESTAMPTZ) // {sums.DAY_US}) AS day, "
            "count(*) FILTER (clicked)::DOUBLE AS x, count(*)::DOUBLE AS y FROM given GROUP BY ALL"
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
    if by_day[-1].mean_V[0] <= 0:
        raise DataError("nobody clicked in the log", where="log", remedy="Give a longer log.")
    return by_day, ratio.foretold(by_day[-1])
