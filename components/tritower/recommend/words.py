"""Which documents share words with a query: TF-IDF of character n-grams as inverted lists.

The n-grams are those of 3 to 5 characters within words, blanks at both ends of a word included; their weight in a document is
(1 + ln count) * idf with idf = ln((1 + J) / (1 + documents with it)) + 1, over the length of the document's weights: what
scikit-learn's `TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)` computes. N-grams forgive typos and
inflection. An n-gram is known by a hash of 64 bits, so that the vocabulary is an array of numbers: two of a million n-grams
share one with a chance of 3e-8.

Counts of n-grams are kept, not weights: documents that come or change move every weight, and those are worked out anew.

Legend: J documents, V n-grams, E entries (an n-gram in a document), W distinct words, G n-grams of a text.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tritower.numba_cache import njit

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]
_SHORTEST, _LONGEST = 3, 5
_MOST = 255  # a count takes a byte; no title holds an n-gram more often
_WEIGHT = (1 + np.log(np.maximum(np.arange(_MOST + 1), 1))).astype(np.float32)


class Words(NamedTuple):
    """N-grams of documents, both ways round.

    Attributes:
        hash_V: ascending.
        term_E, count_E, offset_J: each document's n-grams, ascending, from `offset_J[j]` to `offset_J[j + 1]`.
        job_E, many_E, offset_V: each n-gram's documents, the same way round.
        idf_V: weights of the n-grams.
        scale_J: 1 over the length of a document's weights; 0 for one without n-grams.
    """

    hash_V: Hashes
    term_E: NDArray[np.int32]
    count_E: NDArray[np.uint8]
    offset_J: Ints
    job_E: NDArray[np.int32]
    many_E: NDArray[np.uint8]
    offset_V: Ints
    idf_V: Floats
    scale_J: Floats


def build(documents: Sequence[str]) -> Words:
    """The words of documents."""
    hash_E, count_E, offset_J = _counted(documents)
    hash_V, term_E = np.unique(hash_E, return_inverse=True)
    return _inverted(hash_V, term_E.astype(np.int32), count_E, offset_J)


def updated(words: Words, numbers: Ints, documents: Sequence[str]) -> Words:
    """As if built with these documents under their numbers: those of others are kept, those behind the last are new."""
    hash_N, count_N, offset_N = _counted(documents)
    hash_V = np.union1d(words.hash_V, hash_N)
    old_E = np.searchsorted(hash_V, words.hash_V).astype(np.int32)[words.term_E]
    new_E = np.searchsorted(hash_V, hash_N).astype(np.int32)
    size = max(len(words.scale_J), int(numbers.max(initial=-1)) + 1)
    length_J = np.zeros(size, np.int64)
    length_J[: len(words.scale_J)] = np.diff(words.offset_J)
    length_J[numbers] = np.diff(offset_N)
    offset_J = np.concatenate([[0], np.cumsum(length_J)])
    term_E, count_E = np.empty(offset_J[-1], np.int32), np.empty(offset_J[-1], np.uint8)
    is_new_J = np.zeros(size, np.bool_)
    is_new_J[numbers] = True
    kept = np.flatnonzero(~is_new_J)
    _copy(old_E, words.count_E, words.offset_J, kept, kept, offset_J, term_E, count_E)
    _copy(new_E, count_N, offset_N, np.arange(len(numbers)), numbers, offset_J, term_E, count_E)
    return _inverted(hash_V, term_E, count_E, offset_J)


def asked(words: Words, query: str) -> tuple[Ints, Floats]:
    """The n-grams of a query that documents have, and their weights there: (1 + ln count) * idf squared."""
    hash_G, count_G, _ = _counted([query])
    at_G = np.searchsorted(words.hash_V, hash_G)
    known = at_G < len(words.hash_V)
    known[known] = words.hash_V[at_G[known]] == hash_G[known]
    term_G = at_G[known]
    return term_G, _WEIGHT[count_G[known]] * words.idf_V[term_G] ** 2


@njit(cache=True, nogil=True)
def add(words, weight_N, term_G, weight_G, out_J):  # type: ignore[no-untyped-def]
    """Write each document's cosine with a query, but for a factor that is the same for all; `out_J` is zeros."""
    for g in range(len(term_G)):
        weight = weight_G[g]
        for e in range(words.offset_V[term_G[g]], words.offset_V[term_G[g] + 1]):
            out_J[words.job_E[e]] += weight * weight_N[words.many_E[e]]


def products(words: Words, query: str) -> Floats:
    """Each document's product with a query (J,): times `scale_J`, this is their cosine, but for a factor that is the same for
    all documents; 0 where they share no n-gram."""
    out_J = np.zeros(len(words.scale_J), np.float32)
    add(words, _WEIGHT, *asked(words, query), out_J)
    return out_J


def _counted(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.uint8], Ints]:
    """The n-grams of texts, text after text, ascending in each: hash, count, and where each text begins and the last ends."""
    number: dict[str, int] = {}
    words_of = [[number.setdefault(word, len(number)) for word in text.lower().split()] for text in texts]
    code_C = np.frombuffer("".join(number).encode("utf-32-le", "surrogatepass"), np.uint32)
    end_W = np.cumsum(np.fromiter(map(len, number), np.int64, len(number)))
    hash_G, offset_W = _hashed(code_C, end_W)
    word_F = np.fromiter((word for words in words_of for word in words), np.int64)
    offset_N = np.concatenate([[0], np.cumsum(np.fromiter(map(len, words_of), np.int64, len(words_of)))])
    return _gathered(hash_G, offset_W, word_F, offset_N)  # type: ignore[no-any-return]


def _inverted(hash_V: Hashes, term_E: NDArray[np.int32], count_E: NDArray[np.uint8], offset_J: Ints) -> Words:
    job_E, many_E, offset_V = _turned(term_E, count_E, offset_J, len(hash_V))
    documents = len(offset_J) - 1
    idf_V = (np.log((1 + documents) / (1 + np.diff(offset_V))) + 1).astype(np.float32)
    scale_J = np.zeros(documents, np.float32)
    _scale(term_E, count_E, offset_J, idf_V, _WEIGHT, scale_J)
    return frozen(Words(hash_V, term_E, count_E, offset_J, job_E, many_E, offset_V, idf_V, scale_J))


def frozen(words: Words) -> Words:
    """The same, not to be written to: kernels are compiled for such arrays."""
    for array in words:
        array.flags.writeable = False
    return words


@njit(cache=True)
def _hashed(code_C, end_W):  # type: ignore[no-untyped-def]
    """Hashes of the n-grams of each word, as often as they occur, and where each word's begin."""
    offset_W = np.zeros(len(end_W) + 1, np.int64)
    for w in range(len(end_W)):
        length = end_W[w] - (end_W[w - 1] if w else 0) + 2
        offset_W[w + 1] = offset_W[w] + _grams(length)
    out_G, g, start = np.empty(offset_W[-1], np.uint64), 0, 0
    for w in range(len(end_W)):
        length = end_W[w] - start + 2
        for n in range(_SHORTEST, _LONGEST + 1):
            for first in range(max(length - n, 0) + 1):
                value = np.uint64(0x9E3779B97F4A7C15) * np.uint64(n)
                for i in range(first, min(first + n, length)):
                    code = np.uint64(32) if i == 0 or i == length - 1 else np.uint64(code_C[start + i - 1])
                    value = _mixed(value ^ code)
                out_G[g] = value
                g += 1
            if length <= n:
                break  # the whole word: it counts once
        start = end_W[w]
    return out_G, offset_W


@njit(cache=True)
def _grams(length):  # type: ignore[no-untyped-def]
    total = 0
    for n in range(_SHORTEST, _LONGEST + 1):
        total += max(length - n, 0) + 1
        if length <= n:
            break
    return total


@njit(cache=True, forceinline=True)
def _mixed(value):  # type: ignore[no-untyped-def]
    """Murmur3's finaliser: every bit of the input moves every bit of the output."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@njit(cache=True)
def _gathered(hash_G, offset_W, word_F, offset_N):  # type: ignore[no-untyped-def]
    """For each text, given by its words, the distinct hashes ascending, and their counts."""
    total = 0
    for f in range(len(word_F)):
        total += offset_W[word_F[f] + 1] - offset_W[word_F[f]]
    hash_E, count_E, out_N = np.empty(total, np.uint64), np.empty(total, np.uint8), np.zeros(len(offset_N), np.int64)
    e = 0
    for n in range(len(offset_N) - 1):
        size = 0
        for f in range(offset_N[n], offset_N[n + 1]):
            size += offset_W[word_F[f] + 1] - offset_W[word_F[f]]
        own, at = np.empty(size, np.uint64), 0
        for f in range(offset_N[n], offset_N[n + 1]):
            for g in range(offset_W[word_F[f]], offset_W[word_F[f] + 1]):
                own[at] = hash_G[g]
                at += 1
        own.sort()
        for i in range(size):
            if i and own[i] == own[i - 1]:
                count_E[e - 1] = min(count_E[e - 1] + 1, _MOST)
            else:
                hash_E[e], count_E[e] = own[i], 1
                e += 1
        out_N[n + 1] = e
    return hash_E[:e].copy(), count_E[:e].copy(), out_N


@njit(cache=True)
def _turned(term_E, count_E, offset_J, terms):  # type: ignore[no-untyped-def]
    """The entries by n-gram instead of by document; documents ascend in each."""
    offset_V = np.zeros(terms + 1, np.int64)
    for e in range(len(term_E)):
        offset_V[term_E[e] + 1] += 1
    offset_V = np.cumsum(offset_V)
    next_V = offset_V[:-1].copy()
    job_E, many_E = np.empty(len(term_E), np.int32), np.empty(len(term_E), np.uint8)
    for j in range(len(offset_J) - 1):
        for e in range(offset_J[j], offset_J[j + 1]):
            at = next_V[term_E[e]]
            job_E[at], many_E[at] = j, count_E[e]
            next_V[term_E[e]] = at + 1
    return job_E, many_E, offset_V


@njit(cache=True)
def _scale(term_E, count_E, offset_J, idf_V, weight_N, scale_J):  # type: ignore[no-untyped-def]
    for j in range(len(scale_J)):
        total = 0.0
        for e in range(offset_J[j], offset_J[j + 1]):
            total += (np.float64(weight_N[count_E[e]]) * np.float64(idf_V[term_E[e]])) ** 2
        if total > 0:
            scale_J[j] = 1 / np.sqrt(total)


@njit(cache=True)
def _copy(term_E, count_E, offset_J, from_M, to_M, offset_to_J, term_to_E, count_to_E):  # type: ignore[no-untyped-def]
    """Copy the entries of documents `from_M` to where documents `to_M` have their place."""
    for m in range(len(from_M)):
        to = offset_to_J[to_M[m]]
        for e in range(offset_J[from_M[m]], offset_J[from_M[m] + 1]):
            term_to_E[to], count_to_E[to] = term_E[e], count_E[e]
            to += 1
