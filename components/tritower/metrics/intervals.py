"""Intervals from few users: a jackknife over users with a t-quantile for users of unequal weight.

Each figure is computed once more without each user. The spread of these values estimates the variance, with the correction
CR2 of Bell and McCaffrey (2002, "Bias reduction in standard errors for linear regression with multi-stage samples"); the
degrees of freedom are Satterthwaite's, the effective number of users less one, which is small where a few users hold most of
the searches. Both hold in A/A tests with 20 users and more: README.md has the table.

A figure of 0 to 1 is treated on the scale of its log odds, a positive one on that of its logarithm, so that no end of an
interval leaves the figure's own range.

Legend: U users.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, stdtrit

Array = npt.NDArray[np.float64]
SURE = 3.0
"""Standard errors by which a figure that others are divided by must lie above 0."""
_ROUNDING = 1e-12
"""Relative standard error that only the rounding of sums can give."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with the ends of its interval; both NaN where it cannot be judged, and then why."""

    value: float
    low: float
    high: float
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of all users, and as it is without each of them."""

    value: float
    without_U: Array


def unjudged(value: float, reason: str) -> Interval:
    """The value without an interval."""
    return Interval(value=value, low=math.nan, high=math.nan, reason=reason)


def effective(share_U: Array) -> float:
    """How many users of equal weight are worth as much as users with these shares of the searches; 0 for none."""
    total = float(np.square(share_U).sum())
    return 1 / total if total > 0 else 0.0


def level(figure: Figure, share_U: Array, confidence: float) -> Interval:
    """Interval of a metric; `share_U` is each user's share of the searches that it is a mean of."""
    every = np.append(figure.without_U, figure.value)
    scales: tuple[tuple[bool, _Scale], ...] = (
        (bool(((every > 0) & (every < 1)).all()), _ODDS),
        (bool((every > 0).all()), _LOG),
        (True, _PLAIN),
    )
    return _interval(figure, share_U, confidence, next(scale for fits, scale in scales if fits))


def lift(ours: Figure, theirs: Figure, share_U: Array, confidence: float) -> Interval:
    """Paired relative lift of `ours` over `theirs` as a fraction: the same user is left out of both."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(np.divide(ours.value, theirs.value)) - 1
        ratio = Figure(value=value, without_U=ours.without_U / theirs.without_U - 1)
    if ours.value == theirs.value and np.array_equal(ours.without_U, theirs.without_U):  # equal rankings: sure for any users
        return Interval(value=value, low=value, high=value)
    for name, figure in (("the model's figure", ours), ("the rival's figure", theirs)):
        if not figure.value > SURE * _error(figure, share_U):
            return unjudged(value, f"{name} is too near 0 for a ratio")
    return _interval(ratio, share_U, confidence, _RATIO)


def share(ours: Figure, base: Figure, best: Figure, share_U: Array, confidence: float) -> Interval:
    """Share of the way from `base` to `best` that `ours` covers."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(np.divide(ours.value - base.value, best.value - base.value))
        without_U = (ours.without_U - base.without_U) / (best.without_U - base.without_U)
    way = Figure(value=best.value - base.value, without_U=best.without_U - base.without_U)
    if not way.value > SURE * _error(way, share_U):
        return unjudged(value, "the best possible is not clearly above the base")
    return _interval(Figure(value=value, without_U=without_U), share_U, confidence, _PLAIN)


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """Where a figure's errors are even, and the way back."""

    there: Callable[[Array], Array]
    back: Callable[[float], float]


_PLAIN = _Scale(there=np.asarray, back=float)
_LOG = _Scale(there=np.log, back=math.exp)
_ODDS = _Scale(there=logit, back=lambda x: float(expit(x)))
_RATIO = _Scale(there=np.log1p, back=math.expm1)


def _error(figure: Figure, share_U: Array) -> float:
    """Standard error; the factor below 1 takes half of the jackknife's own excess for large users (CR2)."""
    return float(np.sqrt((np.square(figure.without_U - figure.value) * (1 - share_U)).sum()))


def _interval(figure: Figure, share_U: Array, confidence: float, scale: _Scale) -> Interval:
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = float(scale.there(np.asarray(figure.value)))
        error = _error(Figure(value=centre, without_U=scale.there(figure.without_U)), share_U)
    if not math.isfinite(figure.value):
        return unjudged(figure.value, "it has no value here")
    if not (math.isfinite(centre) and math.isfinite(error)):
        return unjudged(figure.value, "it rests on a single user")
    if error < _ROUNDING * max(1.0, abs(centre)):
        return unjudged(figure.value, "it is the same whoever is left out")
    half = float(stdtrit(max(effective(share_U) - 1, 1.0), (1 + confidence) / 2)) * error
    return Interval(value=figure.value, low=scale.back(centre - half), high=scale.back(centre + half))
