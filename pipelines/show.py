"""Plain text for a reader at a terminal: progress per step, the table of results, ranked jobs."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

from tritower.drawable import printable

from pipelines import steps
from pipelines.local import StepRun

_METRICS = {"auc": "AUC", "map@1": "mAP@1", "map@3": "mAP@3"}
_RANKERS = {
    "oracle": "best possible (true probabilities)",
    "model": "triple tower",
    "champion": "model in use",
    "baseline_full": "XGBoost, cosines, PCA, positions",
    "baseline_cos": "XGBoost, cosines",
    "baseline": "XGBoost",
}
_SLICES = {
    "randomised": "Test searches shown in random order (no position bias)",
    "redrawn": "All test searches, clicks redrawn from the true probabilities (no position bias)",
    "logged": "All test searches as logged (the old ranking's order)",
}
_LIFTS = {
    "lift": "over XGBoost",
    "lift_cos": "over XGBoost, cosines",
    "lift_full": "over XGBoost, cosines, PCA, positions",
    "lift_champion": "over the model in use",
}
_WARNINGS = 5  # of a step; the others are in its log


class Progress:
    """One line per step, rewritten while it runs where a terminal is attached, and what the step warns of.

    Args:
        total: number of steps.
        stream: where to write; standard output as it is now, because it is redirected during a run.
    """

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._total, self._count = total, 0
        self._stream = stream or sys.stdout
        self._is_terminal = self._stream.isatty()

    def __call__(self, step: StepRun) -> None:
        """Show what became of a step."""
        if step.status == "running":
            if self._is_terminal:
                self._write(f"\r{self._label(step, self._count + 1)} ...")
            return
        self._count += 1
        took = "cached" if step.status == "cached" else f"{step.seconds:.1f} s"
        mark = "FAILED" if step.status == "failed" else numbers(step)
        lines = [f"{self._label(step, self._count)} {took:>8}  {mark}".rstrip()]
        lines += [f"        Warning: {printable(line)}" for line in step.warnings[:_WARNINGS]]
        if len(step.warnings) > _WARNINGS:
            lines.append(f"        {len(step.warnings) - _WARNINGS} more warnings: {step.log}")
        self._write(("\r\x1b[K" if self._is_terminal else "") + "".join(f"{line}\n" for line in lines))

    def _label(self, step: StepRun, count: int) -> str:
        return f"  {count:>2}/{self._total} {step.name:<19}"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def numbers(step: StepRun) -> str:
    """The numbers of a step that are worth a glance, as text."""
    return ", ".join(
        f"{_spelled(name.removesuffix('_out'))} {value(step.numbers[name])}"
        for name in (steps.STEPS[step.name].shown if step.name in steps.STEPS else ())
        if name in step.numbers
    )


def _spelled(name: str) -> str:
    """A number's name as a reader's words: `map_at_3_lift_pct` is `mAP@3 lift pct`."""
    words = name.replace("map_at_", "mAP@").replace("_", " ").split()
    return " ".join("AUC" if word == "auc" else word for word in words)


def value(number: Any) -> str:
    """A number for a reader: thousands apart, three or four digits that matter."""
    if isinstance(number, float) and not number.is_integer():
        return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"
    return f"{number:,.0f}" if isinstance(number, int | float) and not isinstance(number, bool) else str(number)


def results(metrics: Mapping[str, Any]) -> str:
    """The verdict, what a reader must know, every slice's table: each ranker's figures, the model's lifts with intervals."""
    gate = metrics.get("gate")
    parts = [f"Gate: {gate['word']}. {printable(gate['reasons'][0])}"] if gate else []
    parts += [f"WARNING: {printable(line)}" for line in metrics.get("warnings", ())]
    parts += [f"Note: {printable(line)}" for line in metrics.get("notes", ())]
    for name, title in _SLICES.items():
        if metrics.get(name):
            counts = ", ".join(f"{metrics[name][key]:,} {key}" for key in ("requests", "clicks") if key in metrics[name])
            parts.append(f"{title}: {counts}\n{_slice(metrics[name])}")
    return "\n\n".join(parts)


def claim(found: Mapping[str, Any]) -> str:
    """What an online test says, and what must be known besides."""
    parts = [f"Claim: {found['claim']}. {printable(found['sentence'])}"]
    parts += [f"WARNING: {printable(line)}" for line in found["result"]["warnings"]]
    names = ("days", "units", "uplift_pct", "uplift_low_pct", "uplift_high_pct", "sample_ratio_p", "cuped_saved_pct")
    rows = [[_spelled(name), value(found[name])] for name in names if found.get(name) is not None]
    return "\n\n".join([*parts, table(rows)])


SHOWN: dict[str, Callable[[Mapping[str, Any]], str]] = {"metrics.json": results, "analysis.json": claim}
"""Result -> what a reader at a terminal is told of it."""


def _slice(figures: Mapping[str, Any]) -> str:
    header = ["", *_METRICS.values()]
    levels = [[title, *(_level(figures[key][m]) for m in _METRICS)] for key, title in _RANKERS.items() if figures.get(key)]
    lifts = [[title, *(_lift(figures[key][m]) for m in _METRICS)] for key, title in _LIFTS.items() if figures.get(key)]
    text = table([header, *levels])
    if lifts:
        text += "\n\n" + table([["lift of the triple tower", *header[1:]], *lifts])
    return "\n".join([text, *(f"  Cannot be judged: {reason}." for reason in _reasons(figures))])


def _reasons(figures: Mapping[str, Any]) -> list[str]:
    """Why lifts have no interval: once for all of them, or one by one."""
    if "cannot_be_judged" in figures:
        return [figures["cannot_be_judged"]]
    return [
        f"{_METRICS[metric]} {title}: {figures[key][metric]['reason']}"
        for key, title in _LIFTS.items()
        for metric in _METRICS
        if figures.get(key) and "reason" in figures[key][metric]
    ]


def _level(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.4f}"


def _lift(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "-"
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:+.1%} [?]"
    return f"{figure['value']:+.1%} [{figure['low']:+.1%}, {figure['high']:+.1%}]"


def table(lines: Sequence[Sequence[str]], *, indent: int = 2) -> str:
    """Text in columns: the first to the left, the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        " " * indent
        + "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def ranked_jobs(rows: Iterable[Mapping[str, Any]]) -> str:
    """Recommendations as text, a block per search; `true_probability` is shown where a row has it."""
    blocks: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        blocks.setdefault(row["request"], []).append(row)
    return "\n\n".join(_search(block) for block in blocks.values())


def _search(rows: Sequence[Mapping[str, Any]]) -> str:
    first = rows[0]
    place = _place(first["request_city"], first["request_region"])
    heading = f'"{printable(first["query"])}"' + (f" in {place}" if place else "")
    heading += f" ({first['ts']:%Y-%m-%d %H:%M}, {printable(first['user_id'])})"
    has_truth = "true_probability" in first
    lines = [["", *(["score", "true"] if has_truth else ["score"])]]
    for row in rows:
        title, company = _short(row["title"], 44), _short(row["company"], 26)
        job = f"{row['rank']:>2}  {title:<44}  {company:<26}  {_place(row['city'], row['region'])}"
        truth = [] if not has_truth else ["-" if row["true_probability"] is None else f"{row['true_probability']:.3f}"]
        lines.append([job, f"{row['score']:.3f}", *truth])
    return heading + "\n" + table(lines)


def _place(city: str | None, region: str | None) -> str:
    return ", ".join(printable(part) for part in (city, region) if part)


def _short(text: str, width: int) -> str:
    text = printable(text)
    return text if len(text) <= width else text[: width - 1] + "…"
