"""The self-contained HTML report, and the Markdown summary."""

import math
import re
from importlib import resources
from typing import Any

import jinja2
import numpy as np

from tritower.evaluation import plots
from tritower.evaluation.disagreements import Disagreement
from tritower.evaluation.estimate import METRICS, RANKING, Estimate
from tritower.evaluation.rows import Rows
from tritower.metrics.intervals import Interval

TITLES = {
    "randomised": "Searches shown in random order",
    "ipw": "Logged searches, clicks weighted by inverse examination",
    "redrawn": "All searches, clicks redrawn from the truth",
    "logged": "Searches as logged",
}
_WHERE = {
    "randomised": "on searches shown in random order",
    "ipw": "on logged searches, clicks weighted by inverse examination",
    "logged": "on searches as logged",
}
PROVENANCE = {
    "truth": (
        "No public data set holds job queries, jobs shown and not clicked, texts and histories at once. These figures are of a "
        "generated log whose true click probabilities are known; the oracle ranks by them."
    ),
    "real": (
        "These figures are of the log that was given. Its true click probabilities are not known, so the distance to the best "
        "possible ranking is not either."
    ),
}
EXPLANATIONS = {
    "randomised": (
        "Jobs were shown in random order, so what was clicked does not depend on who ranked the page. This is the slice that "
        "decides: it says which ranker users would prefer."
    ),
    "ipw": (
        "A click far down the page was less likely to happen, so it stands for more clicks that did not: each click counts by "
        "the inverse of how often its position is examined. This corrects for where jobs stood, not for which jobs were shown."
    ),
    "redrawn": (
        "The log is generated, so the probability of a click on every job, once seen, is known. Here clicks are drawn anew "
        "from those probabilities, as if every job on the page had been seen: no position bias at all, and far more clicks "
        "than the random searches have. A real log has no such slice."
    ),
    "logged": (
        "Jobs were ordered by the ranker then in use. Its favourites stood at the top and were seen more, so these clicks "
        "favour rankers that resemble it. Read the figures as a check, not as the verdict."
    ),
}
NOT_JUDGED = "cannot be judged"
_NAMES = {**plots.LABELS, "log_loss": "log loss", "calibration_error": "calibration error"}


def html(context: dict[str, Any]) -> str:
    """Fill the template; every value is escaped except the plots."""
    template = resources.files("tritower.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(context)


def percent(value: float, digits: int = 1) -> str:
    """A signed percentage, such as +12.3 %."""
    return f"{100 * value:+.{digits}f} %"


def table(estimate: Estimate, level: float) -> list[dict[str, Any]]:
    """One row per ranker: name, colour, and a cell per metric with its interval."""
    rows = []
    for ranker in (name for name in plots.NAMES if name in estimate.value):
        cells = []
        for metric in METRICS:
            value = estimate.value[ranker][metric]
            cell = {"value": f"{value:.4f}", "range": ""}
            if metric in estimate.without_U[ranker]:
                interval = estimate.interval(ranker, metric, level)
                cell["range"] = NOT_JUDGED if interval.reason else f"{interval.low:.4f} to {interval.high:.4f}"
            cells.append(cell)
        rows.append({"name": plots.NAMES[ranker], "colour": plots.COLOURS[ranker], "cells": cells})
    return rows


def lift_rows(estimate: Estimate, bases: list[str], level: float) -> list[dict[str, Any]]:
    """One row per base: a signed cell per ranking metric."""
    rows = []
    for base in bases:
        lifts = [estimate.lift("model", base, metric, level) for metric in RANKING]
        rows.append({"name": plots.NAMES[base], "cells": [_lift_cell(lift) for lift in lifts]})
    return rows


def slice_context(
    name: str, estimate: Estimate, bases: list[str], level: float, drawings: dict[str, list[dict[str, str]]]
) -> dict[str, Any]:
    """What the template needs of one slice."""
    return {
        "title": TITLES[name],
        "explanation": EXPLANATIONS[name],
        "size": (
            f"{estimate.rows:,} impressions, {estimate.requests:,} searches, {estimate.clicks:,} clicks, "
            f"{estimate.users:,} users, worth {estimate.effective_users():,.0f} of equal weight."
        ),
        "reason": estimate.reason,
        "columns": [_NAMES[metric] for metric in METRICS],
        "table": table(estimate, level),
        "lift_columns": [_NAMES[metric] for metric in RANKING],
        "lifts": lift_rows(estimate, bases, level),
        **drawings,
    }


def verdict(name: str, estimate: Estimate, bases: list[str], level: float) -> list[str]:
    """The result in plain words, one line per base and one about the distance to the best possible ranking."""
    where = _WHERE[name]
    if estimate.reason:
        return [f"It cannot be judged which ranker is better {where}: {estimate.reason}."]
    lines = [] if bases else ["No other ranker was scored: whether the triple tower ranks better is not known."]
    for base in bases:
        lifts = {metric: estimate.lift("model", base, metric, level) for metric in ("auc", "map@1", "map@3")}
        sure = [lift.low > 0 for lift in lifts.values()]
        worse = [lift.high < 0 for lift in lifts.values()]
        word = (
            "ranks better than" if all(sure)
            else "ranks worse than" if any(worse) and not any(sure)
            else "is not clearly apart from" if not any(sure) and not any(worse)
            else "is partly ahead of"
        )  # fmt: skip
        figures = ", ".join(f"{plots.LABELS[m]} {percent(v.value)} ({_range(v)})" for m, v in lifts.items())
        lines.append(f"The triple tower {word} {plots.NAMES[base]} {where}: {figures}.")
    if "oracle" in estimate.value and "baseline" in estimate.value:
        share = estimate.share("model", "baseline", "oracle", "auc", level)
        if not share.reason:
            lines.append(
                f"It covers {100 * share.value:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f}) of the AUC between "
                "XGBoost on standard features and the best possible ranking."
            )
    return lines


def kinds_context(kinds: dict[str, Estimate], rival: str, basis: str, level: float) -> dict[str, Any]:
    """The table of slices: size, mAP@3 of model and rival, lifts with intervals."""
    rows = []
    for name, value in kinds.items():
        lifts = [value.lift("model", rival, metric, level) for metric in ("auc", "map@1", "map@3")]
        rows.append(
            {
                "name": name,
                "searches": f"{value.requests:,}",
                "values": [f"{value.value[ranker]['map@3']:.4f}" for ranker in ("model", rival)],
                "cells": [_lift_cell(lift) for lift in lifts],
            }
        )
    return {"rows": rows, "rival": plots.NAMES[rival], "basis": TITLES[basis].lower()}


def browser_context(
    rows: Rows,
    rival: str,
    won: list[Disagreement],
    lost: list[Disagreement],
    searches: dict[int, str],
    jobs: dict[int, str],
) -> dict[str, Any]:
    """The error browser: per search, both rankers' top jobs with the clicked ones marked."""

    def listed(top: tuple[int, ...]) -> list[dict[str, Any]]:
        return [{"text": jobs[int(rows.job[row])], "clicked": bool(rows.clicked[row])} for row in top]

    def shown(items: list[Disagreement]) -> list[dict[str, Any]]:
        return [
            {
                "search": searches[item.request],
                "ours": f"{item.ours:.2f}",
                "theirs": f"{item.theirs:.2f}",
                "ours_top": listed(item.ours_top),
                "theirs_top": listed(item.theirs_top),
            }
            for item in items
        ]

    return {"rival": plots.NAMES[rival], "won": shown(won), "lost": shown(lost)}


def markdown(context: dict[str, Any], estimates: dict[str, Estimate], level: float) -> str:
    """A short summary: warnings, notes, the verdict and one table per slice; `context` is that of the report."""
    warnings = [f"**Warning.** {_plain(line)}" for line in context["warnings"]]
    above = [*warnings, *map(_plain, context["notes"]), *context["verdict"]]
    lines = ["# Evaluation", "", *[f"{line}\n" for line in above]]
    for name, estimate in estimates.items():
        lines += [f"## {TITLES[name]}", ""]
        lines += [f"Cannot be judged: {estimate.reason}.", ""] if estimate.reason else []
        lines += ["| ranker | " + " | ".join(_NAMES[m] for m in METRICS) + " |"]
        lines += ["|---|" + "---|" * len(METRICS)]
        lines += [
            f"| {row['name']} | " + " | ".join(cell["value"] for cell in row["cells"]) + " |" for row in table(estimate, level)
        ]
        lines.append("")
    return "\n".join(lines)


def _lift_cell(lift: Interval) -> dict[str, str]:
    sign = "up" if lift.low > 0 else "down" if lift.high < 0 else ""
    value = percent(lift.value) if math.isfinite(lift.value) else "-"
    return {"value": value, "range": _range(lift), "sign": sign, "reason": lift.reason}


def _range(lift: Interval) -> str:
    return NOT_JUDGED if lift.reason else f"{percent(lift.low)} to {percent(lift.high)}"


def _plain(text: str) -> str:
    """Text in Markdown as it stands: its own signs mean nothing there."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&-])", r"\\\1", " ".join(text.split()))


def rates_by_position(position_N: Any, clicked_N: Any, most: int = 25) -> Any:
    """Click rate of each position from 1, relative to the first; empty without positions."""
    shown = np.bincount(position_N)[1 : most + 1].astype(float)
    clicks = np.bincount(position_N, weights=clicked_N)[1 : most + 1]
    if len(shown) == 0 or clicks[0] == 0:
        return np.empty(0)
    return (clicks / np.maximum(shown, 1)) / (clicks[0] / shown[0])
