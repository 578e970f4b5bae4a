"""The data-quality report as data: rows in and out, what was refused and mended, measures and their limits, days."""

from collections.abc import Sequence
from typing import Any

from tritower.drawable import drawable
from tritower.ingest.quality import Finding
from tritower.pages import page
from tritower.pages.drawing import Drawing, canvas, few_ticks

_BLUE, _GREY, _RED = "#2b6cb0", "#a0aec0", "#c53030"
_TYPE_HEIGHT = 20  # units that a line of type needs


def verdict(counts: dict[str, Any], findings: Sequence[Finding]) -> str:
    """What became of the rows, in one sentence; of the tables that were given."""
    kept = "; ".join(
        f"{counted['out']:,} of {counted['in']:,} {name} kept, {counted['quarantined']:,} refused"
        for name in ("impressions", "jobs", "users")
        if (counted := counts.get(name, {"in": 0}))["in"]
    )
    beyond = [finding.name for finding in findings if finding.is_beyond]
    return f"Stopped: {', '.join(beyond)} beyond the limit. {kept}" if beyond else f"Accepted: {kept}"


def html(measured: dict[str, Any], before: dict[str, Any] | None, findings: list[Finding]) -> str:
    """The report: counts, reasons, findings, missing values, and days, beside the earlier run where there is one."""
    counts = measured["counts"]
    plots = [
        _days("Impressions by day", measured, before, lambda day: day["impressions"]),
        _days("Click-through rate by day", measured, before, lambda day: day["clicks"] / max(1, day["impressions"])),
    ]
    missing = [_missing(name, columns, before) for name, columns in measured["missing"].items()]
    whole = page.Page(
        name="Data quality",
        verdict=verdict(counts, findings),
        tone="bad" if any(finding.is_beyond for finding in findings) else "good",
        lines=[_companies(measured)],
        sections=[
            page.Section(title="Rows", blocks=[_rows(counts)], is_open=True),
            page.Section(title="Refused rows by reason", blocks=[_reasons(counts)], is_open=True),
            page.Section(title="Measures and their limits", blocks=[_findings(findings)], is_open=True),
            page.Section(title="Values that were mended or taken for missing", blocks=[_mended(counts, measured["examples"])]),
            page.Section(title="Days", blocks=[page.Plots(plots=plots)]),
            page.Section(title="Missing values", blocks=[page.Plots(plots=missing)]),
        ],
    )
    return page.html(whole)


def _companies(measured: dict[str, Any]) -> str:
    text, new = f"{measured['companies']:,} companies", measured.get("new_companies")
    if new:
        share = new["impressions_share"]
        text += f", {new['companies']:,} of them new since the earlier run, with {share:.1%} of the impressions"
    return f"{text}."


def _rows(counts: dict[str, Any]) -> page.Table:
    kinds = ("in", "out", "quarantined", "deduplicated", "merged")
    rows = [[name, *(f"{counted.get(kind, 0):,}" for kind in kinds)] for name, counted in counts.items()]
    return page.Table(columns=["table", "in", "out", "refused", "repeated", "merged"], rows=rows)


def _reasons(counts: dict[str, Any]) -> page.Table:
    rows = [
        [page.spoken(reason), name, f"{number:,}"]
        for name, counted in counts.items()
        for reason, number in counted["reasons"].items()
    ]
    return page.Table(columns=["reason", "table", "rows"], rows=rows, text_columns=2)


def _mended(counts: dict[str, Any], examples: dict[str, dict[str, str]]) -> page.Table:
    rows = [
        [page.spoken(code), name, examples.get(name, {}).get(code, ""), f"{number:,}"]
        for name, counted in counts.items()
        for code, number in counted["mended"].items()
    ]
    return page.Table(columns=["value", "table", "first", "rows"], rows=rows, text_columns=3)


def _findings(findings: Sequence[Finding]) -> page.Table:
    rows: list[Sequence[str | page.Cell]] = [
        [
            finding.name,
            page.Cell(text=f"{finding.value:.2%}", tone="bad" if finding.is_beyond else ""),
            "-" if finding.before is None else f"{finding.before:.2%}",
            page.Cell(text=finding.limit, tone="bad" if finding.is_beyond else ""),
        ]
        for finding in sorted(findings, key=lambda finding: not finding.is_beyond)
    ]
    return page.Table(columns=["measure", "now", "before", "limit"], rows=rows)


def _days(title: str, measured: dict[str, Any], before: dict[str, Any] | None, value: Any) -> Drawing:
    with canvas(title, name=title) as drawn:
        days = sorted({day["day"] for run in (measured, before) if run for day in run["days"]})
        few_ticks(drawn.axes)
        for run, colour, label in ((before, _GREY, "before"), (measured, _BLUE, "now")):
            if run:
                columns = [days.index(day["day"]) for day in run["days"]]
                found = [value(day) for day in run["days"]]
                drawn.axes.plot(columns, found, color=drawn.key(colour, label), marker=".", linewidth=1)
        shown = range(0, len(days), max(1, -(-len(days) // 3)))
        drawn.axes.set_xticks(list(shown), [drawable(days[column], 12) for column in shown])
        drawn.axes.set_ylim(bottom=0)
    return drawn.drawing()


def _missing(table: str, columns: dict[str, float], before: dict[str, Any] | None) -> Drawing:
    earlier = (before or {}).get("missing", {}).get(table, {})
    with canvas(f"Share of missing values, {table}", name=f"missing {table}", height=50 + _TYPE_HEIGHT * len(columns)) as drawn:
        places = range(len(columns))
        drawn.axes.barh(places, list(columns.values()), color=drawn.key(_BLUE, "now"), height=0.6)
        known = [(earlier[name], at) for at, name in enumerate(columns) if earlier.get(name) is not None]
        if known:
            colour = drawn.key(_RED, "before")
            drawn.axes.scatter([share for share, _ in known], [at for _, at in known], color=colour, marker="|")
        few_ticks(drawn.axes)
        drawn.axes.set_yticks(places, [drawable(name, 16).replace("_", " ") for name in columns])
        drawn.axes.invert_yaxis()
        drawn.axes.set_xlim(0, 1)
    return drawn.drawing()
