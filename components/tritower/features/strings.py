"""String similarity of query and title, query and company, profile and title: rapidfuzz's, once per distinct pair.

The same query meets the same title again and again, so scores stay in a cache of fixed size, keyed by the pair of text numbers.
Scores are pure functions of the two texts: the cache changes nothing but the time, and memory does not grow with the data.

Legend: N rows, P distinct pairs, S scorers, B entries of the cache.
"""

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz import distance, fuzz, process

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Words = Callable[[Int64], list[str]]
TITLE_SCORERS = ("token_set", "token_sort", "partial", "jaro_winkler")
COMPANY_SCORERS = ("token_set", "partial", "jaro_winkler")
PROFILE_SCORERS = ("token_set",)
UNNUMBERED = 1 << 30  # texts from this number on are known to one request only
_SCORER: dict[str, tuple[Callable[..., Any], float]] = {
    "token_set": (fuzz.token_set_ratio, 100.0),
    "token_sort": (fuzz.token_sort_ratio, 100.0),
    "partial": (fuzz.partial_ratio, 100.0),
    "jaro_winkler": (distance.JaroWinkler.normalized_similarity, 1.0),
}


def normalise(texts: pa.Array) -> pa.Array:
    """Lower case, everything but letters, digits, `+` and `#` turned into single spaces, trimmed."""
    lower = pc.utf8_lower(texts.cast(pa.string()))
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(lower, r"[^\p{L}\p{N}+#]+", " "))


def words(texts: pa.Array) -> Words:
    """The texts of an array by their numbers."""
    return lambda number_P: texts.take(pa.array(number_P)).to_pylist()


class Cache:
    """The scores of the pairs met last, 2^`bits` of them at most; several threads may share it."""

    def __init__(self, scorers: int, bits: int = 18) -> None:
        self._key_B = np.full(1 << bits, -1, np.int64)
        self._score_BS = np.empty((1 << bits, scorers), np.float32)
        self._shift = np.uint64(64 - bits)
        self._lock = threading.Lock()

    def get(self, key_P: Int64) -> tuple[Float32, npt.NDArray[np.bool_]]:
        """The scores (P, S), and which of them are known."""
        at_P = self._entry(key_P)
        with self._lock:
            return self._score_BS[at_P], self._key_B[at_P] == key_P

    def put(self, key_P: Int64, score_PS: Float32) -> None:
        """Remember scores, over those of other pairs where entries are taken."""
        kept = key_P < UNNUMBERED << 32
        at_P = self._entry(key_P[kept])
        with self._lock:
            self._score_BS[at_P], self._key_B[at_P] = score_PS[kept], key_P[kept]

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
            cache: to share; None for one of its own.
        """
        self._left, self._right = left, right
        self._scorers = [_SCORER[name] for name in scorers]
        self._cache = cache or Cache(len(scorers))

    def scores(self, left_N: npt.NDArray[np.int32], right_N: npt.NDArray[np.int32], out_SN: Float32) -> None:
        """Write the score of each pair, scorer by scorer, into `out_SN`; negative numbers give NaN."""
        known_N = (left_N >= 0) & (right_N >= 0)
        out_SN[:] = np.nan
        key_P, pair_N = np.unique((left_N[known_N].astype(np.int64) << 32) | right_N[known_N], return_inverse=True)
        score_PS, found_P = self._cache.get(key_P)
        if not found_P.all():
            fresh_P = key_P[~found_P]
            score_PS[~found_P] = fresh = self._score(fresh_P)
            self._cache.put(fresh_P, fresh)
        out_SN[:, known_N] = score_PS.T[:, pair_N]

    def _score(self, key_P: Int64) -> Float32:
        """(P, S), exact in float64 before it is rounded."""
        left_P, right_P = key_P >> 32, key_P & 0xFFFFFFFF
        # The keys are sorted: a text against many others is prepared once.
        start_G = np.flatnonzero(np.diff(left_P, prepend=-1))
        left, right = self._left(left_P[start_G]), self._right(right_P)
        runs = [right[a:b] for a, b in itertools.pairwise([*start_G.tolist(), len(key_P)])]
        out_PS = np.empty((len(key_P), len(self._scorers)), np.float32)
        for s, (scorer, whole) in enumerate(self._scorers):
            score_G = [
                process.cdist([one], run, scorer=scorer, dtype=np.float64)[0] for one, run in zip(left, runs, strict=True)
            ]
            out_PS[:, s] = np.concatenate(score_G) / whole
        return out_PS
