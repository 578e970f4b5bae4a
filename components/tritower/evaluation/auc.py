"""Exact area under the ROC curve, ties counted half, by radix sort; and the same without each user, in one more pass.

A non-negative float32 orders like its bits, and uses 31 of them: with the label in the lowest bit, a row is one 32-bit
word, sorted in three passes of 11 bits.

Legend: N rows, U users.
"""

import numba
import numpy as np
import numpy.typing as npt

from tritower.errors import DataError

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


def without_each(
    score_N: Scores, clicked_N: Labels, user_N: npt.NDArray[np.int32], users: int
) -> tuple[float, npt.NDArray[np.float64]]:
    """AUC, and (U,) AUC of the rows of all users but each; NaN where these lack one kind of row.

    Args:
        user_N: 0 to `users` - 1.
    """
    words_N = sort_with_user(score_N, clicked_N, user_N)
    return _without(
        (words_N >> np.uint64(33)).astype(np.uint32).view(np.float32),
        (words_N >> np.uint64(32) & np.uint64(1)).astype(np.float64),
        words_N.astype(np.uint32).view(np.int32),
        users,
    )


def reweighted_without_each(
    score_N: Scores, weight_N: npt.NDArray[np.float64], user_N: npt.NDArray[np.int32], users: int
) -> tuple[float, npt.NDArray[np.float64]]:
    """`without_each` where row i counts as `weight_N[i]` of a clicked row and the rest of it as not clicked.

    With weight click / examination this is the unbiased estimate of the AUC on fully examined pages (Saito et al.,
    "Unbiased recommender learning from missing-not-at-random implicit feedback", WSDM 2020); a clicked row with
    examination below 1 then weighs less than nothing among the rows not clicked.
    """
    order = np.argsort(score_N, kind="stable")
    return _without(score_N[order], weight_N[order], user_N[order], users)


def _without(
    score_N: Scores, weight_N: npt.NDArray[np.float64], user_N: npt.NDArray[np.int32], users: int
) -> tuple[float, npt.NDArray[np.float64]]:
    area, positive, negative, lost_U, positive_U, negative_U = _areas(score_N, weight_N, user_N, users)
    pairs_U = (positive - positive_U) * (negative - negative_U)
    with np.errstate(divide="ignore", invalid="ignore"):
        without_U = np.where(pairs_U > 0, (area - lost_U) / pairs_U, np.nan)
    return area / (positive * negative) if positive * negative > 0 else np.nan, without_U


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
def _areas(score_N, weight_N, user_N, users):  # type: ignore[no-untyped-def]
    """Twice counted pairs are a user's own: what leaves with a user is its clicked rows' pairs, its others', less its own."""
    lost_U, positive_U, negative_U = np.zeros(users), np.zeros(users), np.zeros(users)
    below_U, tied_U = np.zeros(users), np.zeros(users)  # rows not clicked of the same user: below, and with this very score
    total = weight_N.sum()
    below, clicks, area = 0.0, 0.0, 0.0
    i, n = 0, len(score_N)
    while i < n:
        first, positive, negative = i, 0.0, 0.0
        while i < n and score_N[i] == score_N[first]:
            positive += weight_N[i]
            negative += 1 - weight_N[i]
            tied_U[user_N[i]] += 1 - weight_N[i]
            i += 1
        clicks += positive
        for j in range(first, i):
            user, weight = user_N[j], weight_N[j]
            lost_U[user] += weight * (below + 0.5 * negative - below_U[user] - 0.5 * tied_U[user])
            lost_U[user] += (1 - weight) * (total - clicks + 0.5 * positive)
            positive_U[user] += weight
            negative_U[user] += 1 - weight
        for j in range(first, i):
            below_U[user_N[j]] += 1 - weight_N[j]
            tied_U[user_N[j]] = 0.0
        area += positive * (below + 0.5 * negative)
        below += negative
    return area, clicks, below, lost_U, positive_U, negative_U
