"""Exact area under the ROC curve, ties counted half, by radix sort; and its bootstrap in one pass per 32 replicates.

A non-negative float32 orders like its bits, and uses 31 of them: with the label in the lowest bit, a row is one 32-bit
word, sorted in three passes of 11 bits.

Legend: N rows, U users, L lanes (replicates computed side by side).
"""

import numba
import numpy as np
import numpy.typing as npt

from tritower.errors import DataError

LANES = 32
_BITS = 11
_SIZE = 1 << _BITS

Scores = npt.NDArray[np.float32]
Labels = npt.NDArray[np.bool_]


def auc(score_N: Scores, clicked_N: Labels) -> float:
    """Probability that a clicked row scores above one that was not, a tie counting half; NaN without both kinds.

    Args:
        score_N: float32, non-negative.

    Raises:
        DataError: a score is negative, NaN or infinite.
    """
    return float(_area(sort(score_N, clicked_N)))


def sort(score_N: Scores, clicked_N: Labels) -> npt.NDArray[np.uint32]:
    """(N,) words in ascending score: score bits << 1 | label."""
    bits_N = (np.ascontiguousarray(score_N, dtype=np.float32) + np.float32(0)).view(np.uint32)  # + 0: minus zero is zero
    words, valid = _words(bits_N, np.ascontiguousarray(clicked_N).view(np.uint8))
    if not valid:
        raise DataError("a score is negative, NaN or infinite", where="scores", remedy="Scores are probabilities.")
    other = np.empty_like(words)
    ordered: npt.NDArray[np.uint32] = words if _radix_words(words, other) % 2 == 0 else other
    return ordered


def sort_with_user(score_N: Scores, clicked_N: Labels, user_N: npt.NDArray[np.int32]) -> npt.NDArray[np.uint64]:
    """(N,) words in ascending score: (score bits << 1 | label) << 32 | user."""
    bits_N = (np.ascontiguousarray(score_N, dtype=np.float32) + np.float32(0)).view(np.uint32)
    words, valid = _words(bits_N, np.ascontiguousarray(clicked_N).view(np.uint8))
    if not valid:
        raise DataError("a score is negative, NaN or infinite", where="scores", remedy="Scores are probabilities.")
    long_N = (words.astype(np.uint64) << np.uint64(32)) | user_N.astype(np.uint64)
    other = np.empty_like(long_N)
    ordered: npt.NDArray[np.uint64] = long_N if _radix_long(long_N, other) % 2 == 0 else other
    return ordered


def roc(score_N: Scores, clicked_N: Labels, points: int = 200) -> tuple[list[float], list[float], list[float]]:
    """(false positive rate, true positive rate, threshold) at about `points` places, from (0, 0) to (1, 1).

    Thresholds descend; the first is clipped to the largest score, never infinite.
    """
    words = sort(score_N, clicked_N)[::-1]
    positive = (words & 1).astype(np.int64)
    value = (words >> np.uint32(1)).view(np.float32)
    ends = np.flatnonzero(np.append(value[1:] != value[:-1], True))  # last row of each tie
    if len(ends) > points:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, points).astype(np.int64))]
    true, total = np.cumsum(positive), len(words)
    clicks = max(int(true[-1]), 1)
    fpr = (ends + 1 - true[ends]) / max(total - int(true[-1]), 1)
    tpr = true[ends] / clicks
    return [0.0, *fpr.tolist()], [0.0, *tpr.tolist()], [float(value[0]), *value[ends].astype(float).tolist()]


def bootstrap(words_N: npt.NDArray[np.uint64], weight_UL: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(L,) AUC under each lane's user weights, from the words of `sort_with_user`; L is `LANES`."""
    assert weight_UL.shape[1] == LANES
    result: npt.NDArray[np.float64] = _areas(words_N, weight_UL)
    return result


def reweighted(
    score_N: Scores, weight_N: npt.NDArray[np.float64], user_N: npt.NDArray[np.int32], weight_UL: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """(L,) AUC where row i counts as `weight_N[i]` of a clicked row and the rest of it as not clicked.

    With weight click / examination this is the unbiased estimate of the AUC on fully examined pages (Saito et al.,
    "Unbiased recommender learning from missing-not-at-random implicit feedback", WSDM 2020); a clicked row with
    examination below 1 then weighs less than nothing among the rows not clicked.
    """
    assert weight_UL.shape[1] == LANES
    order = np.argsort(score_N, kind="stable")
    result: npt.NDArray[np.float64] = _areas_weighted(score_N[order], weight_N[order], user_N[order], weight_UL)
    return result


@numba.njit(cache=True, nogil=True)
def _words(bits_N, label_N):  # type: ignore[no-untyped-def]
    words = np.empty(len(bits_N), np.uint32)
    top = np.uint32(0)
    for i in range(len(bits_N)):
        top = max(top, bits_N[i])
        words[i] = (bits_N[i] << np.uint32(1)) | np.uint32(label_N[i])
    return words, top < np.uint32(0x7F800000)


@numba.njit(cache=True, nogil=True)
def _radix_words(words, other):  # type: ignore[no-untyped-def]
    """Sort ascending; the result is in `words` after an even number of passes, else in `other`. Returns the passes."""
    counts = np.zeros((3, _SIZE), np.int64)
    mask = np.uint32(_SIZE - 1)
    for word in words:
        counts[0, word & mask] += 1
        counts[1, (word >> np.uint32(_BITS)) & mask] += 1
        counts[2, word >> np.uint32(2 * _BITS)] += 1
    passes = 0
    source, target = words, other
    for digit in range(3):
        shift = np.uint32(digit * _BITS)
        if counts[digit].max() == len(words):
            continue  # every row has the same digit
        start = np.zeros(_SIZE, np.int64)
        for i in range(1, _SIZE):
            start[i] = start[i - 1] + counts[digit, i - 1]
        for word in source:
            bucket = (word >> shift) & mask
            target[start[bucket]] = word
            start[bucket] += 1
        source, target = target, source
        passes += 1
    return passes


@numba.njit(cache=True, nogil=True)
def _radix_long(words, other):  # type: ignore[no-untyped-def]
    """`_radix_words` over the upper half of 64-bit words."""
    counts = np.zeros((3, _SIZE), np.int64)
    mask = np.uint64(_SIZE - 1)
    for word in words:
        counts[0, (word >> np.uint64(32)) & mask] += 1
        counts[1, (word >> np.uint64(32 + _BITS)) & mask] += 1
        counts[2, word >> np.uint64(32 + 2 * _BITS)] += 1
    passes = 0
    source, target = words, other
    for digit in range(3):
        shift = np.uint64(32 + digit * _BITS)
        if counts[digit].max() == len(words):
            continue
        start = np.zeros(_SIZE, np.int64)
        for i in range(1, _SIZE):
            start[i] = start[i - 1] + counts[digit, i - 1]
        for word in source:
            bucket = (word >> shift) & mask
            target[start[bucket]] = word
            start[bucket] += 1
        source, target = target, source
        passes += 1
    return passes


@numba.njit(cache=True, nogil=True)
def _area(words):  # type: ignore[no-untyped-def]
    # Integers throughout: twice the area is at most 2 N^2, exact up to about two billion rows.
    below, twice = np.int64(0), np.int64(0)
    i, n = 0, len(words)
    while i < n:
        value = words[i] >> np.uint32(1)
        negative, positive = np.int64(0), np.int64(0)
        while i < n and words[i] >> np.uint32(1) == value:
            if words[i] & np.uint32(1):
                positive += 1
            else:
                negative += 1
            i += 1
        twice += positive * (2 * below + negative)
        below += negative
    clicks = n - below
    if clicks == 0 or below == 0:
        return np.nan
    return twice / (2.0 * clicks * below)


@numba.njit(cache=True, nogil=True)
def _areas(words, weight_UL):  # type: ignore[no-untyped-def]
    below, area, clicks = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    negative, positive = np.zeros(LANES), np.zeros(LANES)
    i, n = 0, len(words)
    user_mask = np.uint64(0xFFFFFFFF)
    while i < n:
        value = words[i] >> np.uint64(33)
        negative[:] = 0
        positive[:] = 0
        has_positive = False
        while i < n and words[i] >> np.uint64(33) == value:
            user = words[i] & user_mask
            if (words[i] >> np.uint64(32)) & np.uint64(1):
                has_positive = True
                for lane in range(LANES):
                    positive[lane] += weight_UL[user, lane]
            else:
                for lane in range(LANES):
                    negative[lane] += weight_UL[user, lane]
            i += 1
        if has_positive:
            for lane in range(LANES):
                area[lane] += positive[lane] * (below[lane] + 0.5 * negative[lane])
                clicks[lane] += positive[lane]
        for lane in range(LANES):
            below[lane] += negative[lane]
    for lane in range(LANES):
        pairs = clicks[lane] * below[lane]
        area[lane] = area[lane] / pairs if pairs > 0 else np.nan
    return area


@numba.njit(cache=True, nogil=True)
def _areas_weighted(score_N, weight_N, user_N, weight_UL):  # type: ignore[no-untyped-def]
    below, area, clicks = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    negative, positive = np.zeros(LANES), np.zeros(LANES)
    i, n = 0, len(score_N)
    while i < n:
        value = score_N[i]
        negative[:] = 0
        positive[:] = 0
        while i < n and score_N[i] == value:
            weight, user = weight_N[i], user_N[i]
            for lane in range(LANES):
                drawn = weight_UL[user, lane]
                positive[lane] += drawn * weight
                negative[lane] += drawn * (1 - weight)
            i += 1
        for lane in range(LANES):
            area[lane] += positive[lane] * (below[lane] + 0.5 * negative[lane])
            clicks[lane] += positive[lane]
            below[lane] += negative[lane]
    for lane in range(LANES):
        pairs = clicks[lane] * below[lane]
        area[lane] = area[lane] / pairs if pairs > 0 else np.nan
    return area
