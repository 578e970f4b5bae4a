"""Looking at a test while it runs: bounds that keep the error rate whatever one does at a look.

Group-sequential bounds are for a planned length and a few looks (weekly). The error is spent as O'Brien and Fleming would, by
the function of Lan and DeMets (1983), so that the last look is nearly a fixed test:

    spent(t) = 4 (1 - Phi(z_{a/4} / sqrt(t)))        two-sided, t the share of the planned information

The bounds solve: probability to cross at look k and not before = spent(t_k) - spent(t_{k-1}), by the recursion of Armitage,
McPherson and Rowe (1969) on nodes.

A confidence sequence holds at all times at once, for tests without an end and for guardrails: the asymptotic one of
Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), with the normal mixture of Howard et al. (2021). It is wider: its price
is power.

Legend: K looks, G nodes.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import lambertw, ndtr
from scipy.stats import norm

from tritower.errors import ConfigError

Floats = NDArray[np.float64]
_FAR = 9.0
"""A bound that is not reached: a probability of 2e-19."""
_PER_DEVIATION = 8
"""Nodes for each standard deviation of an increment: bounds to 1e-6."""


def spent(share: float, alpha: float = 0.05) -> float:
    """Error spent up to a share of the information, in [0, 1]; `alpha` at 1."""
    return float(min(alpha, 4 * norm.sf(norm.isf(alpha / 4) / math.sqrt(share)))) if share > 0 else 0.0


def bounds(shares: Sequence[float], alpha: float = 0.05, spending: Sequence[float] = ()) -> list[float]:
    """How many standard errors an effect must be away from 0 at each look.

    Args:
        shares: information at the looks, in any unit when `spending` is given, else as shares of the plan's: rising, above 0.
        alpha: two-sided error rate over all looks.
        spending: what decides how much may be spent by each look, such as the share of the planned days; above 1 counts as 1.

    Returns:
        K bounds on |z|.

    Raises:
        ConfigError: the shares do not rise.

    >>> [round(one, 2) for one in bounds([0.2, 0.4, 0.6, 0.8, 1.0])]
    [4.88, 3.36, 2.68, 2.29, 2.03]
    """
    _check(shares)
    found: list[float] = []
    walk = _Walk()
    before = 0.0
    for share, planned in zip(shares, spending or shares, strict=True):
        walk.to(share)
        wanted = spent(min(planned, 1.0), alpha) - before
        bound = _FAR if wanted < 1e-15 else walk.bound(wanted)
        walk.stop_at(bound)
        found.append(bound)
        before += wanted
    return found


def power(shares: Sequence[float], bound_K: Sequence[float], drift: float) -> list[float]:
    """Probability to have stopped by each look.

    Args:
        shares: as of `bounds`.
        bound_K: the bounds.
        drift: expected z at a share of 1.
    """
    _check(shares)
    walk, stopped, found = _Walk(drift), 0.0, list[float]()
    for share, bound in zip(shares, bound_K, strict=True):
        walk.to(share)
        stopped += walk.stop_at(bound)
        found.append(stopped)
    return found


def drift_for(shares: Sequence[float], wanted: float, alpha: float = 0.05) -> float:
    """The expected z at a share of 1 with which a test with these looks has the wanted power."""
    bound_K = bounds(shares, alpha)
    return float(brentq(lambda drift: power(shares, bound_K, drift)[-1] - wanted, 0.0, 20.0, xtol=1e-4))


@dataclass(frozen=True)
class ConfidenceSequence:
    """A confidence sequence for a mean whose estimate has the standard error e: it +- `reach(e)`, at all times at once.

    Attributes:
        planned_error: standard error at which it is to be narrowest.
        alpha: two-sided error rate.
    """

    planned_error: float
    alpha: float = 0.05

    def reach(self, error: float) -> float:
        """Half the width at a standard error; infinite where that is."""
        if not 0 < error < math.inf:
            return math.inf
        information = _best(self.alpha) * (self.planned_error / error) ** 2  # t rho^2 of the paper
        inner = (information + 1) / information * math.log((information + 1) / self.alpha**2)
        return error * math.sqrt(inner)


def _best(alpha: float) -> float:
    """t rho^2 at which the sequence is narrowest (Howard et al. 2021, section 3.5)."""
    return float(-lambertw(-(alpha**2) * math.exp(-1), -1).real - 1)


class _Walk:
    """A Brownian motion with the paths that were stopped taken out: what is left of it lies on Gauss-Legendre nodes."""

    def __init__(self, drift: float = 0.0) -> None:
        self.drift, self.time, self.lasts = drift, 0.0, 0.0
        self.at_G: Floats = np.zeros(1)
        self.weight_G: Floats = np.ones(1)

    def to(self, time: float) -> None:
        """Let it go on to a time; `stop_at` looks at it there."""
        self.lasts, self.time = time - self.time, time

    def bound(self, wanted: float) -> float:
        """The |z| beyond which this much probability lies."""
        return float(brentq(lambda bound: self._beyond(bound) - wanted, 0.0, _FAR, xtol=1e-8))

    def stop_at(self, bound: float) -> float:
        """Take out the paths beyond +- the bound; how much they were."""
        gone = self._beyond(bound)
        edge, deviation = bound * math.sqrt(self.time), math.sqrt(self.lasts)
        node_G, share_G = _nodes(math.ceil(_PER_DEVIATION * 2 * edge / deviation))
        node_G = node_G * edge
        apart_GG = (node_G[:, None] - self.at_G[None, :] - self.drift * self.lasts) / deviation
        density_G = np.exp(-0.5 * apart_GG**2) @ self.weight_G / (deviation * math.sqrt(2 * math.pi))
        self.at_G, self.weight_G = node_G, density_G * share_G * edge
        return gone

    def _beyond(self, bound: float) -> float:
        edge, middle_G = bound * math.sqrt(self.time), self.at_G + self.drift * self.lasts
        deviation = math.sqrt(self.lasts)
        outside_G = ndtr((middle_G - edge) / deviation) + ndtr((-edge - middle_G) / deviation)
        return float(self.weight_G @ outside_G)


def _nodes(wanted: int) -> tuple[Floats, Floats]:
    """At least so many nodes of [-1, 1], up to 1,024, and their weights; few sizes, for each is costly to make."""
    return _legendre(next((count for count in (64, 128, 256, 512) if count >= wanted), 1024))


@functools.cache
def _legendre(count: int) -> tuple[Floats, Floats]:
    return np.polynomial.legendre.leggauss(count)


def _check(shares: Sequence[float]) -> None:
    if not shares or shares[0] <= 0 or any(later <= earlier for earlier, later in itertools.pairwise(shares)):
        raise ConfigError(
            "the looks' shares of the information do not rise", where=str(list(shares)), remedy="Give e.g. 0.5, 1."
        )
