"""Texts cut up once for all comparisons: characters as dense codes, words as sorted numbers.

Legend: V texts, W distinct words.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Array = npt.NDArray[Any]


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
