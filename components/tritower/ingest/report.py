"""The data-quality report: one HTML page without outside references."""

import io
from importlib.resources import files
from typing import Any

import jinja2
import matplotlib
from matplotlib.figure import Figure

from tritower.drawable import any_script, drawable
from tritower.ingest.quality import Finding

_BLUE, _GREY, _RED = "#2b6cb0", "#a0aec0", "#c53030"


def page(measured: dict[str, Any], before: dict[str, Any] | None, findings: list[Finding]) -> str:
    """The report as HTML: counts, reasons, findings, missing values, and days, beside the earlier run where there is one."""
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        files("tritower.ingest").joinpath("report.html").read_text(encoding="utf-8")
    )
    return template.render(
        counts=measured["counts"],
        examples=measured["examples"],
        findings=sorted(findings, key=lambda finding: not finding.is_beyond),
        new_companies=measured.get("new_companies"),
        companies=measured["companies"],
        plots={
            "Impressions by day": _days(measured, before, lambda day: day["impressions"]),
            "Click-through rate by day": _days(measured, before, lambda day: day["clicks"] / max(1, day["impressions"])),
            "Share of missing values": _missing(measured, before),
        },
    )


def _days(measured: dict[str, Any], before: dict[str, Any] | None, value: Any) -> str:
    figure = Figure(figsize=(8, 2.4), layout="constrained")
    axes = figure.add_subplot()
    days = sorted({day["day"] for run in (measured, before) if run for day in run["days"]})
    for run, colour, label in ((before, _GREY, "before"), (measured, _BLUE, "now")):
        if run:
            columns = [days.index(day["day"]) for day in run["days"]]
            axes.plot(columns, [value(day) for day in run["days"]], color=colour, label=label, marker=".", linewidth=1)
    shown = range(0, len(days), max(1, len(days) // 8))
    axes.set_xticks(list(shown), [drawable(days[column]) for column in shown], fontsize=7)
    axes.set_ylim(bottom=0)
    axes.tick_params(axis="y", labelsize=7)
    if before:
        axes.legend(fontsize=7)
    return _svg(figure)


def _missing(measured: dict[str, Any], before: dict[str, Any] | None) -> str:
    bars = [
        (f"{table}.{column}", share, (before or {}).get("missing", {}).get(table, {}).get(column))
        for table, columns in measured["missing"].items()
        for column, share in columns.items()
    ]
    figure = Figure(figsize=(8, 0.18 * len(bars) + 0.5), layout="constrained")
    axes = figure.add_subplot()
    axes.barh([drawable(name) for name, _, _ in bars], [share for _, share, _ in bars], color=_BLUE, height=0.6)
    earlier = [(share, name) for name, _, share in bars if share is not None]
    if earlier:
        axes.scatter(
            [share for share, _ in earlier], [drawable(name) for _, name in earlier], color=_RED, marker="|", label="before"
        )
        axes.legend(fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.tick_params(labelsize=7)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "tritower", "svg.fonttype": "none"}), any_script():
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
