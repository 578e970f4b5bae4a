"""What the data looked like, and how it differs from an earlier run.

`measure` asks the engine for shares and counts; `compare` is pure: two measurements and the limits in, findings out. A finding
beyond its limit stops the step.
"""

from dataclasses import dataclass
from typing import Any

from tritower.engines.protocol import Engine
from tritower.ingest import tables
from tritower.ingest.config import IngestConfig
from tritower.schema import RAW_TABLES

DAY_US = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One measure beside its earlier value; `limit` is what the difference may be, in words."""

    name: str
    value: float
    before: float | None
    limit: str
    is_beyond: bool


def measure(engine: Engine, counts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The quality of one run: JSON-ready.

    Args:
        engine: holds `c_<table>` for every raw table, `u_impressions`, `s_requests` and `n_jobs`.
        counts: rows by raw table: in, out, quarantined, deduplicated, merged, reasons, mended (by `column.what`).
    """
    return {
        "version": 1,
        "counts": counts,
        "missing": {name: _missing(engine, name) for name in RAW_TABLES if counts[name]["in"]},
        "days": _days(engine),
        "companies": _one(engine, "SELECT count(*) AS n FROM n_companies"),
    }


def new_companies(engine: Engine, previous_jobs: str) -> dict[str, float]:
    """Companies that an earlier dataset's jobs do not have, and their share of the impressions.

    Args:
        engine: as for `measure`.
        previous_jobs: location of the earlier dataset's jobs.parquet.
    """
    engine.register("previous_jobs", previous_jobs)
    engine.map_batches(
        "previous_companies",
        "SELECT DISTINCT p.company FROM previous_jobs p",
        tables.fold_companies,
        tables.FOLDED_SCHEMA,
    )
    engine.sql(
        "fresh_companies",
        """SELECT DISTINCT c.company_key, c.value FROM n_companies c
        ANTI JOIN previous_companies p ON c.value = p.company_folded""",
    )
    shown = """SELECT count(*) AS n FROM u_impressions i JOIN n_jobs j ON i.job = j.job
        SEMI JOIN fresh_companies f ON j.company_folded = f.value"""
    return {
        "companies": _one(engine, "SELECT count(*) AS n FROM fresh_companies"),
        "impressions_share": _one(engine, shown) / max(1, _one(engine, "SELECT count(*) AS n FROM u_impressions")),
    }


def compare(measured: dict[str, Any], before: dict[str, Any] | None, config: IngestConfig) -> list[Finding]:
    """Every measure that has a limit, beside its earlier value if there is an earlier run.

    Args:
        measured: of this run; with key "new_companies" where there is an earlier run.
        before: of the earlier run, or None.
        config: the limits.
    """
    limit = config.max_repeated_share
    found = [
        _share(f"{name}: repeated rows", _repeated(measured, name), limit, _repeated(before, name) if before else None)
        for name in measured["counts"]
    ]
    if before is None:
        return found
    for name, columns in measured["missing"].items():
        for column, share in columns.items():
            earlier = before["missing"].get(name, {}).get(column)
            if earlier is not None:
                rise = share - earlier
                found.append(
                    Finding(
                        name=f"{name}: {column} missing",
                        value=share,
                        before=earlier,
                        limit=f"at most {config.max_missing_rise:.1%} more",
                        is_beyond=rise > config.max_missing_rise,
                    )
                )
    now, then = click_rate(measured), click_rate(before)
    found.append(
        Finding(
            name="impressions: click-through rate",
            value=now,
            before=then,
            limit=f"at most {config.max_ctr_change:.1%} up or down, as a ratio",
            is_beyond=then > 0 and abs(now / then - 1) > config.max_ctr_change,
        )
    )
    share = measured["new_companies"]["impressions_share"]
    found.append(_share("impressions of new companies", share, config.max_new_company_share, None))
    return found


def click_rate(measured: dict[str, Any]) -> float:
    """Clicks over impressions, all days together."""
    shown = sum(day["impressions"] for day in measured["days"])
    return float(sum(day["clicks"] for day in measured["days"]) / max(1, shown))


def _repeated(measured: dict[str, Any], name: str) -> float:
    counted = measured["counts"][name]
    return float(counted["deduplicated"] / max(1, counted["in"]))


def _share(name: str, value: float, limit: float, before: float | None) -> Finding:
    return Finding(name=name, value=value, before=before, limit=f"at most {limit:.1%}", is_beyond=value > limit)


def _missing(engine: Engine, name: str) -> dict[str, float]:
    """Share of the rows without a value, by column."""
    columns = RAW_TABLES[name].names()
    asked = ", ".join(f"count(c.{column}) AS has_{column}" for column in columns)
    found = engine.rows(f"SELECT count(*) AS n, {asked} FROM c_{name} c")[0]
    return {column: 1 - found[f"has_{column}"] / found["n"] for column in columns}


def _days(engine: Engine) -> list[dict[str, Any]]:
    """Impressions, clicks and requests by day in UTC."""
    day = f"r.ts - r.ts % {DAY_US}"
    rows = engine.rows(
        f"""SELECT d.day, count(*) AS impressions, count(CASE WHEN d.clicked THEN 1 END) AS clicks,
            count(DISTINCT d.request) AS requests
        FROM (SELECT {day} AS day, i.clicked, i.request FROM u_impressions i JOIN s_requests r ON i.request = r.request) d
        GROUP BY d.day ORDER BY d.day"""
    )
    return [row | {"day": (tables.iso(row["day"]) or "")[:10]} for row in rows]


def _one(engine: Engine, query: str) -> int:
    return int(engine.rows(query)[0]["n"])
