"""Token F1 of a recogniser against hand-labelled texts."""

import collections
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from tritower import vocabulary
from tritower.entities.spans import Finder, Span

NOTHING = ""


class Labelled(NamedTuple):
    """A text, its true spans, and the part of the set it belongs to."""

    text: str
    spans: tuple[Span, ...]
    split: str


class Score(NamedTuple):
    """Precision, recall and F1 over tokens (0 to 1), and the number of tokens that truly have the label."""

    precision: float
    recall: float
    f1: float
    tokens: int


def token_scores(find: Finder, examples: Sequence[Labelled], *, levels_are_titles: bool = False) -> dict[str, Score]:
    """Scores per label, and under "all" over all labels together.

    A token counts for the label of the outer span it starts in. Tokens are those of `vocabulary.tokenise`.

    Args:
        find: texts in, spans out.
        examples: the truth.
        levels_are_titles: count a found SENIORITY that touches a found TITLE as TITLE, for a truth that makes no difference.
    """
    right: collections.Counter[str] = collections.Counter()
    found: collections.Counter[str] = collections.Counter()
    true: collections.Counter[str] = collections.Counter()
    held = find.columns(pa.array([example.text for example in examples], pa.string()))
    for example, spans in zip(examples, held.spans(len(examples)), strict=True):
        guess = [span for span in spans if not span.inner]
        if levels_are_titles:
            guess = [span._replace(label="TITLE") if _touches_title(span, guess) else span for span in guess]
        for token in vocabulary.tokenise(example.text):
            is_true, is_found = _label_at(token.start, example.spans), _label_at(token.start, guess)
            true[is_true] += 1
            found[is_found] += 1
            right[is_true] += is_true == is_found
    labels = sorted((set(true) | set(found)) - {NOTHING})
    scores = {label: _score(right[label], found[label], true[label]) for label in labels}
    totals = (sum(counter[label] for label in labels) for counter in (right, found, true))
    return {"all": _score(*totals), **scores}


def read_gold(path: str | Path) -> list[Labelled]:
    """The examples of a JSON Lines file with `text`, `split` and `entities` ([start, end, label])."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [
        Labelled(row["text"], tuple(Span(start, end, label, "") for start, end, label in row["entities"]), row["split"])
        for row in rows
    ]


def read_conll(path: str | Path) -> list[Labelled]:
    """Sentences of a file with one `token tag` a line and blank lines between sentences.

    Occupation becomes TITLE, Skill SKILL and Qualification QUALIFICATION; other tags are dropped.
    """
    names = {"Occupation": "TITLE", "Skill": "SKILL", "Qualification": "QUALIFICATION"}
    examples: list[Labelled] = []
    for block in Path(path).read_text(encoding="utf-8").split("\n\n"):
        text, spans = "", []
        for line in block.strip().splitlines():
            token, _, tag = line.strip().rpartition(" ")
            text += " " if text else ""
            label = names.get(tag.partition("-")[2])
            if label:
                spans.append(Span(len(text), len(text) + len(token), label, ""))
            text += token
        if text:
            examples.append(Labelled(text, tuple(spans), "heldout"))
    return examples


def _label_at(position: int, spans: Sequence[Span]) -> str:
    return next((span.label for span in spans if span.start <= position < span.end), NOTHING)


def _touches_title(span: Span, spans: Sequence[Span]) -> bool:
    near = (other for other in spans if other.label == "TITLE")
    return span.label == "SENIORITY" and any(
        0 <= other.start - span.end <= 2 or 0 <= span.start - other.end <= 2 for other in near
    )


def _score(right: int, found: int, true: int) -> Score:
    return Score(right / found if found else 0.0, right / true if true else 0.0, 2 * right / max(1, found + true), true)
