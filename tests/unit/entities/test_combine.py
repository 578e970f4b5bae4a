"""Lists and model together, on spans made by hand."""

import pytest
from tritower.entities import combine, lexicon
from tritower.entities.combine import Combined
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
    ("text", "spans", "expected"),
    [
        ("nurse", [Span(0, 5, "TITLE", "nurse")], False),
        ("nurse zork", [Span(0, 5, "TITLE", "nurse")], True),
        ("nurse for 3 jobs", [Span(0, 5, "TITLE", "nurse")], False),
        ("zork", [Span(0, 4, "TITLE", "zork", inner=True)], True),
        ("zork is what we want", [], False),
        ("zork " * 13, [], False),
        ("", [], False),
    ],
)
def test_texts_the_model_is_asked_about(text: str, spans: list[Span], expected: bool) -> None:
    assert combine._is_open(text, spans) is expected
