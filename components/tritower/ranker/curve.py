"""The examination curve as a randomised slice of the log shows it: where the training's position weights start.

Legend: N rows, K positions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MIN_CLICKS = 200  # below, the slope's standard error passes about 0.1
_SLOPES = np.linspace(0.0, 3.0, 301)


def slope(position_N: NDArray[Any], clicked_N: NDArray[np.bool_]) -> float | None:
    """The s for which clicks of rows shown in random order fall off as position ** -s: maximum Poisson likelihood.

    In random order a job's place says nothing of its relevance, so the fall of clicks is that of examination alone.

    Args:
        position_N: positions of the randomised rows, 0 = unknown.
        clicked_N: their labels.

    Returns:
        A slope from 0 to 3; None where there are too few clicks, or one position only.
    """
    known_N = position_N > 0
    shown_K = np.bincount(position_N[known_N])
    clicks_K = np.bincount(position_N[known_N & clicked_N], minlength=len(shown_K))
    place_K = np.flatnonzero(shown_K)
    if clicks_K.sum() < _MIN_CLICKS or len(place_K) < 2:
        return None
    log_K = np.log(place_K)
    shown_K, clicks_K = shown_K[place_K], clicks_K[place_K]
    # The rate's scale is maximised out: clicks / sum of shown * k ** -s.
    mass_S = (shown_K * np.exp(-_SLOPES[:, None] * log_K)).sum(axis=1)
    likelihood_S = -_SLOPES * (clicks_K * log_K).sum() - clicks_K.sum() * np.log(mass_S)
    return float(_SLOPES[likelihood_S.argmax()])
