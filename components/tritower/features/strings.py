"""String similarity of query and title, query and company, over unique pairs.

The same query meets the same title again and again, so scores stay in a cache of fixed size, keyed by the pair of text numbers:
a repeat costs one look-up, and memory does not grow with the data. A bucket of the cache is one line of the processor's.
Scores are pure functions of the two texts: the cache changes nothing but the time.

Legend: N rows, S scorers, B buckets of the cache, V texts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz import distance, fuzz, process

from tritower.features import corpus, textual

Array = npt.NDArray[Any]
TITLE_SCORERS = textual.SCORERS
COMPANY_SCORERS = ("token_set", "partial", "jaro_winkler")
PROFILE_SCORERS = ("token_set",)
EMPTY = -1
LINE = 64  # bytes of a cache line
_LIBRARY: dict[str, tuple[Callable[..., Any], float]] = {
    "token_set": (fuzz.token_set_ratio, 0.01),
    "token_sort": (fuzz.token_sort_ratio, 0.01),
    "partial": (fuzz.partial_ratio, 0.01),
    "jaro_winkler": (distance.JaroWinkler.normalized_similarity, 1.0),
}


def normalise(texts: pa.Array) -> pa.Array:
    """Lower case, everything but letters, digits, `+` and `#` turned into single spaces, trimmed."""
    lower = pc.utf8_lower(texts.cast(pa.string()))
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(lower, r"[^\p{L}\p{N}+#]+", " "))


class Corpus:
    """Normalised texts, cut up for scoring. Numbers are positions."""

    def __init__(self, *columns: pa.Array) -> None:
        self.texts = pa.concat_arrays(columns)
        self.prepared = corpus.prepare(self.texts)


class PairScorer:
    """Scores pairs (left text, right text) of a corpus; 0 to 1, NaN where either text is empty."""

    def __init__(self, texts: Corpus, scorers: Sequence[str], *, right_from: int = 0, cache_bits: int = 18) -> None:
        """Score with `scorers` (names of `textual.SCORERS`).

        Args:
            texts: both sides' texts.
            scorers: what to compute.
            right_from: the position of the right side's number 0.
            cache_bits: the cache has 2^cache_bits buckets of 64 bytes; an entry takes 8 + 4 S.
        """
        self.corpus = texts
        self.scorers = tuple(scorers)
        self.wanted_S = np.array([textual.SCORERS.index(name) for name in scorers])
        self.right_from = right_from
        memory = np.full((LINE << cache_bits) // 4 + LINE // 4, EMPTY, np.int32)
        skipped = -memory.ctypes.data % LINE // 4
        self.key_BC = memory[skipped : skipped + (LINE << cache_bits) // 4].reshape(1 << cache_bits, LINE // 4)
        self.score_BC = self.key_BC.view(np.float32)

    def scores(self, left_N: npt.NDArray[np.int32], right_N: npt.NDArray[np.int32], out_SN: npt.NDArray[np.float32]) -> None:
        """Write the score of each pair, scorer by scorer, into `out_SN`; negative numbers give NaN."""
        texts = self.corpus.prepared
        if textual.score(texts, left_N, right_N, self.right_from, self.wanted_S, self.key_BC, self.score_BC, out_SN):
            self._library_scores(left_N, right_N, out_SN)

    def _library_scores(self, left_N: Array, right_N: Array, out_SN: npt.NDArray[np.float32]) -> None:
        """Score by rapidfuzz what is marked as too long."""
        for s, (scorer, scale) in enumerate(_LIBRARY[name] for name in self.scorers):
            long = np.flatnonzero(out_SN[s] < 0)
            pairs, where = np.unique(np.stack([left_N[long], right_N[long] + self.right_from]), axis=1, return_inverse=True)
            left, right = (self.corpus.texts.take(pa.array(side)).to_pylist() for side in pairs)
            values = process.cpdist(left, right, scorer=scorer, dtype=np.float32) * np.float32(scale)
            out_SN[s, long] = values[where.ravel()]
