"""Lists and model together, on spans made by hand."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower.entities import lexicon, model
from tritower.entities.combine import Combined, Guessed
from tritower.entities.gazetteer import Gazetteer
from tritower.entities.model import Recogniser, create
from tritower.entities.spans import Span


@pytest.fixture(scope="module")
def combined() -> Combined:
    return Combined(Gazetteer(lexicon.default()), Recogniser(create()))


def test_a_guessed_title_swallows_listed_parts_that_lie_in_it(combined: Combined) -> None:
    text = "ruby zork developer"
    listed = [Span(0, 4, "SKILL", "ruby"), Span(10, 19, "TITLE", "developer")]
    merged = combined.merged(text, listed, [Span(0, 19, "TITLE", "")])
    assert merged == [Span(0, 19, "TITLE", "ruby zork developer"), Span(0, 4, "SKILL", "ruby", inner=True)]


def test_a_guess_does_not_touch_other_listed_labels(combined: Combined) -> None:
    listed = [Span(0, 6, "PLACE", "austin"), Span(7, 12, "TITLE", "nurse")]
    assert combined.merged("austin nurse", listed, [Span(0, 12, "TITLE", "")]) == listed


def test_a_guess_fills_what_nothing_covers(combined: Combined) -> None:
    merged = combined.merged(
        "nurse zork", [Span(0, 5, "TITLE", "nurse")], [Span(6, 10, "COMPANY", ""), Span(0, 5, "SKILL", "")]
    )
    assert merged == [Span(0, 5, "TITLE", "nurse"), Span(6, 10, "COMPANY", "zork")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nurse", False),
        ("nurse zork", True),
        ("nurse for 3 jobs", False),
        ("zork", True),
        ("zork is what we want", False),
        ("zork " * 12, True),
        ("zork " * 13, False),
        ("", False),
        ("— ́", False),
    ],
)
def test_texts_the_model_is_asked_about(text: str, expected: bool) -> None:
    _, open_V = Gazetteer(lexicon.default()).read(pa.array(["nurse zork", text, "nurse"]))
    assert open_V.tolist() == [True, expected, False]


def test_columns_are_the_lists_spans_with_the_models_merged_in(combined: Combined) -> None:
    texts = ["nurse", "senior zork weaver - austin, tx", "", "java zorker", "cook/cashier"]
    read, lists = model.read(), Gazetteer(lexicon.default())
    listed, guesses = list(lists.find(texts)), list(read.find(texts))
    expected = [listed[i] if i not in (1, 3) else combined.merged(texts[i], listed[i], guesses[i]) for i in range(5)]
    found = Combined(lists, read).columns(pa.array(texts))
    assert list(found.spans(5)) == expected
    assert found.text_N.dtype == np.int32 and (np.diff(found.text_N) >= 0).all()


NO_WORDS = ["👨‍👩‍👧‍👦", "🧑‍🍳", "\u200b", "\ufeff", "️", "☎️", "_ _", "™", "\u0301", "゛", "﷽"]


@pytest.fixture(scope="module")
def trained() -> tuple[Combined, Guessed]:
    lists, recogniser = Gazetteer(lexicon.default()), model.read()
    return Combined(lists, recogniser), Guessed(lists, recogniser)


def test_signs_and_joined_emoji_are_no_entities(trained: tuple[Combined, Guessed]) -> None:
    for finder in trained:
        assert len(finder.columns(pa.array(NO_WORDS)).value_N) == 0
    # Beside words they change nothing that counts.
    found = trained[1].columns(pa.array(["👩‍⚕️ nurse"]))
    assert "nurse" in found.value_N.to_pylist() and "" not in found.value_N.to_pylist()


def test_a_level_without_a_word_has_no_value() -> None:
    assert Gazetteer(lexicon.default()).value("🧑‍🍳", "SENIORITY") == ""
    assert Gazetteer(lexicon.default()).value("zork", "SENIORITY") == "middle"


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=20))
def test_every_entity_has_a_value(trained: tuple[Combined, Guessed], texts: list[str]) -> None:
    for finder in trained:
        assert all(finder.columns(pa.array(texts, pa.string())).value_N.to_pylist())
