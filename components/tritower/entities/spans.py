"""What the recogniser finds: labelled spans of a text."""

from collections.abc import Iterable
from typing import NamedTuple

LABELS = ("TITLE", "EMPLOYMENT", "QUALIFICATION", "SENIORITY", "PLACE", "COMPANY", "SKILL")
"""Every label, in the order that decides between matches of equal length."""


class Span(NamedTuple):
    """`text[start:end]` is an entity.

    `value` is its canonical form (abbreviations expanded, plurals folded, slips mended; for SENIORITY the name of the
    level), so that two texts agree when their values are equal. An `inner` span lies within another one: the "java" and the
    "lead" of "java team lead".
    """

    start: int
    end: int
    label: str
    value: str
    inner: bool = False


def without_overlap(spans: Iterable[Span]) -> list[Span]:
    """The spans in reading order, keeping of two that overlap the longer (then the earlier in LABELS, then the first)."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start - s.end, LABELS.index(s.label), s.start)):
        if all(span.end <= other.start or span.start >= other.end for other in kept):
            kept.append(span)
    return sorted(kept)
