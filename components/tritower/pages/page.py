"""A report as data, and as one HTML file that needs nothing else: no script, no other file, no network.

A room says what its report holds: a verdict in one sentence, sections, tables, drawings. Everything else is the page's: its
style for a frame of 427 pixels and for a whole window, the list of contents, sections that fold, `none` in an empty table.
Every text is escaped, and is one line that can be shown (`drawable.printable`), whatever the log held.

The contents are labels of hidden inputs, not links: within the frame of Kubeflow's pages (`<iframe srcdoc>`) a link to `#part`
leaves the report.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import jinja2
from markupsafe import Markup

from tritower.drawable import printable

if TYPE_CHECKING:  # matplotlib takes a second to import, and a server's page draws nothing
    from tritower.pages.drawing import Drawing

Tone = Literal["", "good", "bad"]
_LONGEST = 1000
"""Characters of a text: our own sentences reach 700; rooms cut what a log holds to less."""
_TERMS = {"auc": "AUC", "map": "mAP", "ndcg": "nDCG"}
_FITS = 3
"""So many columns stand side by side in a frame; the rows of a wider table become cards there."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A value with a smaller line below it."""

    text: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True, kw_only=True)
class Text:
    """Paragraphs."""

    kind: ClassVar[str] = "text"
    lines: Sequence[str]
    style: Literal["plain", "soft", "note"] = "plain"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; without rows the page says `none`. The `text_columns` first columns hold text, the others numbers."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    text_columns: int = 1
    title: str = ""
    colours: Sequence[str] = ()
    """A mark in front of each row, as in the drawings; none where empty."""

    @property
    def is_wide(self) -> bool:
        """Whether its rows become cards where there is no room."""
        return len(self.columns) > _FITS

    def cells(self, row: Sequence[str | Cell]) -> list[tuple[str, Cell, bool]]:
        """Column, value, whether it is text; for each of a row."""
        cells = (cell if isinstance(cell, Cell) else Cell(text=cell) for cell in row)
        return [(name, cell, at < self.text_columns) for at, (name, cell) in enumerate(zip(self.columns, cells, strict=True))]


@dataclass(frozen=True, kw_only=True)
class Item:
    """A line of a list; `mark` says in a word why it stands out."""

    text: str
    note: str = ""
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Items:
    """A list; ordered where the order says something."""

    kind: ClassVar[str] = "items"
    items: Sequence[Item]
    title: str = ""
    is_ordered: bool = True


@dataclass(frozen=True, kw_only=True)
class Plots:
    """Drawings, side by side where there is room."""

    kind: ClassVar[str] = "plots"
    plots: "Sequence[Drawing]"


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Lists side by side where there is room."""

    kind: ClassVar[str] = "beside"
    blocks: Sequence[Items]


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A part of a section that folds; `note` follows its title."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: Sequence[Any]
    note: str = ""
    is_open: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report that folds and stands in the contents."""

    title: str
    blocks: Sequence[Any]
    is_open: bool = False


@dataclass(frozen=True, kw_only=True)
class Page:
    """A report: the verdict first, what a reader must know besides, then the sections."""

    name: str
    """What the report is about, for the browser's title."""
    verdict: str
    tone: Tone
    lines: Sequence[str]
    """Sentences below the verdict: what was looked at."""
    sections: Sequence[Section]
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()


def html(page: Page) -> str:
    """The page as one HTML text."""
    return template("tritower.pages", "page.html").render(page=page, style=style("tritower.pages")).strip() + "\n"


def template(package: str, name: str) -> jinja2.Template:
    """A template that lies in a package. Every value is escaped, and every text is one line that can be shown."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_shown, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(resources.files(package).joinpath(name).read_text(encoding="utf-8"))


def style(package: str) -> Markup:
    """The style sheet that all pages share, and after it the package's own `page.css`."""
    files = resources.files("tritower.pages").joinpath("base.css"), resources.files(package).joinpath("page.css")
    return Markup("".join(file.read_text(encoding="utf-8") for file in files))  # noqa: S704 - our own files


def spoken(name: str) -> str:
    """A name of the code as a reader's words.

    >>> spoken("training.learning_rate"), spoken("validation_map@3")
    ('training: learning rate', 'validation mAP@3')
    """
    words = re.sub(r"\.(?=\w)", ": ", name).replace("_", " ")
    return re.sub(r"\b(auc|map|ndcg)(?=\b|@)", lambda found: _TERMS[found[1]], words).strip()


def _shown(value: Any) -> Any:
    """What the template writes of a value: drawings as they are, texts as one line."""
    return printable(value, _LONGEST) if isinstance(value, str) and not hasattr(value, "__html__") else value
