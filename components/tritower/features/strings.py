"""String similarity of query and title, query and company, profile and title: rapidfuzz's values, once per distinct pair.

In a log the same query meets the same title again and again, so scores stay in a cache of fixed size, by the pair of numbers.
Scores are pure functions of the two texts: the cache changes nothing but the time, and memory does not grow with the data.

Legend: N rows, P distinct pairs, R distinct texts of a side, S scorers, B entries of the cache.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz import distance, fuzz

from tritower.features import ratios
from tritower.features.pairs import PairIndex
from tritower.lookup import Lookup

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
TITLE_SCORERS = ("token_set", "token_sort", "partial", "jaro_winkler")
COMPANY_SCORERS = ("token_set", "partial", "jaro_winkler")
PROFILE_SCORERS = ("token_set",)
_NOT_PLAIN = re.compile("[^a-z0-9+#]+")  # for ASCII in lower case
UNNUMBERED = 1 << 30  # texts from this number on are known to one request only


def normalise(texts: pa.Array) -> pa.Array:
    """Lower case, everything but letters, digits, `+` and `#` turned into single spaces, trimmed."""
    lower = pc.utf8_lower(texts.cast(pa.string()))
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(lower, r"[^\p{L}\p{N}+#]+", " "))


def normalised(text: str) -> str:
    """`normalise` of one text. Arrow compiles its expression anew in each call, a millisecond for all letters of Unicode."""
    return _NOT_PLAIN.sub(" ", text.lower()).strip() if text.isascii() else normalise(pa.array([text]))[0].as_py()


class Phrases(NamedTuple):
    """Texts to be scored, and the same with their words in order, by number."""

    text: Sequence[str] | Lookup
    as_is: ratios.Codes
    ordered: ratios.Codes

    @staticmethod
    def of(texts: Sequence[str]) -> "Phrases":
        """From normalised texts."""
        return Phrases(texts, ratios.Codes.of(()), ratios.Codes.of(())).extended(texts)

    def extended(self, texts: Sequence[str]) -> "Phrases":
        """Ready for more, which stand behind in `text`; what others hold of these stays as it is."""
        in_order = [" ".join(sorted(text.split(" "))) for text in texts]
        return Phrases(self.text, self.as_is.extended(texts), self.ordered.extended(in_order))


Words = Callable[[Int64], tuple[Phrases, Int64]]
"""Numbers of texts in, in any order; phrases out, and the texts' numbers in them."""


def words(texts: pa.Array) -> Words:
    """The texts of an array by their numbers."""

    def phrases(number_P: Int64) -> tuple[Phrases, Int64]:
        number_R, of_P = np.unique(number_P, return_inverse=True)
        return Phrases.of(texts.take(pa.array(number_R)).to_pylist()), of_P

    return phrases


class Cache:
    """The scores of the pairs met last, 2^`bits` of them at most."""

    def __init__(self, scorers: int, bits: int = 20) -> None:
        self._key_B = np.full(1 << bits, -1, np.int64)
        self._score_BS = np.empty((1 << bits, scorers), np.float32)
        self._shift = np.uint64(64 - bits)

    def get(self, key_P: Int64) -> tuple[Float32, npt.NDArray[np.bool_]]:
        """The scores (P, S), and which of them are known."""
        at_P = self._entry(key_P)
        return self._score_BS[at_P], self._key_B[at_P] == key_P

    def put(self, key_P: Int64, score_PS: Float32) -> None:
        """Remember scores, over those of other pairs where entries are taken."""
        at_P = self._entry(key_P)
        self._score_BS[at_P], self._key_B[at_P] = score_PS, key_P

    def _entry(self, key_P: Int64) -> Int64:
        """Knuth's multiplicative hashing: the multiplier is 2^64 over the golden ratio."""
        return ((key_P.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> self._shift).astype(np.int64)


class PairScorer:
    """Scores pairs (left text, right text); 0 to 1, NaN where either text is blank."""

    def __init__(self, left: Words, right: Words, scorers: Sequence[str], cache: Cache | None = None) -> None:
        """Score with `scorers`, names of the token-set, token-sort and partial ratio and of Jaro and Winkler's similarity.

        Args:
            left, right: each side's texts by number.
            scorers: what to compute.
            cache: of scores; None to compute each.
        """
        self._left, self._right = left, right
        self._scorers = scorers
        self._cache = cache

    def scores(self, left_N: npt.NDArray[np.int32], right_N: npt.NDArray[np.int32], out_SN: Float32) -> None:
        """Write the score of each pair, scorer by scorer, into `out_SN`; negative numbers give NaN."""
        if self._cache is None:
            index = PairIndex(1 << max(2 * len(left_N), 2).bit_length())
            pair_N = index.numbers(left_N, right_N)
            score_PS = self._score(*index.pairs()) if index.used else np.empty((0, len(out_SN)), np.float32)
            missing_1S = np.full((1, len(out_SN)), np.nan, np.float32)  # where -1 finds it
            np.take(np.concatenate([score_PS, missing_1S]).T, pair_N, axis=1, out=out_SN, mode="wrap")
            return
        known_N = (left_N >= 0) & (right_N >= 0)
        out_SN[:] = np.nan
        if not known_N.any():
            return
        key_P, pair_N = np.unique((left_N[known_N].astype(np.int64) << 32) | right_N[known_N], return_inverse=True)
        score_PS, found_P = self._cache.get(key_P)
        if not found_P.all():
            fresh_P = key_P[~found_P]
            score_PS[~found_P] = fresh = self._score(fresh_P >> 32, fresh_P & 0xFFFFFFFF)
            self._cache.put(fresh_P, fresh)
        out_SN[:, known_N] = score_PS.T[:, pair_N]

    def _score(self, left_P: Int64, right_P: Int64) -> Float32:
        """(P, S), exact in float64 before it is rounded. A left text is prepared once for all its pairs that are neighbours."""
        (left, number_P), (right, other_P) = self._left(left_P), self._right(right_P)
        pairs = _Pairs(left, right, number_P, other_P)
        return np.stack([getattr(pairs, name)() for name in self._scorers], axis=1).astype(np.float32)


class _Pairs:
    """Distinct pairs to score, by number."""

    def __init__(self, left: Phrases, right: Phrases, left_P: Int64, right_P: Int64) -> None:
        self._left, self._right, self._left_P, self._right_P = left, right, left_P, right_P

    def token_sort(self) -> Float64:
        return self._or_library(self._of_words_2P[0], fuzz.token_sort_ratio, 100)

    def token_set(self) -> Float64:
        return self._or_library(self._of_words_2P[1], fuzz.token_set_ratio, 100)

    def partial(self) -> Float64:
        found_P = ratios.partial(self._left.as_is, self._right.as_is, self._left_P, self._right_P)
        return self._or_library(found_P, fuzz.partial_ratio, 100)

    def jaro_winkler(self) -> Float64:
        found_P = ratios.jaro_winkler(self._left.as_is, self._right.as_is, self._left_P, self._right_P)
        return self._or_library(found_P, distance.JaroWinkler.normalized_similarity, 1)

    @functools.cached_property
    def _of_words_2P(self) -> Float64:
        return ratios.of_words(self._left.ordered, self._right.ordered, self._left_P, self._right_P)

    def _or_library(self, found_P: Float64, scorer: Callable[[str, str], float], whole: int) -> Float64:
        """The scores found, rapidfuzz's where there is none; those are from 0 to `whole`."""
        for p in np.flatnonzero(np.isnan(found_P)).tolist():
            found_P[p] = scorer(self._left.text[self._left_P[p]], self._right.text[self._right_P[p]]) / whole
        return found_P
