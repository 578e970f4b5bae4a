"""What was refused and what was mended: counted, named with a row, and held to a limit."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tritower.engines.protocol import Engine
from tritower.errors import QualityError
from tritower.ingest import rows, tables
from tritower.ingest.config import IngestConfig
from tritower.schema import RAW_TABLES

# What a mend says of a value: the rest is a stand-in for a value that was never there, these were meant to be one.
UNREADABLE = ("wrong_type", "not_text", "out_of_range", "ambiguous_time")


@dataclass(frozen=True, kw_only=True)
class Mend:
    """One kind of value that was not taken as it stands: in how many rows, and the first of them."""

    rows: int
    example: str


def mended(engine: Engine, name: str, files: list[str]) -> dict[str, Mend]:
    """By `column.what`, in order."""
    found = engine.rows(
        f"""SELECT c.mended, count(*) AS n, min(CASE WHEN c.detail IS NOT NULL THEN c.seq END) AS seq
        FROM c_{name} c WHERE c.mended IS NOT NULL GROUP BY c.mended"""
    )
    firsts = sorted(row["seq"] for row in found if row["seq"] is not None)
    details = {}
    if firsts:
        wanted = ", ".join(map(str, firsts))
        details = {
            row["seq"]: row["detail"] for row in engine.rows(f"SELECT seq, detail FROM c_{name} WHERE seq IN ({wanted})")
        }
    counted: dict[str, int] = {}
    first: dict[str, tuple[int, str]] = {}
    for row in found:
        for code in row["mended"].split(","):
            counted[code] = counted.get(code, 0) + row["n"]
            for detail in details.get(row["seq"], "").split("\n"):
                if detail.startswith(f"{code.rpartition('.')[0]} = ") and (code not in first or row["seq"] < first[code][0]):
                    first[code] = (row["seq"], f"{detail} ({place(row['seq'], files)})")
    return {code: Mend(rows=counted[code], example=first.get(code, (0, ""))[1]) for code in sorted(counted)}


def place(seq: int, files: list[str]) -> str:
    """The file and the row, counted from 0 as in the quarantine."""
    number = seq >> rows.FILE_BITS
    file = PurePosixPath(files[number]).name if number < len(files) else ""
    return f"{file}, row {seq & ((1 << rows.FILE_BITS) - 1)} counted from 0"


def check(engine: Engine, counts: dict[str, dict[str, Any]], config: IngestConfig, files: dict[str, list[str]]) -> None:
    """Count the refused rows by reason into `counts`; stop when they, or the clicks among them, are too many."""
    for name, table in RAW_TABLES.items():
        tables.quarantine(engine, table)
        found = engine.rows(f"SELECT reason, count(*) AS n FROM q_{name} GROUP BY reason ORDER BY reason")
        counted = counts[name]
        counted["reasons"] = {row["reason"]: row["n"] for row in found}
        counted["quarantined"] = sum(row["n"] for row in found)
        if counted["quarantined"] > config.max_quarantined_share * counted["in"]:
            raise _too_many(engine, name, "rows", counted["quarantined"], counted, config, files[name])
    shown = counts["impressions"]
    # A time of a click is a click, too, whatever `clicked` says.
    is_click = "c.clicked OR c.clicked_at IS NOT NULL"
    shown["clicks"] = _count(engine, f"SELECT count(*) AS n FROM c_impressions c WHERE {is_click}")
    if shown["in"] and shown["mended"].get("clicked.missing") == shown["in"] and not shown["clicks"]:
        raise QualityError(
            "no row has a value in the column 'clicked'",
            where="impressions",
            remedy="Fill it in; or, where every row is a view or a click, leave the column out.",
        )
    refused = f"FROM q_impressions q JOIN c_impressions c ON q.seq = c.seq WHERE {is_click}"
    shown["clicks_quarantined"] = _count(engine, f"SELECT count(*) AS n {refused}") if shown["quarantined"] else 0
    if shown["clicks_quarantined"] > config.max_quarantined_share * shown["clicks"]:
        found = engine.rows(f"SELECT q.reason, count(*) AS n {refused} GROUP BY q.reason ORDER BY q.reason")
        counted = {"in": shown["clicks"], "reasons": {row["reason"]: row["n"] for row in found}}
        refused_clicks = shown["clicks_quarantined"]
        raise _too_many(engine, "impressions", "clicks", refused_clicks, counted, config, files["impressions"])


def _too_many(
    engine: Engine, name: str, what: str, refused: int, counted: dict[str, Any], config: IngestConfig, files: list[str]
) -> QualityError:
    reasons = counted["reasons"]
    most = max(reasons, key=lambda reason: (reasons[reason], reason))
    first = engine.rows(f"SELECT seq, detail FROM q_{name} WHERE reason = '{most}' ORDER BY seq LIMIT 1")[0]
    remedy = "Mend the source, or raise the knob max_quarantined_share."
    if most == "ambiguous_time":
        remedy = "Write times as 2026-01-31T12:00:00Z or as seconds since 1970. " + remedy
    elif most == "click_before_impression":
        remedy = f"Set both times by one clock, or raise the knob max_click_skew_s ({config.max_click_skew_s:g} s). " + remedy
    return QualityError(
        f"{refused / counted['in']:.1%} of the {what} were refused, at most {config.max_quarantined_share:.1%} are allowed: "
        + ", ".join(f"{reason} {n:,}" for reason, n in reasons.items())
        + f"; the first {most}: {first['detail']} ({place(first['seq'], files)})",
        where=name,
        remedy=remedy,
    )


def _count(engine: Engine, query: str) -> int:
    return int(engine.rows(query)[0]["n"])
