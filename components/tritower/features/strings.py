"""String similarity of query and title, query and company, over unique pairs.

The same query meets the same title again and again, so a pair is scored once: integer pair keys are factorised, rapidfuzz
scores the unique ones in one call (`cpdist`), and the scores are taken back. Scores of recent pairs stay in a direct-mapped
cache of fixed size, so that repeats across batches cost a look-up and memory does not grow with the data. Scores are pure
functions of the two texts: the cache changes nothing but the time.

Legend: N rows, S scorers, B cache slots, V texts.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from rapidfuzz import distance, fuzz, process

from tritower.features.pairs import slot

Array = npt.NDArray[Any]
Scorer = Callable[..., Any]
TITLE_SCORERS: dict[str, tuple[Scorer, float]] = {
    "token_set": (fuzz.token_set_ratio, 0.01),
    "token_sort": (fuzz.token_sort_ratio, 0.01),
    "partial": (fuzz.partial_ratio, 0.01),
    "jaro_winkler": (distance.JaroWinkler.normalized_similarity, 1.0),
}
COMPANY_SCORERS = {name: TITLE_SCORERS[name] for name in ("token_set", "partial", "jaro_winkler")}
PROFILE_SCORERS = {"token_set": TITLE_SCORERS["token_set"]}
EMPTY = -1


def normalise(texts: pa.Array) -> pa.Array:
    """Lower case, everything but letters, digits, `+` and `#` turned into single spaces, trimmed."""
    lower = pc.utf8_lower(texts.cast(pa.string()))
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(lower, r"[^\p{L}\p{N}+#]+", " "))


class PairScorer:
    """Scores pairs (left text, right text) by number; 0 to 1, NaN where either text is empty."""

    def __init__(
        self, left: pa.Array, right: pa.Array, scorers: dict[str, tuple[Scorer, float]], *, cache_bits: int = 20
    ) -> None:
        self.left = left
        self.right = right
        self.scorers = scorers
        self.key_B = np.full(1 << cache_bits, EMPTY, np.int64)
        self.score_BS = np.empty((1 << cache_bits, len(scorers)), np.float32)

    def scores(self, left_N: npt.NDArray[np.int32], right_N: npt.NDArray[np.int32], out_SN: npt.NDArray[np.float32]) -> None:
        """Write the score of each pair, scorer by scorer, into `out_SN`; negative numbers give NaN."""
        key_N = (left_N.astype(np.int64) << 32) | right_N.astype(np.int64)
        key_N[(left_N < 0) | (right_N < 0)] = EMPTY
        missing = look_up(key_N, self.key_B, self.score_BS, out_SN)
        if not len(missing):
            return
        codes, unique = pd.factorize(key_N[missing])
        fresh_US = self._score(unique)
        store(unique, fresh_US, self.key_B, self.score_BS)
        scatter(missing, codes, fresh_US, out_SN)

    def _score(self, unique: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        left = self.left.take(pa.array(unique >> 32)).to_pylist()
        right = self.right.take(pa.array(unique & 0xFFFFFFFF)).to_pylist()
        out = np.empty((len(unique), len(self.scorers)), np.float32)
        for s, (scorer, scale) in enumerate(self.scorers.values()):
            out[:, s] = process.cpdist(left, right, scorer=scorer, dtype=np.float32)
            if scale != 1.0:
                out[:, s] *= np.float32(scale)
        blank = np.fromiter((not a or not b for a, b in zip(left, right, strict=True)), np.bool_, len(unique))
        out[blank] = np.nan
        return out


@njit(cache=True)
def look_up(key_N: Array, key_B: Array, score_BS: Array, out_SN: Array) -> Array:
    """Fill in cached scores and NaN for the key -1; return the positions of the other keys."""
    missing = np.empty(key_N.shape[0], np.int64)
    count = 0
    for i in range(key_N.shape[0]):
        if key_N[i] == -1:
            out_SN[:, i] = np.nan
            continue
        at = slot(key_N[i], key_B.shape[0])
        if key_B[at] == key_N[i]:
            for s in range(out_SN.shape[0]):
                out_SN[s, i] = score_BS[at, s]
        else:
            missing[count] = i
            count += 1
    return missing[:count]


@njit(cache=True)
def store(unique: Array, fresh_US: Array, key_B: Array, score_BS: Array) -> None:
    """Put scored pairs into their slots, over whatever was there."""
    for u in range(unique.shape[0]):
        at = slot(unique[u], key_B.shape[0])
        key_B[at] = unique[u]
        score_BS[at] = fresh_US[u]


@njit(cache=True)
def scatter(missing: Array, codes: Array, fresh_US: Array, out_SN: Array) -> None:
    """Copy the score of each missing row's pair to the row."""
    for m in range(missing.shape[0]):
        for s in range(out_SN.shape[0]):
            out_SN[s, missing[m]] = fresh_US[codes[m], s]
