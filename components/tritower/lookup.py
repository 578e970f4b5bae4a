"""Numbers for strings: Arrow strings and a hash table, two flat pieces of memory that may lie in mapped files.

A Python dict of a million job ids takes 170 MB in every process that has it. The same strings in Arrow and their slots take 30,
and where both are files, processes share them. A look-up of 1,000 strings is one call of a kernel.

    lookup = Lookup(pa.array(["a", "b"]))           # or: Lookup(strings, slots) with the slots of such a one
    lookup.find("b"), lookup.find_all(["b", "c"])   # 1, [1, -1]
    lookup.add("c")                                 # 2: it stands in a dict of this process

A slot is 0 where it is free, else the upper half of the string's hash and, in the lower half, its number plus 1. Look-ups go on
slot by slot from hash * B / 2^32.

Legend: S strings, B slots, C bytes, N strings asked for.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tritower.errors import DataError
from tritower.numba_cache import njit

Slots = NDArray[np.uint64]
Ints = NDArray[np.int64]
Array = NDArray[Any]
_LOW = np.uint64(0xFFFFFFFF)


class Lookup:
    """Strings by number and back. Any number of threads may find; whoever adds holds off others that add.

    Strings are those of an array, whose numbers are their places, then those added.
    """

    def __init__(self, strings: pa.Array, slots: Slots | None = None) -> None:
        """Of distinct strings.

        Args:
            strings: of type string.
            slots: what `slots` was of the same strings; made anew where it is not given.

        Raises:
            DataError: a string comes twice.
        """
        self.strings = strings if pa.types.is_string(strings.type) else strings.cast(pa.string())
        self._bytes_C, self._start_S = _pieces(self.strings)
        self.slots = _slots(self._bytes_C, self._start_S, self.strings) if slots is None else slots
        self._number: dict[str, int] = {}
        self._added: list[str] = []

    def __len__(self) -> int:
        return len(self.strings) + len(self._added)

    def __getitem__(self, number: int) -> str:
        known = len(self.strings)
        if number >= known:
            return self._added[number - known]
        return self._bytes_C[self._start_S[number] : self._start_S[number + 1]].tobytes().decode()

    def since(self, number: int) -> list[str]:
        """The strings from a number on."""
        known = len(self.strings)
        old: list[str] = self.strings.slice(number).to_pylist() if number < known else []
        return old + self._added[max(0, number - known) :]

    def find(self, string: str) -> int:
        """Its number, -1 where it has none."""
        asked_C = np.frombuffer(_encoded(string), np.uint8)
        found = int(_find_one(self._bytes_C, self._start_S, self.slots, asked_C))
        return found if found >= 0 or not self._number else self._number.get(string, -1)

    def find_all(self, strings: Sequence[str] | pa.Array) -> Ints:
        """The numbers of several (N,)."""
        given = strings if isinstance(strings, pa.Array) else _array(strings)
        found_N = np.empty(len(given), np.int64)
        _find(self._bytes_C, self._start_S, self.slots, *_pieces(given), found_N)
        if self._number:
            for n in np.flatnonzero(found_N < 0).tolist():
                string = strings[n].as_py() if isinstance(strings, pa.Array) else strings[n]
                found_N[n] = self._number.get(string, -1)
        return found_N

    @property
    def added(self) -> int:
        """How many were added."""
        return len(self._added)

    def add(self, string: str) -> int:
        """Its number, a new one where it has none."""
        number = self.find(string)
        return number if number >= 0 else self._put(string)

    def add_all(self, strings: Sequence[str]) -> list[int]:
        """The numbers of several, new ones in the order in which they come."""
        numbers: list[int] = self.find_all(strings).tolist()
        return [number if number >= 0 else self._put(string) for number, string in zip(numbers, strings, strict=True)]

    def _put(self, string: str) -> int:
        number = self._number.get(string, len(self))
        if number == len(self):
            self._added.append(string)
            self._number[string] = number
        return number


def _encoded(string: str) -> bytes:
    """UTF-8. Half a surrogate pair, which no stored string has, is found nowhere, as in a dict."""
    try:
        return string.encode()
    except UnicodeEncodeError:
        return string.encode("utf-8", "surrogatepass")


def _array(strings: Iterable[str]) -> pa.Array:
    try:
        return pa.array(strings, pa.string())
    except UnicodeEncodeError:
        return pa.array([_encoded(string) for string in strings], pa.binary())


def _pieces(strings: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The bytes of an array of strings, and where each begins (S + 1); not to be written to."""
    _, starts, values = strings.buffers()
    if len(strings):
        start_S = np.frombuffer(starts, np.int32)[strings.offset : strings.offset + len(strings) + 1]
    else:
        start_S = np.zeros(1, np.int32)
    bytes_C = np.frombuffer(values, np.uint8) if values is not None else np.empty(0, np.uint8)
    start_S.flags.writeable = bytes_C.flags.writeable = False  # one type, thus one compiled kernel
    return bytes_C, start_S


def _slots(bytes_C: NDArray[np.uint8], start_S: NDArray[np.int32], strings: pa.Array) -> Slots:
    slots = np.zeros(len(strings) + len(strings) // 2 + 2, np.uint64)
    twice = int(_fill(bytes_C, start_S, slots))
    if twice >= 0:
        raise DataError(f"{strings[twice].as_py()!r} comes twice", where="names", remedy="Give each name once.")
    slots.flags.writeable = False
    return slots


@njit(cache=True, nogil=True, forceinline=True)
def _hash(bytes_C: Array, start: Any, stop: Any) -> Any:
    """32 bits: FNV-1a over the bytes, mixed as MurmurHash3 ends."""
    mixed = np.uint64(0xCBF29CE484222325)
    for c in range(start, stop):
        mixed = (mixed ^ np.uint64(bytes_C[c])) * np.uint64(0x100000001B3)
    mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    return (mixed ^ (mixed >> np.uint64(33))) & _LOW


@njit(cache=True, nogil=True, forceinline=True)
def _is_same(one_C: Array, one: Any, stop: Any, other_C: Array, other: Any, other_stop: Any) -> Any:
    if stop - one != other_stop - other:
        return False
    for c in range(stop - one):  # noqa: SIM110 - numba has no `all`
        if one_C[one + c] != other_C[other + c]:
            return False
    return True


@njit(cache=True, nogil=True, forceinline=True)
def _slot(bytes_C: Array, start_S: Array, slots: Array, asked_C: Array, start: Any, stop: Any, mixed: Any) -> Any:
    """The slot of a string with this hash, or the free one where it would be."""
    at: Any = np.int64((mixed * np.uint64(len(slots))) >> np.uint64(32))
    while slots[at] != 0:
        if slots[at] >> np.uint64(32) == mixed:
            number = np.int64(slots[at] & _LOW) - 1
            if _is_same(bytes_C, np.int64(start_S[number]), np.int64(start_S[number + 1]), asked_C, start, stop):
                return at
        at = at + 1 if at + 1 < len(slots) else 0
    return at


@njit(cache=True, nogil=True, forceinline=True)
def _number(bytes_C: Array, start_S: Array, slots: Array, asked_C: Array, start: Any, stop: Any) -> Any:
    at = _slot(bytes_C, start_S, slots, asked_C, start, stop, _hash(asked_C, start, stop))
    return np.int64(slots[at] & _LOW) - 1


@njit(cache=True, nogil=True)
def _find_one(bytes_C: Array, start_S: Array, slots: Array, asked_C: Array) -> Any:
    return _number(bytes_C, start_S, slots, asked_C, np.int64(0), np.int64(len(asked_C)))


@njit(cache=True, nogil=True)
def _find(bytes_C: Array, start_S: Array, slots: Array, asked_C: Array, asked_N: Array, found_N: Array) -> None:
    for n in range(len(found_N)):
        found_N[n] = _number(bytes_C, start_S, slots, asked_C, np.int64(asked_N[n]), np.int64(asked_N[n + 1]))


@njit(cache=True, nogil=True)
def _fill(bytes_C: Array, start_S: Array, slots: Array) -> Any:
    """Put all strings into the slots; the number of one that was there before, else -1."""
    for s in range(len(start_S) - 1):
        start, stop = np.int64(start_S[s]), np.int64(start_S[s + 1])
        mixed = _hash(bytes_C, start, stop)
        at = _slot(bytes_C, start_S, slots, bytes_C, start, stop, mixed)
        if slots[at] != 0:
            return np.int64(s)
        slots[at] = (mixed << np.uint64(32)) | np.uint64(s + 1)
    return np.int64(-1)
