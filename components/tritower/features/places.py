"""Places and remote work: request against job, home against job.

Places are compared as case-folded text by level. Two cities agree only if their regions and countries do not differ: there
is a Springfield in every state. Where either side is unknown the comparison is missing.

Legend: V rows of a table, N impressions.
"""

import functools
import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tritower.features.strings import UNNUMBERED
from tritower.numba_cache import njit

LEVELS = ("city", "region", "country")
REMOTE = r"\b(remote|work(ing)? (from|at) home|wfh|home[ -]?based|telecommut\w*|telework\w*|anywhere)\b"
_REMOTE = re.compile(REMOTE, re.ASCII | re.IGNORECASE)
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


class PlaceCodes:
    """Gives every distinct place name of a level a number, the same for jobs, requests and users."""

    def __init__(self) -> None:
        self.number: dict[str, dict[str, int]] = {level: {} for level in LEVELS}

    def encode(self, table: pa.Table) -> Int32:
        """Codes of a table's `city`, `region` and `country` as (3, V); -1 where unknown or not a place."""
        out = np.full((3, table.num_rows), -1, np.int32)
        for i, level in enumerate(LEVELS):
            start = 0
            for chunk in table.column(level).chunks:
                words = pc.dictionary_encode(pc.utf8_trim_whitespace(pc.utf8_lower(chunk)), null_encoding="encode")
                codes = self._codes(level, words.dictionary)
                out[i, start : start + len(chunk)] = codes[words.indices.to_numpy()]
                start += len(chunk)
        return out

    def _codes(self, level: str, words: pa.Array) -> Int32:
        known = self.number[level]
        remote = pc.match_substring_regex(words, REMOTE).to_pylist()
        return np.array(
            [
                -1 if not word or is_remote else known.setdefault(word, len(known))
                for word, is_remote in zip(words.to_pylist(), remote, strict=True)
            ],
            np.int32,
        )

    def of_search(self, city: str | None, region: str | None, country: str | None) -> tuple[Int32, bool]:
        """The codes of one place as `encode` gives them, and whether its city or region names remote work.

        A place without a number gets none: it is no known one, and that is all that matters.
        """
        out_3 = np.full(3, -1, np.int32)
        names = [_folded(word) if word else ("", False) for word in (city, region, country)]
        for i, (level, (word, is_remote)) in enumerate(zip(LEVELS, names, strict=True)):
            if word and not is_remote:
                out_3[i] = self.number[level].get(word, UNNUMBERED)
        return out_3, names[0][1] or names[1][1]


@functools.lru_cache(maxsize=512)
def _folded(word: str) -> tuple[str, bool]:
    """A place's name as `PlaceCodes.encode` compares it, and whether it names remote work."""
    folded = pc.utf8_trim_whitespace(pc.utf8_lower(pa.array([word], pa.string())))[0].as_py()
    return folded, speaks_of_remote(folded)


def mentions_remote(texts: pa.Array) -> npt.NDArray[np.bool_]:
    """Whether each text speaks of remote work; false for null."""
    found = pc.match_substring_regex(texts, REMOTE, ignore_case=True)
    return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), np.bool_)


def speaks_of_remote(text: str) -> bool:
    """`mentions_remote` of one text. Arrow compiles its expression anew in each call."""
    return bool(_REMOTE.search(text)) if text.isascii() else bool(mentions_remote(pa.array([text]))[0])


def names_remote(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Whether a row of a table names remote work in place of a city or region."""
    city, region = (mentions_remote(table.column(name).combine_chunks()) for name in ("city", "region"))
    return city | region


@njit(cache=True)
def agree(left_3N: Int32, right_3N: Int32, out_3N: Float32) -> None:
    """Write 1 where two places agree, 0 where they differ, NaN where either is unknown; level by level."""
    for i in range(left_3N.shape[1]):
        differs = False  # a level above
        for level in (2, 1, 0):
            known = left_3N[level, i] >= 0 and right_3N[level, i] >= 0
            same = left_3N[level, i] == right_3N[level, i]
            out_3N[level, i] = (1.0 if same and not differs else 0.0) if known else np.nan
            differs = differs or (known and not same)
