"""Make any text of a log fit for one line of a plot, a page or a terminal.

Logs hold everything: signs of mathematical typesetting, line ends, escape sequences, marks that turn the direction of what
follows, text of 50,000 characters, nothing at all. Pass every text through one of these functions before it is shown.
"""

import contextlib
import unicodedata
import warnings
from collections.abc import Iterator

_LONGEST = 200
_EMPTY = "(empty)"
_SHOWN_AS_BLANK = {"Cc", "Zl", "Zp"}  # control characters and line ends
_LEFT_OUT = {"Cs", "Cn"}  # halves of surrogate pairs and code points that are no characters: no encoding, or no XML, takes them
_TURNS = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # marks that turn the direction


def printable(text: str, longest: int = _LONGEST) -> str:
    """One line: control characters and line ends are blanks, marks of direction are left out, what is too long ends in `…`.

    Args:
        longest: the most characters of the result, at least 1.
    """
    kept, is_seen = [], False
    for character in text[: 4 * longest]:  # a run of blanks becomes one, so more is looked at than shown
        category = unicodedata.category(character)
        is_seen = is_seen or category[0] in "LNPS"
        if category in _SHOWN_AS_BLANK:
            kept.append(" ")
        elif category not in _LEFT_OUT and character not in _TURNS:
            kept.append(character)
    line = " ".join("".join(kept).split()) if is_seen else _EMPTY * bool(text)
    is_cut = len(line) > longest or len(text) > 4 * longest
    return line[: longest - 1].rstrip() + "…" if is_cut else line


def drawable(text: str, longest: int = 60) -> str:
    """`printable` for matplotlib: `$` is a dollar sign, and a leading `_` does not hide a legend's entry; never empty."""
    line = printable(text, longest) or _EMPTY
    return (" " if line.startswith("_") else "") + line.replace("$", r"\$")


@contextlib.contextmanager
def any_script() -> Iterator[None]:
    """While a drawing is saved: no warning for letters that matplotlib's font lacks; the reader's fonts draw them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield
