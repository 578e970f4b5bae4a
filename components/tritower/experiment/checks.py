"""Whether a test may be believed at all: do the arms have the users that they should have, and what many looks cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2


@dataclass(frozen=True)
class Mismatch:
    """The test for a sample-ratio mismatch (Fabijan et al. 2019): chi-square of users by arm against the shares.

    Attributes:
        p: how likely such counts are when the assignment is as planned.
        expected: users by arm.
    """

    p: float
    expected: dict[str, float]

    @property
    def is_bad(self) -> bool:
        """At .001, as is usual: with it, one sound test in a thousand is stopped for nothing."""
        return self.p < 0.001


def mismatch(users: Mapping[str, int], shares: Mapping[str, float]) -> Mismatch:
    """Compare users by arm with the arms' planned shares; an arm without users counts with 0."""
    total, whole = sum(users.get(arm, 0) for arm in shares), sum(shares.values())
    expected = {arm: total * share / whole for arm, share in shares.items()}
    if not total:
        return Mismatch(1.0, expected)
    statistic = sum((users.get(arm, 0) - count) ** 2 / count for arm, count in expected.items())
    return Mismatch(float(chi2.sf(statistic, len(shares) - 1)), expected)


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): each may be compared with the error rate of all together.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    corrected, highest = [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, p[i] * (len(p) - place)))
        corrected[i] = highest
    return corrected
