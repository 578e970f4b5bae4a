"""Token F1."""

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from tritower.entities import measure
from tritower.entities.measure import Labelled
from tritower.entities.spans import Found, Span


class Fixed:
    """Finds the same spans in every text."""

    def __init__(self, *spans: Span) -> None:
        self.held = spans

    def columns(self, texts: pa.StringArray) -> Found:
        return Found.of([self.held for _ in texts])


def test_token_scores_by_hand() -> None:
    # tokens: senior java developer austin / truth: S T T P / found: T T T none
    text = "senior java developer austin"
    truth = (Span(0, 6, "SENIORITY", ""), Span(7, 21, "TITLE", ""), Span(22, 28, "PLACE", ""))
    find = Fixed(Span(0, 21, "TITLE", ""), Span(7, 11, "SKILL", "", inner=True))
    scores = measure.token_scores(find, [Labelled(text, truth, "heldout")])
    assert scores["TITLE"] == (2 / 3, 1.0, pytest.approx(0.8), 2)
    assert scores["PLACE"].f1 == 0.0 and scores["SENIORITY"].recall == 0.0 and "SKILL" not in scores
    assert scores["all"] == (2 / 3, 0.5, pytest.approx(4 / 7), 4)


def test_levels_next_to_a_title_can_count_as_title() -> None:
    find = Fixed(Span(0, 6, "SENIORITY", ""), Span(7, 11, "TITLE", ""))
    example = Labelled("senior cook", (Span(0, 11, "TITLE", ""),), "heldout")
    assert measure.token_scores(find, [example])["TITLE"].recall == 0.5
    assert measure.token_scores(find, [example], levels_are_titles=True)["TITLE"].f1 == 1.0


def test_read_conll(tmp_path: Path) -> None:
    path = tmp_path / "set.txt"
    path.write_text("Senior B-Occupation \nCook I-Occupation \n. O \n\n\nsoup B-Domain \nmaking B-Skill \n")
    first, second = measure.read_conll(path)
    assert first.text == "Senior Cook ." and [(s.start, s.end, s.label) for s in first.spans] == [
        (0, 6, "TITLE"),
        (7, 11, "TITLE"),
    ]
    assert [(s.start, s.end, s.label) for s in second.spans] == [(5, 11, "SKILL")]


def test_the_gold_set_is_well_formed() -> None:
    folder = Path(__file__).parents[2] / "data"
    examples = measure.read_gold(folder / "entities_gold.jsonl")
    assert len(examples) == 200 and len({e.text for e in examples}) == 200
    assert sum(e.split == "heldout" for e in examples) == 99
    for text, spans, _ in examples:
        assert all(a.end <= b.start for a, b in pairwise(spans))
        assert all(text[s.start : s.end].strip() == text[s.start : s.end] != "" for s in spans)
    assert len(measure.read_conll(folder / "ner_green2022" / "testset.txt")) == 336
