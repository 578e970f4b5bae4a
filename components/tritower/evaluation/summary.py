"""The Markdown summary: the verdict, what a reader must know besides, one narrow table per slice.

Kubeflow's page gives a table's cells no margins and has 400 pixels: five columns at most, everything else is a list.
"""

import re
from collections.abc import Sequence

from tritower.evaluation.estimate import RANKING, Estimate
from tritower.evaluation.gate import Decision
from tritower.evaluation.wording import LABELS, NAMES, SLICES, number


def markdown(
    decision: Decision,
    warnings: Sequence[str],
    notes: Sequence[str],
    sentences: Sequence[str],
    estimates: dict[str, Estimate],
) -> str:
    """The summary; its first line is the verdict."""
    lines = [f"**{_plain(decision.sentence())}**", ""]
    lines += [f"* **Warning.** {_plain(line)}" for line in warnings]
    lines += [f"* {_plain(line)}" for line in (*notes, *decision.reasons[1:], *sentences)]
    for name, estimate in estimates.items():
        lines += ["", f"## {SLICES[name]}", ""]
        lines += [f"* {estimate.requests:,} searches, {estimate.clicks:,} clicks, {estimate.users:,} users"]
        lines += [f"* Cannot be judged: {estimate.reason}."] if estimate.reason else []
        error = estimate.value["model"]["calibration_error"]
        lines += [f"* calibration error of the triple tower {number(error)}", ""]
        lines += ["| ranker | " + " | ".join(LABELS[m] for m in RANKING) + " |", "|:---|" + "---:|" * len(RANKING)]
        for ranker in (name for name in NAMES if name in estimate.value):
            lines.append(f"| {NAMES[ranker]} | " + " | ".join(number(estimate.value[ranker][m]) for m in RANKING) + " |")
    return "\n".join([*lines, ""])


def _plain(text: str) -> str:
    """Text in Markdown as it stands: its own signs mean nothing there."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&]|^[-+])", r"\\\1", " ".join(text.split()))
