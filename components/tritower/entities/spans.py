"""What the recogniser finds: labelled spans of a text, one by one or as columns.

Legend: N spans of a batch.
"""

import contextlib
import gc
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int32]

LABELS = ("TITLE", "EMPLOYMENT", "QUALIFICATION", "SENIORITY", "PLACE", "COMPANY", "SKILL")
"""Every label, in the order that decides between matches of equal length."""
_LABEL_AT = {label: at for at, label in enumerate(LABELS)}


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


class Found(NamedTuple):
    """The spans of a batch of texts as columns, text by text; the fields are those of `Span`, labels are places in LABELS."""

    text_N: Ints
    start_N: Ints
    end_N: Ints
    label_N: Ints
    value_N: pa.StringArray
    inner_N: npt.NDArray[np.bool_]

    @staticmethod
    def of(spans: Iterable[Sequence[Span]]) -> "Found":
        """From the spans of each text."""
        held = list(spans)
        text_N = np.repeat(np.arange(len(held), dtype=np.int32), np.fromiter(map(len, held), np.int64, len(held)))
        flat = list(itertools.chain.from_iterable(held))
        start, end, label, value, inner = zip(*flat, strict=True) if flat else ((),) * 5
        label_N = np.array([_LABEL_AT[name] for name in label], np.int32)
        value_N, inner_N = pa.array(value, pa.string()), np.array(inner, np.bool_)
        return Found(text_N, np.array(start, np.int32), np.array(end, np.int32), label_N, value_N, inner_N)

    def take(self, rows: npt.NDArray[Any]) -> "Found":
        """The spans at `rows`."""
        text_N, start_N, end_N, label_N, value_N, inner_N = self
        value_N = value_N.take(pa.array(rows))
        return Found(text_N[rows], start_N[rows], end_N[rows], label_N[rows], value_N, inner_N[rows])

    def and_(self, other: "Found") -> "Found":
        """These spans, then the others."""
        text_N, start_N, end_N, label_N = (np.concatenate(pair) for pair in zip(self[:4], other[:4], strict=True))
        value_N = pa.concat_arrays([self.value_N, other.value_N])
        return Found(text_N, start_N, end_N, label_N, value_N, np.concatenate([self.inner_N, other.inner_N]))

    def spans(self, texts: int) -> Iterator[list[Span]]:
        """The spans of each of `texts` texts."""
        labels = np.array(LABELS, object)[self.label_N]
        columns = (self.start_N.tolist(), self.end_N.tolist(), labels.tolist(), self.value_N.to_pylist(), self.inner_N.tolist())
        spans = _built(zip(*columns, strict=True))
        until = np.searchsorted(self.text_N, np.arange(texts + 1)).tolist()
        for begin, end in itertools.pairwise(until):
            yield spans[begin:end]


class Finder(Protocol):
    """What finds entities: a column of texts without nulls in, the spans of all out, text by text."""

    def columns(self, texts: pa.StringArray) -> Found: ...


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Garbage collection put off: making many objects sets it off again and again, and each time it walks the whole lexicon."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _built(rows: Iterable[tuple[object, ...]]) -> list[Span]:
    """The rows as spans; a named tuple's own constructor is a Python function, without it this takes a tenth of the time."""
    with no_collection():
        return list(map(tuple.__new__, itertools.repeat(Span), rows))


def without_overlap(spans: Iterable[Span]) -> list[Span]:
    """The spans in reading order, keeping of two that overlap the longer (then the earlier in LABELS, then the first)."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start - s.end, LABELS.index(s.label), s.start)):
        if all(span.end <= other.start or span.start >= other.end for other in kept):
            kept.append(span)
    return sorted(kept)
