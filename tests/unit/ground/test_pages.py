"""A report is one page of text and drawings: escaped, folded, none in an empty table."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tritower.pages import page
from tritower.pages.drawing import TYPE, WIDTH, canvas


class Read(HTMLParser):
    """Tags with their attributes, the text, and whether every tag is closed in its order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._open = "", list[str]()
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def whole(text: str) -> page.Page:
    """A page with this text in every place."""
    with canvas(text, name="one") as drawn:
        drawn.axes.plot([0, 1], [0, 1], color=drawn.key("#000", text))
    blocks = [
        page.Text(lines=[text]),
        page.Table(columns=["a", text, "c", "d"], rows=[[text, page.Cell(text=text, note=text, tone="good"), "1", "2"]]),
        page.Table(columns=["a"], rows=[], title=text),
        page.Items(items=[page.Item(text=text, note=text, mark="clicked")], title=text),
        page.Items(items=[]),
        page.Plots(plots=[drawn.drawing()]),
        page.Beside(blocks=[page.Items(items=[page.Item(text=text)])]),
        page.Fold(title=text, note=text, blocks=[page.Text(lines=[text])]),
    ]
    sections = [page.Section(title=text, blocks=blocks, is_open=True), page.Section(title="last", blocks=[])]
    return page.Page(name=text, verdict=text, tone="good", lines=[text], warnings=[text], notes=[text], sections=sections)


@settings(max_examples=25, deadline=None)
@given(
    st.text(max_size=60)
    | st.sampled_from(["<script>x()</script>", '"><img src=x onerror=y>', "</style><b>", "a\x1b[3m\u202eb"])
)
def test_text_is_never_markup(text: str) -> None:
    plain = [tag for tag, _ in Read(page.html(whole("plain"))).tags]
    found = Read(page.html(whole(text)))
    tags = [tag for tag, _ in found.tags]
    assert tags == plain or not text  # an empty text leaves out headings
    assert not {"script", "img", "a", "iframe", "link"} & set(tags)
    assert not any(name.startswith("on") or name in ("src", "href") for _, attrs in found.tags for name in attrs)


def test_contents_fold_and_empty_tables() -> None:
    found = Read(page.html(whole("word")))
    details = [attrs for tag, attrs in found.tags if tag == "details"]
    assert ["open" in attrs for attrs in details] == [True, False, False]
    labels = [attrs["for"] for tag, attrs in found.tags if tag == "label"]
    assert labels == [attrs["id"] for tag, attrs in found.tags if tag == "input"] == ["part-1", "part-2"]
    assert found.text.split("\n").count("none") == 2
    assert next(tag for tag, _ in found.tags[[tag for tag, _ in found.tags].index("main") + 1 :]) == "h1"


def test_a_drawing_s_type_is_large_enough_where_it_fits() -> None:
    with canvas("Any", name="any") as drawn:
        drawn.axes.set(xlabel="x", ylabel="y", title="title")
        drawn.axes.plot([0, 0.5], [0, 1000], color=drawn.key("#123456", "line"))
    root = ET.fromstring(drawn.drawing().svg)
    assert root.attrib["viewBox"].split()[2] == str(WIDTH)
    assert WIDTH <= 427 - 15 - 24 - 18  # scroll bar, margins, card
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: (?:\w+ )*([\d.]+)px", drawn.drawing().svg)]
    assert sizes and min(sizes) >= TYPE == 14
    assert drawn.drawing().keys == (("#123456", "line"),)


def test_names_of_the_code_in_words() -> None:
    assert page.spoken("training.learning_rate") == "training: learning rate"
