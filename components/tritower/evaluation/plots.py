"""The report's plots, as inline SVG text."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tritower.drawable import any_script
from tritower.evaluation.calibration import Curve
from tritower.evaluation.estimate import RANKING, Estimate

COLOURS = {
    "model": "#2563eb",
    "champion": "#7c3aed",
    "baseline": "#94a3b8",
    "baseline_cos": "#d97706",
    "baseline_full": "#b91c1c",
    "oracle": "#059669",
}
NAMES = {
    "model": "triple tower",
    "champion": "champion",
    "baseline": "XGBoost, standard features",
    "baseline_cos": "XGBoost with cosines",
    "baseline_full": "XGBoost with everything",
    "oracle": "oracle (best possible)",
}
LABELS = {"auc": "AUC", "map@1": "mAP@1", "map@3": "mAP@3", "ndcg@10": "nDCG@10"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tritower",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#94a3b8",
    "axes.labelcolor": "#334155",
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": "#475569",
    "ytick.color": "#475569",
    "legend.frameon": False,
}


class Canvas:
    """One drawing; `svg` is filled when the drawing is closed."""

    def __init__(self, figure: Figure, axes: Axes) -> None:
        self.figure, self.axes, self.svg = figure, axes, ""


@contextmanager
def _canvas(label: str, width: float = 5.4, height: float = 3.6) -> Iterator[Canvas]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        canvas = Canvas(figure, figure.subplots())
        yield canvas
        text = io.StringIO()
        with any_script():
            figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        svg = text.getvalue()
        svg = svg[svg.index("<svg") :]
        # Ids must differ between drawings of one page; the fixed size goes, so that the drawing fits its column.
        prefix = re.sub(r"\W+", "-", label).strip("-").lower()
        svg = re.sub(r'(id="|url\(#|href="#)', rf"\1{prefix}-", svg)
        svg = re.sub(r'<svg [^>]*viewBox="([^"]+)"[^>]*>', rf'<svg role="img" aria-label="{label}" viewBox="\1" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">', svg, count=1)  # fmt: skip  # noqa: E501
        canvas.svg = svg


def roc(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], name: str) -> str:
    """ROC curves: ranker -> (false positive rates, true positive rates)."""
    with _canvas(f"ROC {name}") as canvas:
        for ranker, (fpr, tpr) in curves.items():
            canvas.axes.plot(fpr, tpr, color=COLOURS[ranker], label=NAMES[ranker], linewidth=1.8)
        canvas.axes.plot([0, 1], [0, 1], color="#cbd5e1", linestyle=":", linewidth=1)
        canvas.axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01))
        canvas.axes.legend(loc="lower right", fontsize=9)
    return canvas.svg


def calibration(curves: Mapping[str, Curve], name: str) -> str:
    """Mean score against the click rate at the top position, bin by bin, on logarithmic axes."""
    with _canvas(f"Calibration {name}") as canvas:
        values = [v for c in curves.values() for v in (*c.score_B, *c.rate_B) if v > 0]
        low, high = (min(values), max(values)) if values else (0.01, 1.0)
        for ranker, c in curves.items():
            shown = c.rate_B > 0
            canvas.axes.plot(
                c.score_B[shown],
                c.rate_B[shown],
                "o-",
                color=COLOURS[ranker],
                label=NAMES[ranker],
                markersize=3.5,
                linewidth=1.2,
            )
        canvas.axes.plot([low, high], [low, high], color="#64748b", linestyle=":", linewidth=1)
        canvas.axes.set(xscale="log", yscale="log", xlabel="predicted probability at the top", ylabel="observed rate")
        canvas.axes.legend(loc="upper left", fontsize=9)
    return canvas.svg


def metrics(estimate: Estimate, level: float, name: str) -> str:
    """Bars of the ranking metrics with their intervals."""
    rankers = [ranker for ranker in NAMES if ranker in estimate.value]
    with _canvas(f"Metrics {name}", width=8.2) as canvas:
        width = 0.8 / len(rankers)
        for i, ranker in enumerate(rankers):
            intervals = [estimate.interval(ranker, metric, level) for metric in RANKING]
            at = np.arange(len(RANKING)) + (i - (len(rankers) - 1) / 2) * width
            values = np.array([interval.value for interval in intervals])
            errors = [[i.value - i.low for i in intervals], [i.high - i.value for i in intervals]]
            canvas.axes.bar(at, values, width * 0.9, color=COLOURS[ranker], label=NAMES[ranker])
            canvas.axes.errorbar(at, values, yerr=_whiskers(errors), fmt="none", ecolor="#0f172a", elinewidth=1, capsize=2)
        canvas.axes.set_xticks(np.arange(len(RANKING)), [LABELS[metric] for metric in RANKING])
        every = [v for ranker in rankers for v in (estimate.value[ranker][m] for m in RANKING) if np.isfinite(v)]
        if every:
            canvas.axes.set_ylim(max(0.0, min(every) - 0.15), min(1.0, max(every) + 0.06))
        canvas.axes.grid(axis="x", visible=False)
        canvas.figure.legend(loc="outside upper center", ncols=min(len(rankers), 3), fontsize=9)
    return canvas.svg


def lifts(estimate: Estimate, bases: Sequence[str], level: float, name: str) -> str:
    """Relative lift of the model over each base, in percent, with intervals; right of zero is better."""
    with _canvas(f"Lift {name}", width=8.2, height=0.6 + 0.34 * len(RANKING) * len(bases)) as canvas:
        labels, y = [], 0.0
        for metric in RANKING:
            for base in bases:
                lift = estimate.lift("model", base, metric, level)
                error = [[100 * (lift.value - lift.low)], [100 * (lift.high - lift.value)]]
                canvas.axes.errorbar(
                    [100 * lift.value], [y], xerr=_whiskers(error), fmt="o", color=COLOURS[base], capsize=3, markersize=5
                )
                labels.append((y, f"{LABELS[metric]} over {NAMES[base].removeprefix('XGBoost').strip(', ') or base}"))
                y -= 1
            y -= 0.4
        canvas.axes.axvline(0, color="#64748b", linewidth=1)
        canvas.axes.set_yticks([at for at, _ in labels], [text for _, text in labels], fontsize=9)
        canvas.axes.set_xlabel("relative lift, %")
        canvas.axes.grid(axis="y", visible=False)
    return canvas.svg


def _whiskers(errors: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Lengths of error bars; none where there is no interval."""
    return np.maximum(np.nan_to_num(errors, nan=0.0, posinf=0.0, neginf=0.0), 0)


def positions(
    rate_P: npt.NDArray[np.float64],
    measured_P: npt.NDArray[np.float64] | None,
    learned_P: npt.NDArray[np.float64] | None,
    name: str,
) -> str:
    """Click rate of these rows by position on the page relative to the top, and the examination curves that are known."""
    with _canvas(f"Positions {name}") as canvas:
        at = np.arange(1, len(rate_P) + 1)
        canvas.axes.plot(at, rate_P, "o-", color="#94a3b8", markersize=4, label="click rate")
        for curve_P, colour, label in (
            (measured_P, "#059669", "examination, measured in random order"),
            (learned_P, "#2563eb", "examination, as the triple tower learned it"),
        ):
            if curve_P is not None:
                shown = curve_P[1 : len(rate_P) + 1]
                canvas.axes.plot(at[: len(shown)], shown, "o-", color=colour, markersize=4, label=label)
        canvas.axes.set(xlabel="position on the page", ylabel="relative to the top", ylim=(0, None))
        canvas.axes.legend(loc="upper right", fontsize=9)
    return canvas.svg


def histogram(score_N: npt.NDArray[np.float32], clicked_N: npt.NDArray[np.bool_], name: str) -> str:
    """Scores of clicked and of other rows."""
    with _canvas(f"Scores {name}") as canvas:
        edges = np.linspace(0, float(np.quantile(score_N, 0.999)) or 1.0, 50).tolist()
        for chosen, colour, label in ((~clicked_N, "#94a3b8", "not clicked"), (clicked_N, "#2563eb", "clicked")):
            if chosen.any():
                shown_N = np.minimum(score_N[chosen], edges[-1])
                canvas.axes.hist(shown_N, edges, density=True, color=colour, alpha=0.6, label=label)
        canvas.axes.set(xlabel="score of the triple tower", ylabel="density")
        canvas.axes.legend(loc="upper right", fontsize=9)
    return canvas.svg
