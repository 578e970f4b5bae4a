"""The search as drawings: history, parallel coordinates, and the trials along the way; inline SVG text."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tritower.drawable import any_script, drawable
from tritower.tuning.config import Parameter

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tritower",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#94a3b8",
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_COLOURS = {"complete": "#2563eb", "pruned": "#d97706", "fail": "#b91c1c"}
Trials = Sequence[dict[str, Any]]


class Drawing:
    """One drawing; `svg` is filled when it is closed."""

    def __init__(self, figure: Figure, axes: Axes) -> None:
        self.figure, self.axes, self.svg = figure, axes, ""


@contextmanager
def _drawing(label: str, width: float, height: float) -> Iterator[Drawing]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        drawing = Drawing(figure, figure.subplots())
        yield drawing
        text = io.StringIO()
        with any_script():
            figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\1{label}-", svg[svg.index("<svg") :])  # ids differ between drawings of a page
    drawing.svg = re.sub(r'(<svg [^>]*?)(?:height|width)="[^"]*"([^>]*?)(?:height|width)="[^"]*"', r"\1\2", svg, count=1)


def history(trials: Trials, untuned: float, metric: str, *, maximize: bool) -> str:
    """Every finished trial in order, the best so far, and the step's own defaults."""
    with _drawing("history", 8.2, 3.4) as drawing:
        axes = drawing.axes
        best: list[float] = []
        finished = [item for item in trials if item["value"] is not None]
        for item in finished:
            best.append(item["value"] if not best else (max if maximize else min)(best[-1], item["value"]))
        axes.plot(
            [i["number"] for i in finished], [i["value"] for i in finished], "o", color=_COLOURS["complete"], label="finished"
        )
        axes.step([i["number"] for i in finished], best, where="post", color="#0f172a", linewidth=1.2, label="best so far")
        pruned = [item for item in trials if item["state"] == "pruned" and item["along"]]
        axes.plot(
            [i["number"] for i in pruned],
            [i["along"][-1] for i in pruned],
            "x",
            color=_COLOURS["pruned"],
            label="stopped early",
        )
        axes.axhline(untuned, color="#64748b", linestyle=":", label="defaults")
        axes.set(xlabel="trial", ylabel=drawable(metric))
        axes.legend(loc="best", fontsize=9)
    return drawing.svg


def parallel(trials: Trials, space: Sequence[Parameter], metric: str, *, maximize: bool) -> str:
    """One line per finished trial through its knobs to its metric, the better the darker."""
    finished = [item for item in trials if item["value"] is not None]
    with _drawing("parallel", 8.2, 3.8) as drawing:
        axes = drawing.axes
        axes.grid(visible=False)
        names = [parameter.name for parameter in space]
        values = [item["value"] for item in finished]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        spread = (high - low) or 1.0
        for item in sorted(finished, key=lambda item: item["value"], reverse=not maximize):
            good = (item["value"] - low) / spread if maximize else (high - item["value"]) / spread
            heights = [height(parameter, item["params"][parameter.name]) for parameter in space]
            heights.append((item["value"] - low) / spread)
            axes.plot(
                range(len(heights)), heights, color=mpl.colormaps["viridis_r"](good), alpha=0.35 + 0.6 * good, linewidth=1.4
            )
        for at, parameter in enumerate(space):
            axes.axvline(at, color="#94a3b8", linewidth=1)
            for text, where in _ticks(parameter):
                axes.annotate(
                    drawable(text, 30),
                    (at, where),
                    xytext=(4, 0),
                    textcoords="offset points",
                    fontsize=8,
                    color="#475569",
                    va="center",
                )
        axes.axvline(len(names), color="#94a3b8", linewidth=1)
        for text, where in ((f"{low:.4f}", 0.0), (f"{high:.4f}", 1.0)):
            axes.annotate(text, (len(names), where), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center")
        axes.set_xticks(range(len(names) + 1), [drawable(name) for name in (*names, metric)], fontsize=9)
        axes.set_yticks([])
        axes.set_xlim(-0.1, len(names) + 0.5)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
    return drawing.svg


def height(parameter: Parameter, text: str) -> float:
    """Where a value stands on its axis, 0 to 1."""
    if parameter.kind == "categorical":
        return parameter.choices.index(text) / (len(parameter.choices) - 1)
    assert parameter.low is not None and parameter.high is not None
    scale = math.log if parameter.log else float
    return (scale(float(text)) - scale(parameter.low)) / (scale(parameter.high) - scale(parameter.low))


def _ticks(parameter: Parameter) -> list[tuple[str, float]]:
    texts = parameter.choices or (f"{parameter.low:g}", f"{parameter.high:g}")
    return [(text, height(parameter, text)) for text in texts]
