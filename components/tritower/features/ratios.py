"""Similarities of pairs of texts, equal in float32 to rapidfuzz's: many pairs a call, no Python object for each.

A ratio is twice the longest common subsequence (LCS) over both lengths. The LCS is counted in the bits of a word (Hyyro 2004,
"Bit-parallel LCS-length computation revisited"), for the partial ratio at all places at once, so that the compiler puts
several into one vector. A ratio is 1 - d / n with small integers, so whatever the order of the arithmetic in float64 it rounds
to the same float32.

Jaro and Winkler's similarity matches letters in the bits of a word as well.

All values are from 0 to 1. NaN, for the caller to ask rapidfuzz, where the left text, or for the partial ratio the shorter one,
is longer than 64 characters, and where a text is empty or has a character beyond Latin-1.

Legend: P pairs, C characters of all texts of a side, W places of a window.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tritower.numba_cache import njit

BITS, HALF, LETTERS, SPACE = 64, 32, 256, 32
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth's multiplicative hashing)
_TWICE = np.uint64(1 << 63)
Array = npt.NDArray[Any]


class Codes(NamedTuple):
    """`texts` texts in Latin-1: that of number t is `code_C[start[t] : start[t + 1]]`, empty where Latin-1 lacks a letter.

    `sign[t]` has a bit for each word of it, the same for the same word, and the highest bit where two neighbours are one word.
    """

    code_C: Array
    start: Array
    sign: Array
    texts: int

    @staticmethod
    def of(texts: Sequence[str]) -> "Codes":
        """From the texts."""
        return Codes(np.empty(0, np.uint8), np.zeros(1, np.int64), np.empty(0, np.uint64), 0).extended(texts)

    def extended(self, texts: Sequence[str]) -> "Codes":
        """With more texts behind. This one stays as it is, and shares its memory while there is room."""
        parts = [_latin(text) for text in texts]
        first, used, count = self.texts + 1, int(self.start[self.texts]), self.texts + len(parts)
        end = used + np.cumsum([len(part) for part in parts], dtype=np.int64)
        total = int(end[-1]) if parts else used
        code_C, start = _roomy(self.code_C, used, total), _roomy(self.start, first, count + 1)
        code_C[used:total] = np.frombuffer(b"".join(parts), np.uint8)
        start[first : count + 1] = end
        sign = _roomy(self.sign, self.texts, count)
        _signs(code_C, start, self.texts, count, sign)
        return Codes(code_C, start, sign, count)


def _latin(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return b""


def _roomy(values: Array, used: int, need: int) -> Array:
    if need <= len(values):
        return values
    out = np.empty(max(need, 2 * len(values)), values.dtype)
    out[:used] = values[:used]
    return out


def partial(left: Codes, right: Codes, left_P: Array, right_P: Array) -> npt.NDArray[np.float64]:
    """The best ratio of the shorter text and any stretch of the longer one that is not longer; pairs are given by number."""
    out_P = np.empty(len(left_P))
    _partials(left.code_C, left.start, right.code_C, right.start, left_P, right_P, out_P)
    return out_P


def of_words(left: Codes, right: Codes, left_P: Array, right_P: Array) -> npt.NDArray[np.float64]:
    """The token-sort and token-set ratio (2, P) of texts whose words are in order, with single spaces between."""
    out_2P = np.empty((2, len(left_P)))
    _words(left.code_C, left.start, left.sign, right.code_C, right.start, right.sign, left_P, right_P, out_2P)
    return out_2P


def jaro_winkler(left: Codes, right: Codes, left_P: Array, right_P: Array) -> npt.NDArray[np.float64]:
    """Jaro's similarity, and a tenth of what lacks for each of the first four letters in common where it is above 0.7."""
    out_P = np.empty(len(left_P))
    _jaro_winklers(left.code_C, left.start, right.code_C, right.start, left_P, right_P, out_P)
    return out_P


@njit(cache=True, nogil=True)
def _longest(left_start: Array, right_start: Array, left_P: Array, right_P: Array) -> Any:
    most = np.int64(0)
    for p in range(len(left_P)):
        most = max(most, left_start[left_P[p] + 1] - left_start[left_P[p]])
        most = max(most, right_start[right_P[p] + 1] - right_start[right_P[p]])
    return most


@njit(cache=True, nogil=True)
def _signs(code_C: Array, start: Array, first: int, stop: int, sign: Array) -> None:
    for t in range(first, stop):
        at, end, bits = start[t], start[t + 1], np.uint64(0)
        while at < end:
            size, mixed = _word(code_C, at, end), np.uint64(0)
            for i in range(size):
                mixed = (mixed ^ np.uint64(code_C[at + i])) * _GOLDEN
            bits |= np.uint64(1) << ((mixed >> np.uint64(32)) % np.uint64(BITS - 1))
            if _beyond(code_C, at, size, end) != at + size + 1:
                bits |= _TWICE
            at += size + 1
        sign[t] = bits


@njit(cache=True, nogil=True)
def _partials(
    left_C: Array, left_start: Array, right_C: Array, right_start: Array, left_P: Array, right_P: Array, out_P: Array
) -> None:
    longest = _longest(left_start, right_start, left_P, right_P)
    narrow_W, narrow_state_W = np.empty(longest + 2 * HALF, np.uint32), np.empty(longest + HALF, np.uint32)
    bits_W, state_W = np.empty(longest + 2 * BITS, np.uint64), np.empty(longest + BITS, np.uint64)
    left_bits, right_bits, marked = np.zeros(LETTERS, np.uint64), np.zeros(LETTERS, np.uint64), np.int64(-1)
    for p in range(len(out_P)):
        a, b = left_start[left_P[p]], right_start[right_P[p]]
        m, n = left_start[left_P[p] + 1] - a, right_start[right_P[p] + 1] - b
        if min(m, n) == 0 or min(m, n) > BITS:
            out_P[p] = np.nan
            continue
        # Of two texts of one length either may be the one that is cut.
        score = 0.0
        if m <= n:
            if left_P[p] != marked:
                left_bits[:] = 0
                marked = left_P[p]
                _mark(left_C, a, m, left_bits)
            if m <= HALF:  # twice as many places a vector
                score = _best_place(m, right_C, b, n, left_bits, narrow_W, narrow_state_W)
            else:
                score = _best_place(m, right_C, b, n, left_bits, bits_W, state_W)
        if m >= n:
            _mark(right_C, b, n, right_bits)
            score = max(score, _best_place(n, left_C, a, m, right_bits, bits_W, state_W))
            for i in range(n):
                right_bits[right_C[b + i]] = 0
        out_P[p] = score


@njit(cache=True, nogil=True)
def _best_place(m: Any, long_C: Array, t: Any, n: Any, letter_bits: Array, bits_W: Array, state_W: Array) -> Any:
    """The best ratio of m characters, whose bits are given, and any window of that length over the n characters from t on."""
    # A window may stand out at either end, over blanks that match nothing.
    places = n + m - 1
    for w in range(m - 1):  # a slice would be an object for each pair
        bits_W[w] = bits_W[places + w] = 0
    for i in range(n):
        bits_W[m - 1 + i] = letter_bits[long_C[t + i]]
    for w in range(places):
        state_W[w] = ~np.uint64(0)
    for k in range(m):
        for w in range(places):
            state = state_W[w]
            match = state & bits_W[w + k]
            state_W[w] = (state + match) | (state - match)
    best, whole = np.int64(0), 2 * m
    for w in range(m - 1, n):
        best = max(best, _zeros(state_W[w], m))
    # One that stands out has no more in common than the outermost that does not, nor than it has letters.
    first, last = _zeros(state_W[m - 1], m), _zeros(state_W[n - 1], m)
    for inside in range(m - 1, 0, -1):
        if inside * whole <= best * (m + inside):
            break
        if first * whole > best * (m + inside):
            common = _zeros(state_W[inside - 1], m)
            if common * whole > best * (m + inside):
                best, whole = common, m + inside
        if last * whole > best * (m + inside):
            common = _zeros(state_W[places - inside], m)
            if common * whole > best * (m + inside):
                best, whole = common, m + inside
    return 2.0 * best / whole


@njit(cache=True, nogil=True)
def _zeros(state: Any, m: Any) -> Any:
    """How many of the last m bits are not set."""
    return _ones(~np.uint64(state) & (~np.uint64(0) >> np.uint64(BITS - m)))


@njit(cache=True, nogil=True)
def _words(
    left_C: Array, left_start: Array, left_sign: Array, right_C: Array, right_start: Array, right_sign: Array,
    left_P: Array, right_P: Array, out_2P: Array,
) -> None:  # fmt: skip
    longest = _longest(left_start, right_start, left_P, right_P)
    bits_left, bits_rest = np.zeros(LETTERS, np.uint64), np.zeros(LETTERS, np.uint64)
    rest_a, rest_b = np.empty(longest + 1, np.uint8), np.empty(longest + 1, np.uint8)
    marked = np.int64(-1)  # the left text that `bits_left` holds: that of the pair before, as a rule
    for p in range(len(left_P)):
        a, a_end = left_start[left_P[p]], left_start[left_P[p] + 1]
        b, b_end = right_start[right_P[p]], right_start[right_P[p] + 1]
        m, n = a_end - a, b_end - b
        if min(m, n) == 0 or m > BITS:
            out_2P[0, p] = out_2P[1, p] = np.nan
            continue
        if left_P[p] != marked:
            bits_left[:] = 0
            marked = left_P[p]
            _mark(left_C, a, m, bits_left)
        common = _common(bits_left, right_C, b, n)
        out_2P[0, p] = 2.0 * common / (m + n)
        sign_a, sign_b = left_sign[left_P[p]], right_sign[right_P[p]]
        if (sign_a & sign_b) == 0 and (sign_a | sign_b) < _TWICE:  # no word is shared, none comes twice
            out_2P[1, p] = 1.0 - (m + n - 2 * common) / (m + n)
            continue
        only_a, only_b, shared = _split(left_C, a, a_end, right_C, b, b_end, rest_a, rest_b)
        if shared > 0 and (only_a == 0 or only_b == 0):
            out_2P[1, p] = 1.0
            continue
        if only_a + only_b < m + n:  # a word is shared, or comes twice
            _mark(rest_a, 0, only_a, bits_rest)
            common = _common(bits_rest, rest_b, 0, only_b)
            for i in range(only_a):
                bits_rest[rest_a[i]] = 0
        apart = only_a + only_b - 2 * common
        if shared == 0:
            out_2P[1, p] = 1.0 - apart / (only_a + only_b)
            continue
        # The shared words alone, with the rest of one side, and with that of the other: each compared with each.
        with_a, with_b = shared + 1 + only_a, shared + 1 + only_b
        least = min(apart / (with_a + with_b), (1 + only_a) / (shared + with_a), (1 + only_b) / (shared + with_b))
        out_2P[1, p] = 1.0 - least


@njit(cache=True, nogil=True)
def _split(
    left_C: Array, a: int, a_end: int, right_C: Array, b: int, b_end: int, rest_a: Array, rest_b: Array
) -> tuple[Any, Any, Any]:
    """Write the distinct words that only one side has; the lengths of these and of the shared words, with single spaces."""
    only_a = only_b = shared = np.int64(0)
    x, y = _word(left_C, a, a_end), _word(right_C, b, b_end)
    while x > 0 or y > 0:
        order = _compare(left_C, a, x, right_C, b, y)
        if order == 0:
            shared += x + (shared > 0)
        elif order < 0:
            only_a = _append(left_C, a, x, rest_a, only_a)
        else:
            only_b = _append(right_C, b, y, rest_b, only_b)
        if order <= 0:
            a = _beyond(left_C, a, x, a_end)
            x = _word(left_C, a, a_end)
        if order >= 0:
            b = _beyond(right_C, b, y, b_end)
            y = _word(right_C, b, b_end)
    return only_a, only_b, shared


@njit(cache=True, nogil=True)
def _word(code_C: Array, at: int, end: int) -> Any:
    """Characters up to the next space."""
    size = np.int64(0)
    while at + size < end and code_C[at + size] != SPACE:
        size += 1
    return size


@njit(cache=True, nogil=True)
def _compare(left_C: Array, a: int, x: int, right_C: Array, b: int, y: int) -> Any:
    """Below, at or above 0 as a word of x characters comes before another of y, is it, or comes after; none comes last."""
    if x == 0 or y == 0:
        return y - x
    for i in range(min(x, y)):
        if left_C[a + i] != right_C[b + i]:
            return np.int64(left_C[a + i]) - np.int64(right_C[b + i])
    return x - y


@njit(cache=True, nogil=True)
def _append(code_C: Array, at: int, size: int, rest_C: Array, length: Any) -> Any:
    if length > 0:
        rest_C[length] = SPACE
        length += 1
    for i in range(size):
        rest_C[length + i] = code_C[at + i]
    return length + size


@njit(cache=True, nogil=True)
def _beyond(code_C: Array, at: int, size: int, end: int) -> Any:
    """Where the next word begins that is not this one once more."""
    following = at + size + 1
    while following + size <= end and (following + size == end or code_C[following + size] == SPACE):
        for i in range(size):
            if code_C[at + i] != code_C[following + i]:
                return following
        following += size + 1
    return following


@njit(cache=True, nogil=True)
def _jaro_winklers(
    left_C: Array, left_start: Array, right_C: Array, right_start: Array, left_P: Array, right_P: Array, out_P: Array
) -> None:
    letter_bits, matched = np.zeros(LETTERS, np.uint64), np.empty(BITS, np.uint8)
    marked = np.int64(-1)
    for p in range(len(left_P)):
        a, b = left_start[left_P[p]], right_start[right_P[p]]
        m, n = left_start[left_P[p] + 1] - a, right_start[right_P[p] + 1] - b
        if min(m, n) == 0 or m > BITS:
            out_P[p] = np.nan
            continue
        if left_P[p] != marked:
            letter_bits[:] = 0
            marked = left_P[p]
            _mark(left_C, a, m, letter_bits)
        score = _jaro(left_C, a, m, right_C, b, n, letter_bits, matched)
        alike = 0
        while alike < min(4, m, n) and left_C[a + alike] == right_C[b + alike]:
            alike += 1
        out_P[p] = score + 0.1 * alike * (1.0 - score) if score > 0.7 else score


@njit(cache=True, nogil=True)
def _jaro(left_C: Array, a: int, m: int, right_C: Array, b: int, n: int, letter_bits: Array, matched: Array) -> float:
    """`letter_bits` are the left text's."""
    reach = max(max(m, n) // 2 - 1, 0)
    taken = np.uint64(0)
    count = 0
    for j in range(min(n, m + reach)):
        first, last = max(0, j - reach), min(m - 1, j + reach)
        window = (~np.uint64(0) >> np.uint64(63 - (last - first))) << np.uint64(first)
        free = letter_bits[right_C[b + j]] & window & ~taken
        if free != 0:
            taken |= free & (~free + np.uint64(1))
            matched[count] = right_C[b + j]
            count += 1
    if count == 0:
        return 0.0
    moved = at = 0
    for i in range(m):
        if (taken >> np.uint64(i)) & np.uint64(1):
            moved += left_C[a + i] != matched[at]
            at += 1
    return (count / m + count / n + (count - moved // 2) / count) / 3.0


@njit(cache=True, nogil=True)
def _mark(code_C: Array, at: int, size: int, letter_bits: Array) -> None:
    """For each letter the bits of its places."""
    for i in range(size):
        letter_bits[code_C[at + i]] |= np.uint64(1) << np.uint64(i)


@njit(cache=True, nogil=True)
def _common(letter_bits: Array, code_C: Array, at: int, size: int) -> Any:
    """The LCS of the text marked and another."""
    state = ~np.uint64(0)
    for i in range(size):
        match = state & letter_bits[code_C[at + i]]
        state = (state + match) | (state - match)
    return _ones(~state)


@njit(cache=True, nogil=True)
def _ones(word: Any) -> Any:
    """How many bits are set (Warren, Hacker's Delight, 5-1)."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))
