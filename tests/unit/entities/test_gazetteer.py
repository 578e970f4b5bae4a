"""The gazetteer: what it finds, where, and that it does what the plain version of its rules does."""

import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower.entities import corpus, lexicon
from tritower.entities.gazetteer import Gazetteer
from tritower.entities.spans import Span

from tests.support import entity_rules as reference


@pytest.fixture(scope="module")
def gazetteer() -> Gazetteer:
    words = lexicon.default()
    return Gazetteer(words, lexicon.companies(words, ["Acme Foods, LLC", "Zentrix"]))


@pytest.fixture(scope="module")
def plain() -> Gazetteer:
    return Gazetteer(lexicon.default())


def outer(gazetteer: Gazetteer, text: str) -> list[tuple[str, str, str]]:
    (spans,) = gazetteer.find([text])
    return [(text[s.start : s.end], s.label, s.value) for s in spans if not s.inner]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Registered Nurse", [("Registered Nurse", "TITLE", "registered nurse")]),
        ("registered nurses", [("registered nurses", "TITLE", "registered nurse")]),
        ("REGISTERED NURSE", [("REGISTERED NURSE", "TITLE", "registered nurse")]),
        ("RN", [("RN", "TITLE", "registered nurse")]),
        ("r.n.", [("r.n.", "TITLE", "registered nurse")]),
        ("registerd nurse", [("registerd nurse", "TITLE", "registered nurse")]),
        ("wharehouse worker", [("wharehouse worker", "TITLE", "warehouse worker")]),
        ("acct mgr", [("acct mgr", "TITLE", "account manager")]),
        ("swe", [("swe", "TITLE", "software engineer")]),
        ("Senior Accountant", [("Senior", "SENIORITY", "senior"), ("Accountant", "TITLE", "accountant")]),
        ("accountant II", [("accountant", "TITLE", "accountant"), ("II", "SENIORITY", "middle")]),
        ("Senior Living Cook", [("Senior Living Cook", "TITLE", "senior living cook")]),
        ("cook/cashier", [("cook", "TITLE", "cook"), ("cashier", "TITLE", "cashier")]),
        ("Cashier - Austin, TX", [("Cashier", "TITLE", "cashier"), ("Austin", "PLACE", "austin"), ("TX", "PLACE", "texas")]),
        ("cashier part-time", [("cashier", "TITLE", "cashier"), ("part-time", "EMPLOYMENT", "part time")]),
        ("Cashier (acme foods)", [("Cashier", "TITLE", "cashier"), ("acme foods", "COMPANY", "acme foods")]),
        ("zentrix", [("zentrix", "COMPANY", "zentrix")]),
        ("customer service", [("customer service", "SKILL", "customer service")]),
        ("c++", [("c++", "SKILL", "c++")]),
        ("", []),
        ("qqqq zzzz", []),
        ("—", []),
    ],
)
def test_find(gazetteer: Gazetteer, text: str, expected: list[tuple[str, str, str]]) -> None:
    assert outer(gazetteer, text) == expected


def test_the_longest_phrase_wins_and_parts_are_inner(gazetteer: Gazetteer) -> None:
    (spans,) = gazetteer.find(["Java Developer"])
    assert [(s.start, s.end, s.label, s.inner) for s in spans] == [(0, 14, "TITLE", False), (0, 4, "SKILL", True)]


def test_words_that_are_also_something_else_need_their_context(gazetteer: Gazetteer) -> None:
    def labels(text: str) -> list[str]:
        return [label for _, label, _ in outer(gazetteer, text)]

    assert "PLACE" not in labels("mobile crane operator") and "PLACE" in labels("crane operator in Mobile, AL")
    assert labels("nurse or cook").count("TITLE") == 2 and "OR" not in [t for t, *_ in outer(gazetteer, "nurse or cook")]
    assert labels("PT") == ["TITLE"] and labels("cashier PT") == ["TITLE", "EMPLOYMENT"]


def test_offsets_count_characters_of_the_text_as_given(gazetteer: Gazetteer) -> None:
    text = "🏥 Ärztin — Régistered  Nurse\u00a0(Straße)\u2028RN\nCashier 数据 nurse"
    (spans,) = gazetteer.find([text])
    found = [text[s.start : s.end] for s in spans if s.label == "TITLE"]
    assert "RN" in found and "Cashier" in found and "nurse" in found
    assert all(s.value for s in spans)


def test_a_text_of_ten_thousand_words_is_read_to_its_end(gazetteer: Gazetteer) -> None:
    text = "registered nurse, " * 5_000
    (spans,) = gazetteer.find([text])
    assert len([s for s in spans if not s.inner]) == 5_000
    assert spans[-1].end <= len(text) and spans[-1].start > len(text) - 40


def test_a_batch_gives_what_single_texts_give(gazetteer: Gazetteer) -> None:
    texts = [example.text for example in corpus.texts(400, 3)] + ["", "\n", "nurse\nnurse", ""]
    assert list(gazetteer.find(texts)) == [next(gazetteer.find([text])) for text in texts]
    assert list(gazetteer.find([])) == [] and list(gazetteer.find([""])) == [[]]


def without_values(spans: list[Span]) -> list[Span]:
    return [span._replace(value="") for span in spans]


def test_equals_the_plain_version_on_adverts_and_queries(plain: Gazetteer) -> None:
    texts = [example.text for example in corpus.texts(1_500, 11)]
    for text, spans in zip(texts, plain.find(texts), strict=True):
        assert without_values(spans) == reference.find(text, lexicon.default()), text


_WORDS = (
    *(
        "senior",
        "lead",
        "nurse",
        "manager",
        "of",
        "sales",
        "java",
        "part time",
        "PT",
        "in",
        "IN",
        "Mobile",
        "AL",
        "II",
        "or",
        "OR",
    ),
    *("assistant", "cook", "target", "Target", "at", "entry level", "customer service", "hand", "stock", "night", "cdl"),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(_WORDS), st.sampled_from([" ", " ", " ", "/", " - ", ", ", "-", " ("])), max_size=9))
def test_equals_the_plain_version_on_any_order_of_words(plain: Gazetteer, pairs: list[tuple[str, str]]) -> None:
    text = "".join(word + gap for word, gap in pairs)
    assert without_values(next(plain.find([text]))) == reference.find(text, lexicon.default())


@pytest.mark.parametrize("word", ["nurse", "rn bsn", "python nurse", "senior", "austin TX", "java python developer", "é nurse"])
def test_time_grows_with_the_length_of_a_text(plain: Gazetteer, word: str) -> None:
    """A title of words that are titles took time with the square of its length and more: minutes at this size."""
    plain.columns(pa.array([word]))
    start = time.process_time()
    found = plain.columns(pa.array([f"{word} " * (100_000 // len(word))]))
    assert time.process_time() - start < 5
    assert len(found.text_N) > 0
