"""String similarities of pairs of texts, bit-parallel, over texts that were cut up once.

The same values as rapidfuzz's `fuzz.token_set_ratio`, `fuzz.token_sort_ratio`, `fuzz.partial_ratio` (as shares) and
`JaroWinkler.similarity`; rapidfuzz does per pair what is done here per text: splitting, sorting, joining, mapping characters.

* ratio: 2 LCS / (length + length), the longest common subsequence by Hyyrö's bit-vector recurrence (2004): one word of 64
  bits holds the shorter text, each character of the longer costs four operations.
* token sort: ratio of the sorted words. Token set: ratio after the shared words are set aside.
* partial: the best ratio of the shorter text with any stretch of the longer that is no longer than it (`slide.py`).
* Jaro-Winkler: Winkler 1990, with the usual prefix of up to 4 characters weighted 0.1 above a similarity of 0.7.

A pair whose shorter part has more than 64 characters is left to rapidfuzz (`long`).

Rows of one request follow one another, so the bit masks of the left text are kept from pair to pair. Texts are passed as
(array, first, length), and arrays one by one: numba counts references to slices and to the fields of tuples, and passes an
array in eight words, which costs more than some of the comparisons. So all functions are inlined too.

Legend: V texts, W distinct words, A characters of the alphabet, N pairs, S scorers.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.extending import intrinsic

from tritower.features import slide
from tritower.features.corpus import LENGTH, RAW, UNIQUE, UNIQUE_LENGTH, WORD, WORDS, Texts
from tritower.features.pairs import prefetch, slot
from tritower.features.slide import BITS

Array = npt.NDArray[Any]
SCORERS = ("token_set", "token_sort", "partial", "jaro_winkler")
AHEAD = 12  # rows between asking for what a row needs and needing it
ONE = np.uint64(1)
FULL = np.uint64(0xFFFFFFFFFFFFFFFF)


@intrinsic
def _popcount(typing_context: Any, word: Any) -> Any:
    """Number of bits set in a uint64."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), codegen


popcount: Any = _popcount


@njit(cache=True, forceinline=True)
def _mark(mask_A: Array, text: Array, first: Any, length: Any) -> None:
    for i in range(min(length, BITS)):
        mask_A[text[first + i]] |= ONE << np.uint64(i)


@njit(cache=True, forceinline=True)
def _clear(mask_A: Array, text: Array, first: Any, length: Any) -> None:
    for i in range(length):
        mask_A[text[first + i]] = np.uint64(0)


@njit(cache=True, forceinline=True)
def _lcs(mask_A: Array, text: Array, first: Any, length: Any) -> Any:
    """Longest common subsequence of a text and the pattern in the mask; the bits above the pattern stay set."""
    state = FULL
    for i in range(first, first + length):
        hit = state & mask_A[text[i]]
        state = (state + hit) | (state - hit)
    return np.int64(popcount(~state))


@njit(cache=True, forceinline=True)
def _common(left_A: Array, other_A: Array, text: Array, a: Any, m: Any, other: Array, b: Any, n: Any) -> Any:
    """Longest common subsequence of text[a:][:m] and other[b:][:n]; -1 if both have more than 64 characters.

    `left_A` holds the first text if it is short enough, `other_A` is empty.
    """
    if m <= BITS:
        return _lcs(left_A, other, b, n)
    if n > BITS:
        return np.int64(-1)
    _mark(other_A, other, b, n)
    common = _lcs(other_A, text, a, m)
    _clear(other_A, other, b, n)
    return common


@njit(cache=True, forceinline=True)
def _token_sort(sorted_A: Array, other_A: Array, char: Array, place_V6: Array, p: Any, q: Any) -> Any:
    """Ratio of two texts with their words sorted; -1 = too long."""
    m, n = np.int64(place_V6[p, LENGTH]), np.int64(place_V6[q, LENGTH])
    common = _common(sorted_A, other_A, char, place_V6[p, RAW] + m, m, char, place_V6[q, RAW] + n, n)
    return 2.0 * common / (m + n) if common >= 0 else -1.0


@njit(cache=True, forceinline=True)
def _shares_words(word: Array, place_V6: Array, p: Any, q: Any) -> bool:
    for i in range(place_V6[p, WORD], place_V6[p, WORD] + place_V6[p, WORDS]):
        for j in range(place_V6[q, WORD], place_V6[q, WORD] + place_V6[q, WORDS]):
            if word[i] == word[j]:
                return True
    return False


@njit(cache=True, forceinline=True)
def _append(buffer: Array, length: Any, word_char: Array, word_W: Array, space: int, word: Any) -> Any:
    if length:
        buffer[length] = space
        length += 1
    for i in range(word_W[word], word_W[word + 1]):
        buffer[length] = word_char[i]
        length += 1
    return length


@njit(cache=True, forceinline=True)
def _token_set_disjoint(distinct_A: Array, other_A: Array, char: Array, place_V6: Array, p: Any, q: Any) -> Any:
    m, n = np.int64(place_V6[p, UNIQUE_LENGTH]), np.int64(place_V6[q, UNIQUE_LENGTH])
    common = _common(distinct_A, other_A, char, place_V6[p, UNIQUE], m, char, place_V6[q, UNIQUE], n)
    return 2.0 * common / (m + n) if common >= 0 else -1.0


@njit(cache=True, forceinline=True)
def _token_set_shared(
    other_A: Array, word: Array, word_char: Array, word_W: Array, space: int, place_V6: Array, p: Any, q: Any, one: Array,
    two: Array,
) -> Any:  # fmt: skip
    """Token-set ratio of texts with words in common; the buffers are for the words that only one side has."""
    i, j = np.int64(place_V6[p, WORD]), np.int64(place_V6[q, WORD])
    i_end, j_end = i + place_V6[p, WORDS], j + place_V6[q, WORDS]
    shared = only_a = only_b = np.int64(0)
    while i < i_end or j < j_end:
        if j == j_end or (i < i_end and word[i] < word[j]):
            only_a = _append(one, only_a, word_char, word_W, space, word[i])
            i += 1
        elif i == i_end or word[j] < word[i]:
            only_b = _append(two, only_b, word_char, word_W, space, word[j])
            j += 1
        else:
            shared += (shared > 0) + word_W[word[i] + 1] - word_W[word[i]]
            i += 1
            j += 1
    if only_a == 0 or only_b == 0:
        return 1.0
    if only_a > BITS and only_b > BITS:
        return -1.0
    if only_a > only_b:
        one, only_a, two, only_b = two, only_b, one, only_a
    _mark(other_A, one, np.int64(0), only_a)
    common = _lcs(other_A, two, np.int64(0), only_b)
    _clear(other_A, one, np.int64(0), only_a)
    all_a, all_b = shared + 1 + only_a, shared + 1 + only_b
    best = 1.0 - (only_a + only_b - 2.0 * common) / (all_a + all_b)
    return max(best, 1.0 - (1 + only_a) / (shared + all_a), 1.0 - (1 + only_b) / (shared + all_b))


@njit(cache=True, forceinline=True)
def _slide(mask_A: Array, m: Any, char: Array, b: Any, n: Any, short_R: Array, long_R: Array) -> Any:
    """Best ratio of the pattern of length m in the mask with a stretch of char[b:][:n]; m is not above n."""
    if m <= 32:
        return slide.best_ratio(mask_A, m, char, b, n, short_R)
    return slide.best_ratio(mask_A, m, char, b, n, long_R)


@njit(cache=True, forceinline=True)
def _partial(
    forward_A: Array, other_A: Array, char: Array, place_V6: Array, p: Any, q: Any, short_R: Array, long_R: Array
) -> Any:
    """Partial ratio; -1 = too long."""
    a, m, b, n = place_V6[p, RAW], np.int64(place_V6[p, LENGTH]), place_V6[q, RAW], np.int64(place_V6[q, LENGTH])
    if m > BITS and n > BITS:
        return -1.0
    best = 0.0
    if m <= n:
        best = _slide(forward_A, m, char, b, n, short_R, long_R)
    if m >= n:
        _mark(other_A, char, b, n)
        best = max(best, _slide(other_A, n, char, a, m, short_R, long_R))
        _clear(other_A, char, b, n)
    return best


@njit(cache=True, forceinline=True)
def _jaro_winkler(forward_A: Array, char: Array, place_V6: Array, p: Any, q: Any, matched: Array) -> Any:
    """Jaro-Winkler similarity; `matched` takes the masks of the right text's matched characters. -1 = left text too long."""
    a, m, b, n = place_V6[p, RAW], np.int64(place_V6[p, LENGTH]), place_V6[q, RAW], np.int64(place_V6[q, LENGTH])
    if m > BITS:
        return -1.0
    reach: Any = max(0, max(m, n) // 2 - 1)
    used: Any = np.uint64(0)
    # Bits low .. high of the left text are within reach of character j of the right; the window moves up by one each time.
    window: Any = FULL >> np.uint64(BITS - min(reach + 1, BITS))
    common = 0
    for j in range(min(n, m + reach)):
        mask = forward_A[char[b + j]]
        free = mask & window & ~used
        used |= free & (~free + ONE)
        matched[common] = mask
        common += free != 0
        window = (window << ONE) | (ONE if j < reach else np.uint64(0))
    if common == 0:
        return 0.0
    swapped: Any = 0
    for k in range(common):
        bit = used & (~used + ONE)
        swapped += (matched[k] & bit) == 0
        used ^= bit
    jaro = (common / m + common / n + (common - swapped // 2) / common) / 3.0
    if jaro > 0.7:
        prefix = 0
        while prefix < 4 and prefix < m and prefix < n and char[a + prefix] == char[b + prefix]:
            prefix += 1
        jaro += prefix * 0.1 * (1.0 - jaro)
    return min(jaro, 1.0)


@njit(cache=True, forceinline=True)
def _turn_left(forward_A: Array, sorted_A: Array, distinct_A: Array, char: Array, place_V6: Array, old: Any, new: Any) -> None:
    """Exchange the left text in the masks; -1 = none."""
    if old >= 0:  # all three are of the same characters
        first, length = place_V6[old, RAW], place_V6[old, LENGTH]
        _clear(forward_A, char, first, length)
        _clear(sorted_A, char, first, length)
        _clear(distinct_A, char, first, length)
    a, m = place_V6[new, RAW], place_V6[new, LENGTH]
    _mark(forward_A, char, a, m)
    _mark(sorted_A, char, a + m, m)
    _mark(distinct_A, char, place_V6[new, UNIQUE], place_V6[new, UNIQUE_LENGTH])


@njit(cache=True, forceinline=True)
def _ask(place_V6: Array, key_BC: Array, p: Any, q: Any, right_from: int) -> None:
    """Have a pair's bucket and the right text's place brought into the cache."""
    prefetch(key_BC, slot((p << 32) | q, key_BC.shape[0]))
    prefetch(place_V6, q + right_from)


@njit(cache=True, forceinline=True)
def _ask_text(char: Array, place_V6: Array, q: Any) -> None:
    """Have a text's characters brought into the cache, as far as most texts go; it takes its place, so later than `_ask`."""
    first = np.int64(place_V6[max(q, 0), RAW])
    for line in range(3):
        prefetch(char, first + line * 32)


@njit(cache=True, forceinline=True)
def _find(key_BC: Array, at: Any, p: Any, q: Any, entry: Any) -> Any:
    """Column of a pair's entry in its bucket, or of the entry to put it into: an empty one, or any in a full bucket."""
    full = key_BC.shape[1] // entry * entry
    column = 0
    while column < full and key_BC[at, column] >= 0:
        if key_BC[at, column] == p and key_BC[at, column + 1] == q:
            return column
        column += entry
    return column if column < full else (p + q) % (full // entry) * entry


@njit(cache=True, forceinline=True)
def _value(
    kind: Any, char: Array, word: Array, place_V6: Array, word_char: Array, word_W: Array, space: int, p: Any, q: Any,
    forward_A: Array, sorted_A: Array, distinct_A: Array, other_A: Array, one: Array, two: Array, short_R: Array, long_R: Array,
) -> Any:  # fmt: skip
    """One score of a pair whose left text is in the masks: -1 too long, NaN where a text is empty."""
    if place_V6[p, LENGTH] == 0 or place_V6[q, LENGTH] == 0:
        return np.nan
    if kind == 0:
        if _shares_words(word, place_V6, p, q):
            return _token_set_shared(other_A, word, word_char, word_W, space, place_V6, p, q, one, two)
        return _token_set_disjoint(distinct_A, other_A, char, place_V6, p, q)
    if kind == 1:
        return _token_sort(sorted_A, other_A, char, place_V6, p, q)
    if kind == 2:
        return _partial(forward_A, other_A, char, place_V6, p, q, short_R, long_R)
    return _jaro_winkler(forward_A, char, place_V6, p, q, long_R[long_R.shape[0] // 2 :])


def score(
    texts: Texts, left_N: Array, right_N: Array, right_from: int, wanted_S: Array, key_BC: Array, score_BC: Array, out_SN: Array
) -> bool:
    """Score pairs through a cache; whether some pair is too long for one of the scorers.

    Args:
        texts: from `corpus.prepare`.
        left_N, right_N: text numbers; a negative one gives NaN.
        right_from: added to the right numbers.
        wanted_S: numbers of `SCORERS`, one per row of `out_SN`.
        key_BC: the cache as int32, one bucket a row: as many entries as fit, each the pair (-1 = none) and its scores. The
            number of buckets is a power of two.
        score_BC: the same memory as float32.
        out_SN: to fill: 0 to 1, -1 too long, NaN where a text is empty.
    """
    forward_A, sorted_A, distinct_A, other_A = np.zeros((4, texts.alphabet), np.uint64)
    one, two = np.empty((2, texts.longest + 2), texts.char.dtype)
    short_R, long_R = slide.room(texts.longest, np.uint32), slide.room(texts.longest, np.uint64)
    long: bool = _score(
        texts.char, texts.word, texts.place_V6, texts.word_char, texts.word_W, texts.space, left_N, right_N, right_from,
        wanted_S, key_BC, score_BC, out_SN, forward_A, sorted_A, distinct_A, other_A, one, two, short_R, long_R,
    )  # fmt: skip
    return long


@njit(cache=True)
def _score(
    char: Array, word: Array, place_V6: Array, word_char: Array, word_W: Array, space: int, left_N: Array, right_N: Array,
    right_from: int, wanted_S: Array, key_BC: Array, score_BC: Array, out_SN: Array, forward_A: Array, sorted_A: Array,
    distinct_A: Array, other_A: Array, one: Array, two: Array, short_R: Array, long_R: Array,
) -> bool:  # fmt: skip
    """`score` with all arrays apart. The masks (where each character stands in a text, as bits) are zero: of the left text as
    it is, with its words sorted, with its distinct words sorted, and of a text of the moment."""
    rows, entry = left_N.shape[0], 2 + wanted_S.shape[0]
    held = np.int64(-1)
    long = False
    for i in range(rows):
        p, q = np.int64(left_N[i]), np.int64(right_N[i])
        if p < 0 or q < 0:
            out_SN[:, i] = np.nan
            continue
        if i + AHEAD < rows:
            _ask(place_V6, key_BC, np.int64(left_N[i + AHEAD]), np.int64(right_N[i + AHEAD]), right_from)
            _ask_text(char, place_V6, np.int64(right_N[i + AHEAD // 2]) + right_from)
        at = slot((p << 32) | q, key_BC.shape[0])
        column = _find(key_BC, at, p, q, entry)
        if key_BC[at, column] != p or key_BC[at, column + 1] != q:
            key_BC[at, column], key_BC[at, column + 1] = p, q
            q += right_from
            if p != held:
                _turn_left(forward_A, sorted_A, distinct_A, char, place_V6, held, p)
                held = p
            for s in range(wanted_S.shape[0]):
                score_BC[at, column + 2 + s] = _value(
                    wanted_S[s], char, word, place_V6, word_char, word_W, space, p, q, forward_A, sorted_A, distinct_A, other_A,
                    one, two, short_R, long_R,
                )  # fmt: skip
        for s in range(wanted_S.shape[0]):
            value = score_BC[at, column + 2 + s]
            out_SN[s, i] = value
            long = long or value < 0.0
    return long
