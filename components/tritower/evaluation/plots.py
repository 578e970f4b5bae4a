"""The report's drawings."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tritower.evaluation.calibration import Curve
from tritower.evaluation.estimate import RANKING, Estimate
from tritower.evaluation.wording import COLOURS, LABELS, NAMES
from tritower.pages.drawing import Drawing, canvas, few_ticks


def roc(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], name: str) -> Drawing:
    """ROC curves: ranker -> (false positive rates, true positive rates)."""
    with canvas("ROC", name=f"ROC {name}", height=300) as drawn:
        for ranker, (fpr, tpr) in curves.items():
            drawn.axes.plot(fpr, tpr, color=drawn.key(COLOURS[ranker], NAMES[ranker]), linewidth=1.8)
        drawn.axes.plot([0, 1], [0, 1], color="#cbd5e1", linestyle=":", linewidth=1)
        drawn.axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01))
    return drawn.drawing()


def calibration(curves: Mapping[str, Curve], name: str) -> Drawing:
    """Mean score against the click rate at the top position, bin by bin, on logarithmic axes."""
    with canvas("Calibration", name=f"Calibration {name}", height=300) as drawn:
        values = [v for c in curves.values() for v in (*c.score_B, *c.rate_B) if v > 0]
        low, high = (min(values), max(values)) if values else (0.01, 1.0)
        for ranker, c in curves.items():
            shown, colour = c.rate_B > 0, drawn.key(COLOURS[ranker], NAMES[ranker])
            drawn.axes.plot(c.score_B[shown], c.rate_B[shown], "o-", color=colour, markersize=3.5, linewidth=1.2)
        drawn.axes.plot([low, high], [low, high], color="#64748b", linestyle=":", linewidth=1)
        drawn.axes.set(xscale="log", yscale="log", xlabel="predicted probability at the top", ylabel="observed rate")
        _plain_logarithms(drawn.axes)
    return drawn.drawing()


def metrics(estimate: Estimate, level: float, name: str) -> Drawing:
    """Bars of the ranking metrics with their intervals."""
    rankers = [ranker for ranker in NAMES if ranker in estimate.value]
    with canvas("Ranking metrics", name=f"Metrics {name}") as drawn:
        width = 0.8 / len(rankers)
        for i, ranker in enumerate(rankers):
            intervals = [estimate.interval(ranker, metric, level) for metric in RANKING]
            at = np.arange(len(RANKING)) + (i - (len(rankers) - 1) / 2) * width
            values = np.array([interval.value for interval in intervals])
            errors = [[i.value - i.low for i in intervals], [i.high - i.value for i in intervals]]
            drawn.axes.bar(at, values, width * 0.9, color=drawn.key(COLOURS[ranker], NAMES[ranker]))
            drawn.axes.errorbar(at, values, yerr=_whiskers(errors), fmt="none", ecolor="#0f172a", elinewidth=1, capsize=2)
        every = [v for ranker in rankers for v in (estimate.value[ranker][m] for m in RANKING) if np.isfinite(v)]
        few_ticks(drawn.axes)
        drawn.axes.set_xticks(np.arange(len(RANKING)), [LABELS[metric] for metric in RANKING])
        if every:
            drawn.axes.set_ylim(max(0.0, min(every) - 0.15), min(1.0, max(every) + 0.06))
        drawn.axes.grid(axis="x", visible=False)
    return drawn.drawing()


def lifts(estimate: Estimate, bases: Sequence[str], level: float, name: str) -> Drawing:
    """Relative lift of the model over each base, in percent, with intervals; right of zero is better."""
    height = 70 + 22 * len(RANKING) * max(len(bases), 2)
    with canvas("Lift of the triple tower", name=f"Lift {name}", height=height) as drawn:
        for at, base in enumerate(bases):
            colour, below = drawn.key(COLOURS[base], f"over {NAMES[base]}"), 0.7 * (at - (len(bases) - 1) / 2) / len(bases)
            for y, metric in enumerate(RANKING):
                lift = estimate.lift("model", base, metric, level)
                error = [[100 * (lift.value - lift.low)], [100 * (lift.high - lift.value)]]
                drawn.axes.errorbar(
                    [100 * lift.value], [y + below], xerr=_whiskers(error), fmt="o", color=colour, capsize=3, markersize=5
                )
        drawn.axes.axvline(0, color="#64748b", linewidth=1)
        few_ticks(drawn.axes)
        drawn.axes.set_yticks(range(len(RANKING)), [LABELS[metric] for metric in RANKING])
        drawn.axes.invert_yaxis()
        drawn.axes.set_xlabel("relative lift, %")
        drawn.axes.grid(axis="y", visible=False)
    return drawn.drawing()


def positions(
    rate_P: npt.NDArray[np.float64],
    measured_P: npt.NDArray[np.float64] | None,
    learned_P: npt.NDArray[np.float64] | None,
    name: str,
) -> Drawing:
    """Click rate of these rows by position on the page relative to the top, and the examination curves that are known."""
    with canvas("Clicks by position", name=f"Positions {name}") as drawn:
        at = np.arange(1, len(rate_P) + 1)
        drawn.axes.plot(at, rate_P, "o-", color=drawn.key("#94a3b8", "click rate"), markersize=4)
        for curve_P, colour, label in (
            (measured_P, "#059669", "examination, measured in random order"),
            (learned_P, "#2563eb", "examination, as the triple tower learned it"),
        ):
            if curve_P is not None:
                shown = curve_P[1 : len(rate_P) + 1]
                drawn.axes.plot(at[: len(shown)], shown, "o-", color=drawn.key(colour, label), markersize=4)
        few_ticks(drawn.axes, whole=True)
        drawn.axes.set(xlabel="position on the page", ylabel="relative to the top", ylim=(0, None))
    return drawn.drawing()


def histogram(score_N: npt.NDArray[np.float32], clicked_N: npt.NDArray[np.bool_], name: str) -> Drawing:
    """Scores of clicked and of other rows."""
    with canvas("Scores", name=f"Scores {name}") as drawn:
        edges = np.linspace(0, float(np.quantile(score_N, 0.999)) or 1.0, 50).tolist()
        for chosen, colour, label in ((~clicked_N, "#94a3b8", "not clicked"), (clicked_N, "#2563eb", "clicked")):
            if chosen.any():
                shown_N = np.minimum(score_N[chosen], edges[-1])
                drawn.axes.hist(shown_N, edges, density=True, color=drawn.key(colour, label), alpha=0.6)
        few_ticks(drawn.axes)
        drawn.axes.set(xlabel="score of the triple tower", ylabel="density")
    return drawn.drawing()


def _plain_logarithms(axes: Axes) -> None:
    """Numbers such as 0.01 on logarithmic axes: an exponent would be set in smaller type."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _whiskers(errors: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Lengths of error bars; none where there is no interval."""
    return np.maximum(np.nan_to_num(errors, nan=0.0, posinf=0.0, neginf=0.0), 0)
