"""The search as drawings: history, and every finished trial through its knobs."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl

from tritower.drawable import drawable
from tritower.pages.drawing import Drawing, canvas, few_ticks
from tritower.pages.page import spoken
from tritower.tuning.config import Parameter

_COLOURS = {"complete": "#2563eb", "pruned": "#d97706", "best": "#0f172a", "defaults": "#64748b"}
_ROW = 62  # units of height for one knob
Trials = Sequence[dict[str, Any]]


def history(trials: Trials, untuned: float, metric: str, *, maximize: bool) -> Drawing:
    """Every finished trial in order, the best so far, and the step's own defaults."""
    with canvas("History", name="history") as drawn:
        best: list[float] = []
        finished = [item for item in trials if item["value"] is not None]
        for item in finished:
            best.append(item["value"] if not best else (max if maximize else min)(best[-1], item["value"]))
        at = [item["number"] for item in finished]
        colour = drawn.key(_COLOURS["complete"], "finished")
        drawn.axes.plot(at, [item["value"] for item in finished], "o", color=colour)
        drawn.axes.step(at, best, where="post", color=drawn.key(_COLOURS["best"], "best so far"), linewidth=1.2)
        pruned = [item for item in trials if item["state"] == "pruned" and item["along"]]
        if pruned:
            colour = drawn.key(_COLOURS["pruned"], "stopped early")
            drawn.axes.plot([i["number"] for i in pruned], [i["along"][-1] for i in pruned], "x", color=colour)
        drawn.axes.axhline(untuned, color=drawn.key(_COLOURS["defaults"], "defaults"), linestyle=":")
        few_ticks(drawn.axes, whole=True)
        drawn.axes.set(xlabel="trial", ylabel=drawable(spoken(metric)))
    return drawn.drawing()


def parallel(trials: Trials, space: Sequence[Parameter], metric: str, *, maximize: bool) -> Drawing:
    """One line per finished trial from its first knob, at the top, down to its metric; the better the darker."""
    finished = [item for item in trials if item["value"] is not None]
    with canvas("Every trial, setting by setting", name="parallel", height=_ROW * (len(space) + 1) + 20) as drawn:
        axes = drawn.axes
        values = [item["value"] for item in finished]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        spread = (high - low) or 1.0
        for item in sorted(finished, key=lambda item: item["value"], reverse=not maximize):
            good = (item["value"] - low) / spread if maximize else (high - item["value"]) / spread
            places = [height(parameter, item["params"][parameter.name]) for parameter in space]
            places.append((item["value"] - low) / spread)
            colour = mpl.colormaps["viridis_r"](good)
            axes.plot(places, range(len(places)), color=colour, alpha=0.35 + 0.6 * good, linewidth=1.4)
        rows = [(parameter.name, _ticks(parameter)) for parameter in space]
        for at, (name, ticks) in enumerate([*rows, (metric, [(f"{low:.4f}", 0.0), (f"{high:.4f}", 1.0)])]):
            axes.axhline(at, color="#94a3b8", linewidth=1)
            _written(axes, drawable(spoken(name)), (0, at), above=True)
            for text, where in ticks:
                _written(axes, drawable(text, 30), (where, at), above=False)
        axes.set(xlim=(-0.02, 1.02), ylim=(len(space) + 0.4, -0.4), xticks=[], yticks=[])
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
    return drawn.drawing()


def height(parameter: Parameter, text: str) -> float:
    """Where a value stands on its axis, 0 to 1."""
    if parameter.kind == "categorical":
        return parameter.choices.index(text) / (len(parameter.choices) - 1)
    assert parameter.low is not None and parameter.high is not None
    scale = math.log if parameter.log else float
    return (scale(float(text)) - scale(parameter.low)) / (scale(parameter.high) - scale(parameter.low))


def _written(axes: Any, text: str, place: tuple[float, float], *, above: bool) -> None:
    """Text above or below a point of an axis, within the drawing at both ends."""
    side = "left" if place[0] < 0.1 else "right" if place[0] > 0.9 else "center"
    offset, edge = ((0, 3), "bottom") if above else ((0, -3), "top")
    weight = "bold" if above else "normal"
    axes.annotate(text, place, xytext=offset, textcoords="offset points", ha=side, va=edge, color="#475569", weight=weight)


def _ticks(parameter: Parameter) -> list[tuple[str, float]]:
    texts = parameter.choices or (f"{parameter.low:g}", f"{parameter.high:g}")
    return [(text, height(parameter, text)) for text in texts]
