"""String similarities of pairs of texts, bit-parallel, over texts that were cut up once.

The same values as rapidfuzz's `fuzz.token_set_ratio`, `fuzz.token_sort_ratio`, `fuzz.partial_ratio` (as shares) and
`JaroWinkler.similarity`; rapidfuzz does per pair what is done here per text: splitting, sorting, joining, mapping characters.

* ratio: 2 LCS / (length + length), the longest common subsequence by Hyyrö's bit-vector recurrence (2004): one word of 64
  bits holds the shorter text, each character of the longer costs four operations.
* token sort: ratio of the sorted words. Token set: ratio after the shared words are set aside.
* partial: the best ratio of the shorter text with any stretch of the longer that is no longer than it. One pass gives all
  prefixes, one all suffixes. Of the stretches of full length only those are compared that can still be the best: moving by
  one character changes the common subsequence by one at most, so two of them bound all between.
* Jaro-Winkler: Winkler 1990, with the usual prefix of up to 4 characters weighted 0.1 above a similarity of 0.7.

A pair whose shorter part has more than 64 characters is left to rapidfuzz (`long`).

Rows of one request follow one another, so the bit masks of the left text are kept from pair to pair. Texts are passed as
(array, first, length): slices would cost more than some of the comparisons.

Legend: V texts, W distinct words, A characters of the alphabet, N pairs, S scorers.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.extending import intrinsic

from tritower.features.corpus import LENGTH, RAW, UNIQUE, UNIQUE_LENGTH, WORD, WORDS, Texts
from tritower.features.pairs import prefetch, slot

Array = npt.NDArray[Any]
SCORERS = ("token_set", "token_sort", "partial", "jaro_winkler")
BITS = 64
AHEAD = 12  # rows between asking for a slot of the cache and looking into it
ONE = np.uint64(1)
FULL = np.uint64(0xFFFFFFFFFFFFFFFF)


class Masks(NamedTuple):
    """Where each character stands in a text, as bits: the left text forwards, backwards, with its words sorted, with its
    distinct words sorted; and room for texts of the moment."""

    forward_A: Array
    backward_A: Array
    sorted_A: Array
    distinct_A: Array
    other_A: Array
    other_backward_A: Array


@intrinsic
def _popcount(typing_context: Any, word: Any) -> Any:
    """Number of bits set in a uint64."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), codegen


popcount: Any = _popcount


# Rows of tables are never taken as views below: numba would count references to each, which costs more than a comparison.


@njit(cache=True, inline="always")
def _mark(mask_A: Array, text: Array, first: Any, length: Any) -> None:
    for i in range(min(length, BITS)):
        mask_A[text[first + i]] |= ONE << np.uint64(i)


@njit(cache=True, inline="always")
def _mark_backward(mask_A: Array, text: Array, first: Any, length: Any) -> None:
    for i in range(min(length, BITS)):
        mask_A[text[first + length - 1 - i]] |= ONE << np.uint64(i)


@njit(cache=True, inline="always")
def _clear(mask_A: Array, text: Array, first: Any, length: Any) -> None:
    for i in range(length):
        mask_A[text[first + i]] = np.uint64(0)


@njit(cache=True, inline="always")
def _lcs(mask_A: Array, text: Array, first: Any, length: Any) -> Any:
    """Longest common subsequence of a text and the pattern in the mask; the bits above the pattern stay set."""
    state = FULL
    for i in range(first, first + length):
        hit = state & mask_A[text[i]]
        state = (state + hit) | (state - hit)
    return np.int64(popcount(~state))


@njit(cache=True)
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


@njit(cache=True)
def _token_sort(sorted_A: Array, other_A: Array, char: Array, place_V6: Array, p: Any, q: Any) -> Any:
    """Ratio of two texts with their words sorted; -1 = too long."""
    m, n = np.int64(place_V6[p, LENGTH]), np.int64(place_V6[q, LENGTH])
    common = _common(sorted_A, other_A, char, place_V6[p, RAW] + m, m, char, place_V6[q, RAW] + n, n)
    return 2.0 * common / (m + n) if common >= 0 else -1.0


@njit(cache=True)
def _shares_words(word: Array, place_V6: Array, p: Any, q: Any) -> bool:
    for i in range(place_V6[p, WORD], place_V6[p, WORD] + place_V6[p, WORDS]):
        for j in range(place_V6[q, WORD], place_V6[q, WORD] + place_V6[q, WORDS]):
            if word[i] == word[j]:
                return True
    return False


@njit(cache=True)
def _append(buffer: Array, length: Any, word_char: Array, word_W: Array, space: int, word: Any) -> Any:
    if length:
        buffer[length] = space
        length += 1
    for i in range(word_W[word], word_W[word + 1]):
        buffer[length] = word_char[i]
        length += 1
    return length


@njit(cache=True)
def _token_set_disjoint(distinct_A: Array, other_A: Array, char: Array, place_V6: Array, p: Any, q: Any) -> Any:
    m, n = np.int64(place_V6[p, UNIQUE_LENGTH]), np.int64(place_V6[q, UNIQUE_LENGTH])
    common = _common(distinct_A, other_A, char, place_V6[p, UNIQUE], m, char, place_V6[q, UNIQUE], n)
    return 2.0 * common / (m + n) if common >= 0 else -1.0


@njit(cache=True)
def _token_set_shared(other_A: Array, texts: Texts, p: Any, q: Any, one: Array, two: Array) -> Any:
    """Token-set ratio of texts with words in common; the buffers are for the words that only one side has."""
    word, word_char, word_W, place_V6 = texts.word, texts.word_char, texts.word_W, texts.place_V6
    i, j = np.int64(place_V6[p, WORD]), np.int64(place_V6[q, WORD])
    i_end, j_end = i + place_V6[p, WORDS], j + place_V6[q, WORDS]
    shared = only_a = only_b = np.int64(0)
    while i < i_end or j < j_end:
        if j == j_end or (i < i_end and word[i] < word[j]):
            only_a = _append(one, only_a, word_char, word_W, texts.space, word[i])
            i += 1
        elif i == i_end or word[j] < word[i]:
            only_b = _append(two, only_b, word_char, word_W, texts.space, word[j])
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


@njit(cache=True)
def _slide(forward_A: Array, backward_A: Array, text: Array, m: Any, b: Any, n: Any, stack: Array) -> Any:
    """Best ratio of the pattern of length m in the masks with a stretch of text[b:][:n]; m is not above n."""
    low, high = _lcs(forward_A, text, b, m), _lcs(forward_A, text, b + n - m, m)
    top = max(low, high)
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3] = 0, low, n - m, high
    depth = 1
    while depth:
        depth -= 1
        i, at_i, j, at_j = stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3]
        if j - i < 2 or min(m, (at_i + at_j + j - i) // 2) <= top:
            continue
        middle = (i + j) // 2
        at = _lcs(forward_A, text, b + middle, m)
        top = max(top, at)
        stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3] = i, at_i, middle, at
        stack[depth + 1, 0], stack[depth + 1, 1], stack[depth + 1, 2], stack[depth + 1, 3] = middle, at, j, at_j
        depth += 2
    # Prefixes and suffixes that are shorter than the pattern share no more with it than the full stretch they are part of.
    best = top / m
    if 2.0 * low > best * (m + low):
        best = _prefixes(forward_A, text, m, b, 1, best)
    if 2.0 * high > best * (m + high):
        best = _prefixes(backward_A, text, m, b + n - 1, -1, best)
    return best


@njit(cache=True)
def _prefixes(mask_A: Array, text: Array, m: Any, first: Any, step: int, best: Any) -> Any:
    """The best ratio of the pattern of length m with a shorter text from `first` on, or `best` if that is more."""
    state = FULL
    for i in range(m - 1):
        hit = state & mask_A[text[first + step * i]]
        state = (state + hit) | (state - hit)
        double = 2.0 * popcount(~state)
        if double > best * (m + i + 1):
            best = double / (m + i + 1)
    return best


@njit(cache=True)
def _slide_other(other_A: Array, backward_A: Array, char: Array, a: Any, m: Any, b: Any, n: Any, stack: Array) -> Any:
    """The same for a pattern char[a:][:m] that no mask holds yet."""
    _mark(other_A, char, a, m)
    _mark_backward(backward_A, char, a, m)
    best = _slide(other_A, backward_A, char, m, b, n, stack)
    _clear(other_A, char, a, m)
    _clear(backward_A, char, a, m)
    return best


@njit(cache=True)
def _partial(masks: Masks, char: Array, place_V6: Array, p: Any, q: Any, stack: Array) -> Any:
    """Partial ratio; -1 = too long."""
    a, m, b, n = place_V6[p, RAW], np.int64(place_V6[p, LENGTH]), place_V6[q, RAW], np.int64(place_V6[q, LENGTH])
    if m > BITS and n > BITS:
        return -1.0
    if m > n:
        return _slide_other(masks.other_A, masks.other_backward_A, char, b, n, a, m, stack)
    best = _slide(masks.forward_A, masks.backward_A, char, m, b, n, stack)
    if m == n:
        best = max(best, _slide_other(masks.other_A, masks.other_backward_A, char, b, n, a, m, stack))
    return best


@njit(cache=True)
def _jaro_winkler(forward_A: Array, char: Array, place_V6: Array, p: Any, q: Any, matched: Array) -> Any:
    """Jaro-Winkler similarity; `matched` is a buffer for the right text's matched characters. -1 = left text too long."""
    a, m, b, n = place_V6[p, RAW], np.int64(place_V6[p, LENGTH]), place_V6[q, RAW], np.int64(place_V6[q, LENGTH])
    if m > BITS:
        return -1.0
    reach: Any = max(0, max(m, n) // 2 - 1)
    used: Any = np.uint64(0)
    # Bits low .. high of the left text are within reach of character j of the right; the window moves up by one each time.
    window: Any = FULL >> np.uint64(BITS - min(reach + 1, BITS))
    common = 0
    for j in range(min(n, m + reach)):
        free = forward_A[char[b + j]] & window & ~used
        used |= free & (~free + ONE)
        matched[common] = char[b + j]
        common += free != 0
        window = (window << ONE) | (ONE if j < reach else np.uint64(0))
    if common == 0:
        return 0.0
    swapped: Any = 0
    k: Any = 0
    for i in range(m):
        here = np.int64(used >> np.uint64(i) & ONE)
        swapped += here & np.int64(char[a + i] != matched[k])
        k += here
    jaro = (common / m + common / n + (common - swapped // 2) / common) / 3.0
    if jaro > 0.7:
        prefix = 0
        while prefix < 4 and prefix < m and prefix < n and char[a + prefix] == char[b + prefix]:
            prefix += 1
        jaro += prefix * 0.1 * (1.0 - jaro)
    return min(jaro, 1.0)


@njit(cache=True)
def _turn_left(masks: Masks, char: Array, place_V6: Array, old: Any, new: Any) -> None:
    """Exchange the left text in the masks; -1 = none."""
    if old >= 0:
        for mask_A in (masks.forward_A, masks.backward_A, masks.sorted_A, masks.distinct_A):  # of the same characters
            _clear(mask_A, char, place_V6[old, RAW], place_V6[old, LENGTH])
    a, m = place_V6[new, RAW], place_V6[new, LENGTH]
    _mark(masks.forward_A, char, a, m)
    _mark_backward(masks.backward_A, char, a, m)
    _mark(masks.sorted_A, char, a + m, m)
    _mark(masks.distinct_A, char, place_V6[new, UNIQUE], place_V6[new, UNIQUE_LENGTH])


@njit(cache=True)
def _masks(alphabet: int) -> Masks:
    return Masks(
        np.zeros(alphabet, np.uint64), np.zeros(alphabet, np.uint64), np.zeros(alphabet, np.uint64),
        np.zeros(alphabet, np.uint64), np.zeros(alphabet, np.uint64), np.zeros(alphabet, np.uint64),
    )  # fmt: skip


@njit(cache=True)
def score(
    texts: Texts, left_N: Array, right_N: Array, right_from: int, wanted_S: Array, key_BC: Array, score_BC: Array, out_SN: Array
) -> bool:
    """Score pairs through a direct-mapped cache; whether some pair is too long for one of the scorers.

    Args:
        texts: from `corpus.prepare`.
        left_N, right_N: text numbers; a negative one gives NaN.
        right_from: added to the right numbers.
        wanted_S: numbers of `SCORERS`, one per row of `out_SN`.
        key_BC: the cache as int32; the first two columns are the pair, -1 = none. The size is a power of two.
        score_BC: the same memory as float32; the scores follow the pair, so that a look-up touches one cache line.
        out_SN: to fill: 0 to 1, -1 too long, NaN where a text is empty.
    """
    masks = _masks(texts.alphabet)
    char, word, place_V6 = texts.char, texts.word, texts.place_V6
    sorted_A, distinct_A, other_A, forward_A = masks.sorted_A, masks.distinct_A, masks.other_A, masks.forward_A
    one, two = np.empty(texts.longest + 2, char.dtype), np.empty(texts.longest + 2, char.dtype)
    stack = np.empty((BITS, 4), np.int64)  # halving needs one entry per bit of a text's length
    held = np.int64(-1)
    long = False
    for i in range(left_N.shape[0]):
        p, q = np.int64(left_N[i]), np.int64(right_N[i])
        if p < 0 or q < 0:
            out_SN[:, i] = np.nan
            continue
        if i + AHEAD < left_N.shape[0]:
            soon = (np.int64(left_N[i + AHEAD]) << 32) | np.int64(right_N[i + AHEAD])
            prefetch(key_BC, slot(soon, key_BC.shape[0]))
        at = slot((p << 32) | q, key_BC.shape[0])
        if key_BC[at, 0] != p or key_BC[at, 1] != q:
            key_BC[at, 0], key_BC[at, 1] = p, q
            q += right_from
            blank = place_V6[p, LENGTH] == 0 or place_V6[q, LENGTH] == 0
            if p != held:
                _turn_left(masks, char, place_V6, held, p)
                held = p
            for s in range(wanted_S.shape[0]):
                if blank:
                    value = np.nan
                elif wanted_S[s] == 0:
                    if _shares_words(word, place_V6, p, q):
                        value = _token_set_shared(other_A, texts, p, q, one, two)
                    else:
                        value = _token_set_disjoint(distinct_A, other_A, char, place_V6, p, q)
                elif wanted_S[s] == 1:
                    value = _token_sort(sorted_A, other_A, char, place_V6, p, q)
                elif wanted_S[s] == 2:
                    value = _partial(masks, char, place_V6, p, q, stack)
                else:
                    value = _jaro_winkler(forward_A, char, place_V6, p, q, one)
                score_BC[at, 2 + s] = value
        for s in range(wanted_S.shape[0]):
            out_SN[s, i] = score_BC[at, 2 + s]
            long = long or score_BC[at, 2 + s] < 0.0
    return long
