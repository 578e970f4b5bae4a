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
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit, types
from numba.extending import intrinsic

from tritower.features.pairs import slot

Array = npt.NDArray[Any]
SCORERS = ("token_set", "token_sort", "partial", "jaro_winkler")
BITS = 64
ONE = np.uint64(1)
FULL = np.uint64(0xFFFFFFFFFFFFFFFF)


class Texts(NamedTuple):
    """Texts as character codes and as sets of word numbers; what belongs to one text lies side by side.

    `char` holds for each text its characters, the same with the words sorted, and the distinct words sorted. Word numbers
    are in the order of the words, so that a sorted set of words is a sorted run of numbers.
    """

    char: Array
    word: Array
    place_V6: Array  # see the columns below
    word_char: Array
    word_W: Array
    alphabet: int
    space: int
    longest: int


# Columns of `place_V6`: first character, characters, first of the distinct words' characters, how many, first word, words.
RAW, LENGTH, UNIQUE, UNIQUE_LENGTH, WORD, WORDS = 0, 1, 2, 3, 4, 5


def prepare(texts: pa.Array) -> Texts:
    """Cut up texts whose words are separated by single spaces."""
    words = pc.split_pattern(texts, " ")
    length_V = pc.list_value_length(words).to_numpy().astype(np.int64)
    flat = pc.list_flatten(words)
    vocabulary = flat.unique()
    vocabulary = vocabulary.take(pc.array_sort_indices(vocabulary))
    word_N = pc.index_in(flat, value_set=vocabulary).to_numpy().astype(np.int64)
    text_N = np.repeat(np.arange(len(texts)), length_V)
    word_N = word_N[np.lexsort((word_N, text_N))]
    first = np.ones(len(word_N), np.bool_)
    first[1:] = (word_N[1:] != word_N[:-1]) | (text_N[1:] != text_N[:-1])
    distinct_V = np.bincount(text_N[first], minlength=len(texts))
    in_order, distinct = _join(word_N, length_V, vocabulary), _join(word_N[first], distinct_V, vocabulary)
    (char, word_char), alphabet = _characters([pc.binary_join_element_wise(texts, in_order, distinct, ""), vocabulary])
    raw_V, unique_V = (pc.utf8_length(column).to_numpy().astype(np.int64) for column in (texts, distinct))
    start_V, word_V = _offsets(2 * raw_V + unique_V)[:-1], _offsets(distinct_V)[:-1]
    place_V6 = np.stack([start_V, raw_V, start_V + 2 * raw_V, unique_V, word_V, distinct_V], axis=1)
    return Texts(
        char=char,
        word=word_N[first].astype(np.int32),
        place_V6=place_V6 if len(char) >= 1 << 31 else place_V6.astype(np.int32),
        word_char=word_char,
        word_W=_offsets(pc.utf8_length(vocabulary).to_numpy()),
        alphabet=len(alphabet),
        space=int(np.searchsorted(alphabet, ord(" "))),
        longest=int(raw_V.max(initial=0)),
    )


def _join(word_N: Array, length_V: Array, vocabulary: pa.Array) -> pa.Array:
    lists = pa.ListArray.from_arrays(pa.array(_offsets(length_V), pa.int32()), vocabulary.take(pa.array(word_N)))
    return pc.binary_join(lists, " ")


def _characters(columns: list[pa.Array]) -> tuple[list[Array], Array]:
    """Each column's characters, one text after another, as dense codes of one alphabet."""
    points = [np.frombuffer("".join(column.to_pylist()).encode("utf-32-le"), np.uint32) for column in columns]
    seen = np.zeros(0x110000, np.bool_)
    for point in points:
        seen[point] = True
    seen[ord(" ")] = True
    alphabet = np.flatnonzero(seen)
    code = np.zeros(0x110000, np.uint16 if len(alphabet) < 1 << 16 else np.int32)
    code[alphabet] = np.arange(len(alphabet))
    return [code[point] for point in points], alphabet


def _offsets(length: Array) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(length)]).astype(np.int64)


@intrinsic
def _popcount(typing_context: Any, word: Any) -> Any:
    """Number of bits set in a uint64."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), codegen


popcount: Any = _popcount


# Rows of the mask table: the left text forwards, backwards, with its words sorted, with its distinct words sorted, and two
# for texts of the moment.
FORWARD, BACKWARD, SORTED, DISTINCT, OTHER, OTHER_BACKWARD, MASKS = 0, 1, 2, 3, 4, 5, 6


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
def _common(mask_MA: Array, left_mask: int, text: Array, a: Any, m: Any, other: Array, b: Any, n: Any) -> Any:
    """Longest common subsequence of text[a:][:m] and other[b:][:n]; -1 if both have more than 64 characters.

    `left_mask` is the row that holds the first text, or OTHER where none does yet.
    """
    if m <= BITS and left_mask != OTHER:
        return _lcs(mask_MA[left_mask], other, b, n)
    if m > BITS:
        text, a, m, other, b, n = other, b, n, text, a, m
    if m > BITS:
        return np.int64(-1)
    _mark(mask_MA[OTHER], text, a, m)
    common = _lcs(mask_MA[OTHER], other, b, n)
    _clear(mask_MA[OTHER], text, a, m)
    return common


@njit(cache=True)
def token_sort(mask_MA: Array, texts: Texts, left_6: Array, right_6: Array) -> Any:
    """Ratio of two texts with their words sorted; -1 = too long."""
    m, n = np.int64(left_6[LENGTH]), np.int64(right_6[LENGTH])
    common = _common(mask_MA, SORTED, texts.char, left_6[RAW] + m, m, texts.char, right_6[RAW] + n, n)
    return 2.0 * common / (m + n) if common >= 0 else -1.0


@njit(cache=True)
def _shares_words(texts: Texts, left_6: Array, right_6: Array) -> bool:
    for i in range(left_6[WORD], left_6[WORD] + left_6[WORDS]):
        for j in range(right_6[WORD], right_6[WORD] + right_6[WORDS]):
            if texts.word[i] == texts.word[j]:
                return True
    return False


@njit(cache=True)
def _append(buffer: Array, length: Any, texts: Texts, word: Any) -> Any:
    if length:
        buffer[length] = texts.space
        length += 1
    for i in range(texts.word_W[word], texts.word_W[word + 1]):
        buffer[length] = texts.word_char[i]
        length += 1
    return length


@njit(cache=True)
def token_set(mask_MA: Array, texts: Texts, left_6: Array, right_6: Array, buffer_2C: Array) -> Any:
    """Token-set ratio; the buffers are for the words that only one side has. -1 = too long."""
    if not _shares_words(texts, left_6, right_6):
        m, n = np.int64(left_6[UNIQUE_LENGTH]), np.int64(right_6[UNIQUE_LENGTH])
        common = _common(mask_MA, DISTINCT, texts.char, left_6[UNIQUE], m, texts.char, right_6[UNIQUE], n)
        return 2.0 * common / (m + n) if common >= 0 else -1.0
    i, j = np.int64(left_6[WORD]), np.int64(right_6[WORD])
    i_end, j_end = i + left_6[WORDS], j + right_6[WORDS]
    shared = only_a = only_b = np.int64(0)
    while i < i_end or j < j_end:
        if j == j_end or (i < i_end and texts.word[i] < texts.word[j]):
            only_a = _append(buffer_2C[0], only_a, texts, texts.word[i])
            i += 1
        elif i == i_end or texts.word[j] < texts.word[i]:
            only_b = _append(buffer_2C[1], only_b, texts, texts.word[j])
            j += 1
        else:
            shared += (shared > 0) + texts.word_W[texts.word[i] + 1] - texts.word_W[texts.word[i]]
            i += 1
            j += 1
    if only_a == 0 or only_b == 0:
        return 1.0
    common = _common(mask_MA, OTHER, buffer_2C[0], np.int64(0), only_a, buffer_2C[1], np.int64(0), only_b)
    if common < 0:
        return -1.0
    all_a, all_b = shared + 1 + only_a, shared + 1 + only_b
    best = 1.0 - (only_a + only_b - 2.0 * common) / (all_a + all_b)
    return max(best, 1.0 - (1 + only_a) / (shared + all_a), 1.0 - (1 + only_b) / (shared + all_b))


@njit(cache=True)
def _slide(forward_A: Array, backward_A: Array, text: Array, m: Any, b: Any, n: Any, stack: Array) -> Any:
    """Best ratio of the pattern of length m in the masks with a stretch of text[b:][:n]; m is not above n."""
    # Ends first: prefixes and suffixes that are shorter than the pattern, one pass each.
    best = 0.0
    state, other = FULL, FULL
    for i in range(m - 1):
        hit, other_hit = state & forward_A[text[b + i]], other & backward_A[text[b + n - 1 - i]]
        state, other = (state + hit) | (state - hit), (other + other_hit) | (other - other_hit)
        both = 2.0 * max(popcount(~state), popcount(~other))
        if both > best * (m + i + 1):
            best = both / (m + i + 1)
    low, high = _lcs(forward_A, text, b, m), _lcs(forward_A, text, b + n - m, m)
    top = max(low, high, np.int64(np.floor(best * m)))  # of the full stretches, only more than this is of use
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
    return max(best, top / m)


@njit(cache=True)
def _slide_other(mask_MA: Array, text: Array, a: Any, m: Any, b: Any, n: Any, stack: Array) -> Any:
    """The same for a pattern text[a:][:m] that no mask holds yet."""
    _mark(mask_MA[OTHER], text, a, m)
    _mark_backward(mask_MA[OTHER_BACKWARD], text, a, m)
    best = _slide(mask_MA[OTHER], mask_MA[OTHER_BACKWARD], text, m, b, n, stack)
    _clear(mask_MA[OTHER], text, a, m)
    _clear(mask_MA[OTHER_BACKWARD], text, a, m)
    return best


@njit(cache=True)
def partial(mask_MA: Array, texts: Texts, left_6: Array, right_6: Array, stack: Array) -> Any:
    """Partial ratio; -1 = too long."""
    a, b, m, n = np.int64(left_6[RAW]), np.int64(right_6[RAW]), np.int64(left_6[LENGTH]), np.int64(right_6[LENGTH])
    if m > BITS and n > BITS:
        return -1.0
    if m > n:
        return _slide_other(mask_MA, texts.char, b, n, a, m, stack)
    best = _slide(mask_MA[FORWARD], mask_MA[BACKWARD], texts.char, m, b, n, stack)
    return max(best, _slide_other(mask_MA, texts.char, b, n, a, m, stack)) if m == n else best


@njit(cache=True)
def jaro_winkler(mask_MA: Array, texts: Texts, left_6: Array, right_6: Array, matched: Array) -> Any:
    """Jaro-Winkler similarity; `matched` is a buffer for the right text's matched characters. -1 = left text too long."""
    text, mask_A = texts.char, mask_MA[FORWARD]
    a, b, m, n = np.int64(left_6[RAW]), np.int64(right_6[RAW]), np.int64(left_6[LENGTH]), np.int64(right_6[LENGTH])
    if m > BITS:
        return -1.0
    reach: Any = max(0, max(m, n) // 2 - 1)
    used: Any = np.uint64(0)
    # Bits low .. high of the left text are within reach of character j of the right; the window moves up by one each time.
    window: Any = FULL >> np.uint64(BITS - min(reach + 1, BITS))
    common = 0
    for j in range(min(n, m + reach)):
        free = mask_A[text[b + j]] & window & ~used
        used |= free & (~free + ONE)
        matched[common] = text[b + j]
        common += free != 0
        window = (window << ONE) | (ONE if j < reach else np.uint64(0))
    if common == 0:
        return 0.0
    swapped: Any = 0
    k: Any = 0
    for i in range(m):
        here = np.int64(used >> np.uint64(i) & ONE)
        swapped += here & np.int64(text[a + i] != matched[k])
        k += here
    jaro = (common / m + common / n + (common - swapped // 2) / common) / 3.0
    if jaro > 0.7:
        prefix = 0
        while prefix < 4 and prefix < m and prefix < n and text[a + prefix] == text[b + prefix]:
            prefix += 1
        jaro += prefix * 0.1 * (1.0 - jaro)
    return min(jaro, 1.0)


@njit(cache=True)
def _turn_left(mask_MA: Array, texts: Texts, old: Any, new: Any) -> None:
    """Exchange the left text in the masks; -1 = none."""
    if old >= 0:
        for row in (FORWARD, BACKWARD, SORTED, DISTINCT):  # the same characters in all of them
            _clear(mask_MA[row], texts.char, texts.place_V6[old, RAW], texts.place_V6[old, LENGTH])
    place_6 = texts.place_V6[new]
    _mark(mask_MA[FORWARD], texts.char, place_6[RAW], place_6[LENGTH])
    _mark_backward(mask_MA[BACKWARD], texts.char, place_6[RAW], place_6[LENGTH])
    _mark(mask_MA[SORTED], texts.char, place_6[RAW] + place_6[LENGTH], place_6[LENGTH])
    _mark(mask_MA[DISTINCT], texts.char, place_6[UNIQUE], place_6[UNIQUE_LENGTH])


@njit(cache=True)
def score(
    texts: Texts, left_N: Array, right_N: Array, right_from: int, wanted_S: Array, key_BC: Array, score_BC: Array, out_SN: Array
) -> bool:
    """Score pairs through a direct-mapped cache; whether some pair is too long for one of the scorers.

    Args:
        texts: from `prepare`.
        left_N, right_N: text numbers; a negative one gives NaN.
        right_from: added to the right numbers.
        wanted_S: numbers of `SCORERS`, one per row of `out_SN`.
        key_BC: the cache as int32; the first two columns are the pair, -1 = none. The size is a power of two.
        score_BC: the same memory as float32; the scores follow the pair, so that a look-up touches one cache line.
        out_SN: to fill: 0 to 1, -1 too long, NaN where a text is empty.
    """
    mask_MA = np.zeros((MASKS, texts.alphabet), np.uint64)
    buffer_2C = np.empty((2, texts.longest + 2), texts.char.dtype)
    stack = np.empty((BITS, 4), np.int64)  # halving needs one entry per bit of a text's length
    held = np.int64(-1)
    long = False
    for i in range(left_N.shape[0]):
        p, q = np.int64(left_N[i]), np.int64(right_N[i])
        if p < 0 or q < 0:
            out_SN[:, i] = np.nan
            continue
        at = slot((p << 32) | q, key_BC.shape[0])
        if key_BC[at, 0] != p or key_BC[at, 1] != q:
            key_BC[at, 0], key_BC[at, 1] = p, q
            if p != held:
                _turn_left(mask_MA, texts, held, p)
                held = p
            _score_pair(mask_MA, texts, p, q + right_from, wanted_S, buffer_2C, stack, score_BC[at])
        for s in range(wanted_S.shape[0]):
            out_SN[s, i] = score_BC[at, 2 + s]
            long = long or score_BC[at, 2 + s] < 0.0
    return long


@njit(cache=True)
def _score_pair(
    mask_MA: Array, texts: Texts, p: Any, q: Any, wanted_S: Array, buffer_2C: Array, stack: Array, out_C: Array
) -> None:
    left_6, right_6 = texts.place_V6[p], texts.place_V6[q]
    for s in range(wanted_S.shape[0]):
        if left_6[LENGTH] == 0 or right_6[LENGTH] == 0:
            out_C[2 + s] = np.nan
        elif wanted_S[s] == 0:
            out_C[2 + s] = token_set(mask_MA, texts, left_6, right_6, buffer_2C)
        elif wanted_S[s] == 1:
            out_C[2 + s] = token_sort(mask_MA, texts, left_6, right_6)
        elif wanted_S[s] == 2:
            out_C[2 + s] = partial(mask_MA, texts, left_6, right_6, stack)
        else:
            out_C[2 + s] = jaro_winkler(mask_MA, texts, left_6, right_6, buffer_2C[0])
