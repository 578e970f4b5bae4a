"""Any text of a log can be drawn, put into a page and printed."""

import datetime as dt
import unicodedata
import warnings
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tritower.drawable import drawable, printable
from tritower.encoder import report as encoder_report
from tritower.ingest import report as ingest_report
from tritower.tuning import plots as tuning_plots
from tritower.tuning.config import Parameter

from pipelines import show

NASTY = {
    "nurse $20 to $30": "nurse $20 to $30",
    r"$\frac{1}{$": r"$\frac{1}{$",
    r"C:\jobs\$5": r"C:\jobs\$5",
    "\\": "\\",
    "_hidden^2": "_hidden^2",
    "<b>bold</b> & 'quotes\"": "<b>bold</b> & 'quotes\"",
    "👩‍👩‍👧 семья 日本語": "👩‍👩‍👧 семья 日本語",
    "ممرض في دبي": "ممرض في دبي",
    "left\u202eright": "leftright",
    "red\x1b[31m\x00\x07\r\nnext\u2028line": "red [31m next line",
    "lone\ud800 \uffff": "lone",
    "\u200b\u200d": "(empty)",
    "  ": "(empty)",
}


@pytest.mark.parametrize(("text", "wanted"), NASTY.items())
def test_what_a_reader_sees(text: str, wanted: str) -> None:
    assert printable(text) == wanted
    assert drawable(text).lstrip() == wanted.replace("$", r"\$")


def test_long_and_empty_texts() -> None:
    assert printable("nurse " * 10_000, 11) == "nurse nurs…"
    assert printable("x" * 11, 11) == "x" * 11
    assert (printable(""), drawable("")) == ("", "(empty)")
    assert len(drawable("$" * 50_000)) == 59 * 2 + 1


@given(st.text(st.characters()), st.integers(1, 80))
@example("\ud800", 1)
def test_the_result_is_one_line_that_every_encoding_takes(text: str, longest: int) -> None:
    line = printable(text, longest)
    assert len(line) <= max(longest, len("(empty)"))
    assert not {unicodedata.category(c) for c in line} & {"Cc", "Cs", "Zl", "Zp"}
    line.encode("utf-8")
    assert printable(line, max(longest, len(line))) == line


def words(svg: str) -> list[str]:
    """The texts of a drawing, read by an XML parser."""
    return [
        text for element in ET.fromstring(svg).iter() if element.tag.endswith("text") and (text := "".join(element.itertext()))
    ]


def map_of(names: list[str]) -> list[str]:
    """What the colours of the encoder's map mean, with a document per name."""
    vectors = np.random.default_rng(0).normal(size=(len(names), 8)).astype(np.float32)
    before, after = encoder_report.map_plots(vectors, vectors, names)
    assert before.keys == after.keys
    return [text for _, text in before.keys]


def test_a_legend_names_every_occupation_as_it_is_called() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = map_of([*NASTY, "_nolegend_", "plain"])
    assert {text.strip() for text in shown} >= {*NASTY.values(), "_nolegend_", "plain"}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=2, max_size=4, unique=True))
def test_no_occupation_stops_the_encoder_s_map(names: list[str]) -> None:
    assert {printable(name, 60) or "(empty)" for name in names} <= {" ".join(text.split()) for text in map_of(names)}


@pytest.mark.parametrize("text", NASTY)
def test_choices_and_metrics_of_a_search(text: str) -> None:
    space = [Parameter(name="_knob", kind="categorical", choices=(text, "other"))]
    trials = [
        {"number": n, "value": 0.5 + n / 10, "state": "complete", "along": [], "params": {"_knob": choice}}
        for n, choice in enumerate(space[0].choices)
    ]
    shown = words(tuning_plots.parallel(trials, space, "_auc", maximize=True).svg) + words(
        tuning_plots.history(trials, 0.4, "_auc", maximize=True).svg
    )
    assert {printable(text, 30), "knob", "AUC"} <= {one.strip() for one in shown}


def test_ingest_s_report_with_any_text() -> None:
    names = list(NASTY)
    measured = {
        "counts": {
            "jobs": {
                **{"in": 2, "out": 1, "quarantined": 1, "deduplicated": 0, "merged": 0},
                **{"reasons": dict.fromkeys(names, 1), "mended": dict.fromkeys(names, 1)},
            }
        },
        "examples": {"jobs": {name: name for name in names}},
        "companies": 3,
        "missing": {"jobs": dict.fromkeys(names, 0.5)},
        "days": [{"day": name, "impressions": 5, "clicks": 1} for name in names],
    }
    page = Text()
    page.feed(ingest_report.html(measured, measured, []))
    assert not {"b", "script"} & page.tags
    assert {"nurse $20 to $30", "<b>bold</b> & 'quotes\""} <= page.texts


class Text(HTMLParser):
    """The tags and the texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.add(data.strip())


@pytest.mark.parametrize("text", NASTY)
def test_the_terminal_shows_one_line_a_job_whatever_its_title(text: str) -> None:
    row = {
        "request": 1, "query": text, "request_city": text, "request_region": None, "user_id": text, "rank": 1, "title": text,
        "company": text, "city": text, "region": text, "score": 0.5, "ts": dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
    }  # fmt: skip
    shown = show.ranked_jobs([row])
    assert len(shown.splitlines()) == 3 and printable(text) in shown
    assert not [c for c in shown if c != "\n" and unicodedata.category(c) in ("Cc", "Cs")]
