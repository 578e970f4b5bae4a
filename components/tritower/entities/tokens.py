"""Cutting a batch of texts into tokens that are known by number, straight from an Arrow column.

A token is what `vocabulary.text.TOKEN` says. Texts of ASCII are cut here, byte by byte, in one compiled pass that looks each
token up in a hash table; other texts, which are few, go through the pattern itself, and so do tokens met for the first time.

Legend: V texts, T tokens, B slots of the hash table (a power of two), C distinct tokens.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tritower.entities import kernel
from tritower.numba_cache import njit
from tritower.vocabulary.text import TOKEN

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int32]
LETTER, DIGIT, SCORE = 1, 2, 4
_JOINTS = frozenset(["", " ", "-", "  ", "'", "’", ". ", "–"])
"""What may stand between two tokens of one phrase."""
_SLASHES = frozenset(["/", " / "])
"""What separates titles, but may stand within a listed phrase: "cook/cashier" are two titles."""
_LIMIT = 500_000
"""Distinct tokens kept from batch to batch."""
_KIND = np.array([LETTER * chr(c).isalpha() + DIGIT * chr(c).isdigit() + SCORE * (c == 95) for c in range(128)], np.uint8)


class Cut(NamedTuple):
    """The tokens of a batch: text, first character, character after, number, and what stands before (`kernel.JOINT` ...)."""

    text_T: Ints
    start_T: Ints
    end_T: Ints
    code_T: Ints
    gap_T: Ints


class Tokens:
    """Numbers of the tokens met so far, with what is known of each: the number of its folded word, and flags."""

    def __init__(self, describe: Callable[[str], tuple[int, int]]) -> None:
        """`describe` gives word number and flags of a token as written."""
        self._describe = describe
        self.clear()

    def clear(self) -> None:
        """Forget all tokens."""
        self.written: list[str] = []
        self._code: dict[str, int] = {}
        self._about_C2 = np.zeros((1024, 2), np.int32)
        self._byte_C = np.zeros(1, np.int64)
        self._bytes = np.zeros(1 << 14, np.uint8)
        self._code_B = np.full(4096, -1, np.int32)

    def describe(self, code_T: Ints) -> tuple[Ints, Ints]:
        """Word numbers and flags of tokens."""
        about_T2 = self._about_C2[code_T]
        return about_T2[:, 0].copy(), about_T2[:, 1].copy()

    def cut(self, texts: pa.StringArray) -> Cut:
        """The tokens of texts without nulls."""
        if len(self.written) > _LIMIT:
            self.clear()
        _, offsets, data = texts.buffers()
        first_V = np.zeros(1, np.int32)
        if len(texts):
            first_V = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        content = np.frombuffer(data or b"", np.uint8)
        other_V = np.zeros(len(texts), np.bool_)
        if (content[first_V[0] : first_V[-1]] > 127).any():
            other_V = has_signs(content, first_V)
        by_pattern = self._by_pattern(texts, np.flatnonzero(other_V))
        room = int(first_V[-1] - first_V[0]) + 1
        out_5T = tuple(np.empty(room, np.int32) for _ in range(5))
        tokens = cut_batch(content, first_V, other_V, *by_pattern, _KIND, self._code_B, self._byte_C, self._bytes, *out_5T)
        cut = Cut(*(column[:tokens] for column in out_5T))
        unknown = np.flatnonzero(cut.code_T < 0)
        if len(unknown):
            begin = (first_V[cut.text_T[unknown]] + cut.start_T[unknown]).tolist()
            length = (cut.end_T - cut.start_T)[unknown].tolist()
            written = [content[at : at + size].tobytes().decode("ascii") for at, size in zip(begin, length, strict=True)]
            cut.code_T[unknown] = [self._number(token) for token in written]
        return cut

    def _by_pattern(self, texts: pa.StringArray, which: Array) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """Tokens per text, then start, end, number and gap of each token of the texts in `which`."""
        count, rows = [0], []
        for text in texts.take(pa.array(which)).to_pylist():
            last, gap = 0, kernel.START
            for match in TOKEN.finditer(text):
                if last:
                    between = text[last : match.start()]
                    gap = kernel.JOINT if between in _JOINTS else kernel.SLASH if between in _SLASHES else kernel.BREAK
                rows.append((match.start(), match.end(), self._number(match[0]), gap))
                last = match.end()
            count.append(len(rows))
        columns = np.array(rows, np.int32).reshape(-1, 4).T.copy()
        return np.array(count, np.int32), columns[0], columns[1], columns[2], columns[3]

    def _number(self, written: str) -> int:
        code = self._code.get(written)
        if code is None:
            code = self._code[written] = len(self.written)
            self.written.append(written)
            self._about_C2 = _with_room(self._about_C2, code + 1)
            self._about_C2[code] = self._describe(written)
            # Tokens that are not ASCII have no bytes: no look-up can meet them.
            key = np.frombuffer(written.encode() if written.isascii() else b"", np.uint8)
            end = self._byte_C[code] + len(key)
            self._byte_C = _with_room(self._byte_C, code + 2)
            self._byte_C[code + 1] = end
            self._bytes = _with_room(self._bytes, end)
            self._bytes[end - len(key) : end] = key
            if 2 * (code + 1) > len(self._code_B):
                self._code_B = np.full(2 * len(self._code_B), -1, np.int32)
                put(self._code_B, self._byte_C, self._bytes, 0, code)
            put(self._code_B, self._byte_C, self._bytes, code, code + 1)
        return code


def _with_room(array: Array, size: int) -> Array:
    """The array, doubled where it has fewer than `size` rows."""
    if size <= len(array):
        return array
    return np.concatenate([array, np.zeros((max(size, 2 * len(array)) - len(array), *array.shape[1:]), array.dtype)])


@njit(cache=True)
def has_signs(data: Array, first_V: Array) -> Array:
    """Which texts hold a character that is not ASCII."""
    out_V = np.zeros(len(first_V) - 1, np.bool_)
    for v in range(len(out_V)):
        for i in range(first_V[v], first_V[v + 1]):
            if data[i] > 127:
                out_V[v] = True
                break
    return out_V


@njit(cache=True, forceinline=True)
def _slot(data: Array, begin: Any, end: Any) -> Any:
    """Where the search for a token starts: FNV-1a over its bytes, high bits folded in."""
    mixed = np.uint64(0xCBF29CE484222325)
    for i in range(begin, end):
        mixed = (mixed ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
    return np.int64((mixed ^ (mixed >> np.uint64(29))) & np.uint64(0x7FFFFFFFFFFFFFFF))


@njit(cache=True)
def put(code_B: Array, byte_C: Array, store: Array, first: Any, until: int) -> None:
    """Enter the tokens `first` to `until` - 1 into the hash table."""
    for code in range(first, until):
        if byte_C[code] < byte_C[code + 1]:
            at = _slot(store, byte_C[code], byte_C[code + 1]) & (len(code_B) - 1)
            while code_B[at] >= 0:
                at = (at + 1) & (len(code_B) - 1)
            code_B[at] = code


@njit(cache=True, forceinline=True)
def _look_up(data: Array, begin: Any, end: Any, code_B: Array, byte_C: Array, store: Array) -> Any:
    at = _slot(data, begin, end) & (len(code_B) - 1)
    while code_B[at] >= 0:
        code = code_B[at]
        first = byte_C[code]
        if byte_C[code + 1] - first == end - begin:
            same = 0
            while same < end - begin and data[begin + same] == store[first + same]:
                same += 1
            if same == end - begin:
                return code
        at = (at + 1) & (len(code_B) - 1)
    return -1


@njit(cache=True, forceinline=True)
def _kind(data: Array, i: Any, last: Any, kind: Array) -> Any:
    return kind[data[i]] if i < last else 0


@njit(cache=True, forceinline=True)
def _chain(data: Array, i: Any, last: Any, kind: Array, sign: Any, most: Any) -> Any:
    """End of letters joined by a sign ("R.N", "R&D"), up to `most` between two signs, that no word character follows; or i."""
    end = at = i
    joints = -1
    while True:
        size = 0
        while size < most and _kind(data, at + size, last, kind) & LETTER:
            size += 1
        if not size:
            return end
        at += size
        joints += 1
        if joints and not _kind(data, at, last, kind):
            end = at
        if at >= last or data[at] != sign:
            return end
        at += 1


@njit(cache=True, forceinline=True)
def _signed(data: Array, i: Any, last: Any, kind: Array) -> Any:
    """End of a token at i that holds signs other than inner apostrophes, where no word character stands before; or i."""
    sign, letter = data[i], data[i] | 32
    after = data[i + 1] if i + 1 < last else 0
    if letter == 99 or letter == 102 or letter == 106:  # c, f, j
        if letter != 106 and after == 35 and not _kind(data, i + 2, last, kind):
            return i + 2
        if after == 43 and i + 2 < last and data[i + 2] == 43:
            return i + 3
    if sign == 46:  # .net
        found = i + 3 < last and after | 32 == 110 and data[i + 2] | 32 == 101 and data[i + 3] | 32 == 116
        return i + 4 if found and not _kind(data, i + 4, last, kind) else i
    end = _chain(data, i, last, kind, 46, 2)
    if end > i:
        return end + 1 if end < last and data[end] == 46 else end
    return _chain(data, i, last, kind, 38, 1)


@njit(cache=True, forceinline=True)
def _end(data: Array, i: Any, first: Any, last: Any, kind: Array) -> Any:
    """End of the token that starts at i; i where none does."""
    word = i
    while _kind(data, word, last, kind) & (LETTER | DIGIT):
        word += 1
    if word - i < 3:
        before = kind[data[i - 1]] if i > first else 0
        if not before and not (data[i] == 46 and i > first and data[i - 1] == 46):
            end = _signed(data, i, last, kind)
            if end > i:
                return end
        if word == i:
            return i + 1 if data[i] == 38 else i
    while word + 1 < last and data[word] == 39 and kind[data[word + 1]] & LETTER:
        word += 1
        while _kind(data, word, last, kind) & LETTER:
            word += 1
    return word


@njit(cache=True, forceinline=True)
def _gap(data: Array, begin: Any, end: Any) -> Any:
    """What stands between two tokens; the same as `_JOINTS` and `_SLASHES` say."""
    size = end - begin
    if size == 0:
        return kernel.JOINT
    one = data[begin]
    if size == 1:
        if one == 32 or one == 45 or one == 39:
            return kernel.JOINT
        return kernel.SLASH if one == 47 else kernel.BREAK
    if size == 2 and data[begin + 1] == 32 and (one == 32 or one == 46):
        return kernel.JOINT
    if size == 3 and one == 32 and data[begin + 1] == 47 and data[begin + 2] == 32:
        return kernel.SLASH
    return kernel.BREAK


@njit(cache=True)
def cut_batch(
    data: Array, first_V: Array, other_V: Array, given: Array, start_G: Array, end_G: Array, code_G: Array, gap_G: Array,
    kind: Array, code_B: Array, byte_C: Array, store: Array, text_T: Array, start_T: Array, end_T: Array, code_T: Array,
    gap_T: Array,
) -> Any:  # fmt: skip
    """Write the tokens of a batch; their number.

    Args:
        data, first_V: the texts' bytes, and where each begins.
        other_V: texts that are not ASCII: their tokens are given.
        given: where the tokens of each of those begin; start, end, number and gap of each follow.
        kind: LETTER, DIGIT, SCORE or 0 of each ASCII character.
        code_B, byte_C, store: the hash table, and where the bytes of each token begin.
        text_T, start_T, end_T, code_T, gap_T: to fill; -1 for a token that the table does not have.
    """
    t = others = 0
    for v in range(len(other_V)):
        if other_V[v]:
            for g in range(given[others], given[others + 1]):
                text_T[t], start_T[t], end_T[t], code_T[t], gap_T[t] = v, start_G[g], end_G[g], code_G[g], gap_G[g]
                t += 1
            others += 1
            continue
        first, last = np.int64(first_V[v]), np.int64(first_V[v + 1])
        i, previous = first, np.int64(-1)
        while i < last:
            end = _end(data, i, first, last, kind)
            if end == i:
                i += 1
                continue
            text_T[t], start_T[t], end_T[t] = v, i - first, end - first
            gap_T[t] = kernel.START if previous < 0 else _gap(data, previous, i)
            code_T[t] = _look_up(data, i, end, code_B, byte_C, store)
            t += 1
            i = previous = end
    return t
