"""N-grams of documents against scikit-learn's, and updates against building anew."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from tritower.recommend import words

TEXTS = st.lists(st.text(st.sampled_from("abAB é\t,0漢"), max_size=18), min_size=1, max_size=12)


def similarities(index: words.Words, query: str) -> np.ndarray:
    return words.products(index, query) * index.scale_J


@settings(deadline=None, max_examples=60)
@given(TEXTS, st.text(st.sampled_from("abAB é\t,0漢"), max_size=12))
def test_cosines_are_scikit_learns(documents: list[str], query: str) -> None:
    got = similarities(words.build(documents), query)
    if not any(document.strip() for document in documents):
        assert not got.any()
        return
    tfidf = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    document_JV = tfidf.fit_transform(documents)
    wanted = (tfidf.transform([query]) @ document_JV.T).toarray()[0]
    if not wanted.any():
        assert not got.any()
        return
    np.testing.assert_allclose(got / got.max(), wanted / wanted.max(), atol=2e-6)


@settings(deadline=None, max_examples=60)
@given(TEXTS, TEXTS, st.data())
def test_updated_is_built_anew(documents: list[str], more: list[str], data: st.DataObject) -> None:
    changed = sorted(data.draw(st.sets(st.integers(0, len(documents) - 1), max_size=len(more))))
    numbers = [*changed, *range(len(documents), len(documents) + len(more) - len(changed))]
    after = documents + [""] * (len(more) - len(changed))
    for number, text in zip(numbers, more, strict=True):
        after[number] = text
    one, two = words.updated(words.build(documents), np.array(numbers), more), words.build(after)
    for query in (*after, "ab é", "zz"):
        assert similarities(one, query).tobytes() == similarities(two, query).tobytes()


def test_a_typo_is_forgiven() -> None:
    index = words.build(["Registered Nurse, Mercy", "Truck Driver, Haul Co"])
    one, other = similarities(index, "regstered nurse")
    assert one > 3 * other
    assert not similarities(index, "zz").any()
