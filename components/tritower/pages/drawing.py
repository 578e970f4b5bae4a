"""The reports' drawings: inline SVG whose type stays at 14 pixels or more in a frame of 427.

A drawing is `WIDTH` units wide, which is less than such a frame has, so it is only ever enlarged there. What colours mean
stands beside it as text of the page (`Drawing.keys`), where it can wrap.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tritower.drawable import any_script, printable

WIDTH = 360
"""Units of a drawing; a frame of 427 pixels has 427 - 15 (scroll bar) - 24 (margins) - 18 (card) = 370 for it."""
TYPE = 14
"""Units of all its type."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tritower",
    "font.family": "sans-serif",
    "font.size": TYPE,
    "axes.titlesize": TYPE,
    "axes.labelsize": TYPE,
    "xtick.labelsize": TYPE,
    "ytick.labelsize": TYPE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#94a3b8",
    "axes.labelcolor": "#334155",
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": "#475569",
    "ytick.color": "#475569",
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What a page shows: SVG text, and what each colour means."""

    title: str
    svg: str
    keys: Sequence[tuple[str, str]] = ()


@dataclass(kw_only=True)
class Canvas:
    """Where a drawing is made; `key` says what a colour means."""

    figure: Figure
    axes: Axes
    done: list[Drawing] = field(default_factory=list)
    keys: list[tuple[str, str]] = field(default_factory=list)

    def key(self, colour: str, text: str) -> str:
        """Note what a colour means, in the order of the calls; returns the colour."""
        self.keys.append((colour, printable(text, 60) or "(empty)"))
        return colour

    def drawing(self) -> Drawing:
        """The drawing, once its `with` has ended."""
        return self.done[0]


@contextmanager
def canvas(title: str, *, name: str, height: int = 240) -> Iterator[Canvas]:
    """Draw within this block; `Canvas.drawing` has the result.

    Args:
        name: what no other drawing of the page is called; ids in the SVG begin with it.
        height: in units.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        drawn = Canvas(figure=figure, axes=figure.subplots())
        yield drawn
        text = io.StringIO()
        with any_script():
            figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn.done.append(Drawing(title=title, svg=_inline(text.getvalue(), name), keys=tuple(drawn.keys)))


def few_ticks(axes: Axes, *, whole: bool = False) -> None:
    """At most five steps between numbers on linear axes, for type of 14 needs room; `whole` numbers only on the lower one."""
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=whole))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _inline(svg: str, name: str) -> str:
    """An SVG as part of a page: ids of its own, no fixed size."""
    prefix = re.sub(r"\W+", "-", name).strip("-").lower()
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\1{prefix}-", svg[svg.index("<svg") :])
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    start = rf'<svg role="img" aria-label="{prefix.replace("-", " ")}" viewBox="\1" {names}>'
    return re.sub(r'<svg [^>]*viewBox="([^"]+)"[^>]*>', start, svg, count=1)
