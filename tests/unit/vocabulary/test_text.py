"""Cutting and folding of text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritower import vocabulary


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sr. R.N. (Night-Shift)", "sr rn night shift"),
        ("R&D Engineer & Tester", "r&d engineer and tester"),
        ("C++/C#/.NET dev", "c++ c# .net dev"),
        ("Macy's Ph.D.", "macys phd"),
        ("Bäcker — Café Straße", "backer cafe strasse"),
        ("İstanbul", "istanbul"),
        ("node.js asp.net 401k", "node js asp net 401k"),
        ("", ""),
        (" -/, ", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert vocabulary.normalise(text) == expected


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("nurses", "nurse"), ("secretaries", "secretary"), ("batches", "batch"), ("boxes", "box"), ("class", "class"),
        ("sales", "sales"), ("bus", "bus"), ("analysis", "analysis"), ("its", "its"), ("waitresses", "waitress"),
    ],
)  # fmt: skip
def test_singular(token: str, expected: str) -> None:
    assert vocabulary.singular(token) == expected


def test_key_makes_plural_and_singular_meet() -> None:
    assert vocabulary.key("Registered Nurses") == vocabulary.key("registered nurse") == "registered nurse"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Acme Foods, Inc.", "acme foods"), ("The Gap", "gap"), ("Smith & Co. Ltd", "smith"), ("LLC", "llc"), ("", "")],
)
def test_employer_key(name: str, expected: str) -> None:
    assert vocabulary.employer_key(name) == expected


@given(st.text(max_size=60))
def test_offsets_are_ordered_and_inside_the_text(text: str) -> None:
    position = 0
    for token in vocabulary.tokenise(text):
        assert position <= token.start < token.end <= len(text)
        assert token.norm and " " not in token.norm
        position = token.end


_TEXTS = st.text(st.characters() | st.sampled_from("&.'’ RnsSC+#éﷺ̈"), max_size=60)


@given(_TEXTS)
def test_words_and_key_are_those_of_the_tokens(text: str) -> None:
    norms = [token.norm for token in vocabulary.tokenise(text)]
    assert vocabulary.words(text) == norms
    assert vocabulary.normalise(text) == " ".join(norms)
    assert vocabulary.key(text) == " ".join([vocabulary.singular(norm) for norm in norms])


@given(st.text(max_size=60))
def test_normalise_twice_changes_nothing_for_plain_words(text: str) -> None:
    once = vocabulary.normalise("".join(c for c in text if c.isascii() and (c.isalnum() or c == " ")))
    assert vocabulary.normalise(once) == once
