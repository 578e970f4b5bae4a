"""String similarities: equal to rapidfuzz pair by pair, whatever the texts, the cache and the batches."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rapidfuzz import distance, fuzz
from tritower.features import pairs, strings
from tritower.features.places import mentions_remote, speaks_of_remote

LIBRARY = (
    lambda a, b: fuzz.token_set_ratio(a, b) / 100,
    lambda a, b: fuzz.token_sort_ratio(a, b) / 100,
    lambda a, b: fuzz.partial_ratio(a, b) / 100,
    distance.JaroWinkler.normalized_similarity,
)
WORDS = [
    "nurse",
    "rn",
    "a",
    "ab",
    "java",
    "night",
    "sr",
    "c++",
    "d\u00e9veloppeur",
    "truck",
    "drivers",
    "driver",
    "\u770b\u8b77",
]
phrase = st.lists(st.sampled_from(WORDS), min_size=1, max_size=7).map(" ".join)
letters = st.text("abc ", min_size=1, max_size=90).map(lambda text: " ".join(text.split()) or "x")


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.one_of(phrase, letters), min_size=2, max_size=12))
@example(texts=["a", "b", "ab", "ba", "abc", "cba"])
@example(texts=["q" * 63, "q" * 64, "q" * 65, "ab" * 70, "x " * 40 + "y"])
@example(texts=["ab" * 16, "ba" * 16 + "c", "abc" * 10 + "d", "cab" * 12, "dcba" * 8])
@example(texts=["\u770b nurse", "nurse \u770b", "\xff nurse", "nurse"])
@example(texts=["a a b", "b b", "a b c c", "c", "a" * 65 + " b", "b b " + "a" * 65, "ab a", "a ab abc"])
@example(texts=["rn rn nurse", "nurse rn", "nurse nurse", "rn"])
def test_scores_equal_rapidfuzz(texts: list[str]) -> None:
    count = len(texts)
    left, right = (side.ravel() for side in np.meshgrid(np.arange(count), np.arange(count)))
    out_SN = np.empty((4, count * count), np.float32)
    words = strings.words(pa.array(texts))
    scorer = strings.PairScorer(words, words, strings.TITLE_SCORERS, strings.Cache(4, bits=3))
    scorer.scores(left.astype(np.int32), right.astype(np.int32), out_SN)
    twice_SN = np.empty((4, 2 * count * count), np.float32)
    some = np.random.default_rng(0).permutation(np.repeat(np.arange(count * count), 2))
    each = strings.PairScorer(words, words, strings.TITLE_SCORERS)
    each.scores(left[some].astype(np.int32), right[some].astype(np.int32), twice_SN)
    np.testing.assert_array_equal(twice_SN, out_SN[:, some])
    for i in range(count * count):
        for s, score in enumerate(LIBRARY):
            a, b = texts[left[i]], texts[right[i]]
            assert out_SN[s, i] == np.float32(score(a, b)), (s, a, b)


@pytest.mark.parametrize("is_cached", [True, False])
def test_blank_and_unknown_texts_are_missing(is_cached: bool) -> None:
    """Repeats, collisions in a cache of 16 slots, blank and unknown texts, over several batches."""
    rng = np.random.default_rng(0)
    texts = ["", *(" ".join(rng.choice(["nurse", "rn", "java", "night", "sr"], 3)) for _ in range(40))]
    words = strings.words(pa.array(texts))
    cache = strings.Cache(1, bits=4) if is_cached else None
    scorer = strings.PairScorer(words, strings.words(pa.array(texts[1:])), ("partial",), cache)
    nothing = np.empty((1, 3), np.float32)
    scorer.scores(np.full(3, -1, np.int32), np.arange(3, dtype=np.int32), nothing)
    assert np.isnan(nothing).all()
    for _ in range(5):
        left, right = rng.integers(-1, 40, (2, 300)).astype(np.int32)
        out_SN = np.empty((1, 300), np.float32)
        scorer.scores(left, right, out_SN)
        for i in range(300):
            if left[i] < 0 or right[i] < 0:
                assert np.isnan(out_SN[0, i])
            else:
                assert out_SN[0, i] == pytest.approx(fuzz.partial_ratio(texts[left[i]], texts[right[i] + 1]) / 100)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30), min_size=1, max_size=5))
@example(
    texts=["Work from HOME", "home-based", "TELECOMMUTing\x1f\tC++", "remotely", "a_remote b", "\u212aa", "\u00e9 wfh", "WFH\n"]
)
def test_one_text_is_prepared_as_many_are(texts: list[str]) -> None:
    assert [strings.normalised(text) for text in texts] == strings.normalise(pa.array(texts)).to_pylist()
    assert [speaks_of_remote(text) for text in texts] == mentions_remote(pa.array(texts)).tolist()


def test_pairs_are_numbered_as_they_come() -> None:
    left_P, right_P, pair_N = pairs.distinct(np.array([3, -1, 3, 2, 3, 1 << 30]), np.array([1, 5, 0, -1, 1, 1]))
    assert left_P.tolist() == [3, 3, 1 << 30] and right_P.tolist() == [1, 0, 1]
    assert pair_N.tolist() == [0, -1, 1, -1, 0, 2]


def test_normalise() -> None:
    got = strings.normalise(pa.array(["  Sr. C++/C# Dev (Remote) ", "---", "CAFÉ"])).to_pylist()
    assert got == ["sr c++ c# dev remote", "", "café"]
