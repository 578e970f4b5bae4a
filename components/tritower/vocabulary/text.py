"""Cutting text into tokens and folding them, so that "Sr. C++ Developers" and "sr c++ developer" meet.

One rule for the whole package: the vocabulary's own entries, job titles and queries all pass through `tokenise`.
"""

import functools
import re
import unicodedata
from importlib import resources
from typing import NamedTuple

# In order: a word of three letters or more with inner apostrophes (only for speed: the last but one would take it too);
# programming languages that end in signs; a leading-dot name such as .NET; letters joined by single dots or ampersands
# (R.N., Ph.D., R&D); a shorter word; an ampersand of its own.
TOKEN = re.compile(
    r"[^\W_]{3,}(?:['’][^\W\d_]+)*"
    r"|(?<!\w)[CcFfJj]\+\+|(?<!\w)[CcFf]#(?!\w)|(?<![\w.])\.[Nn][Ee][Tt](?!\w)"
    r"|(?<!\w)[^\W\d_]{1,2}(?:\.[^\W\d_]{1,2})+(?!\w)\.?|(?<!\w)[^\W\d_](?:&[^\W\d_])+(?!\w)"
    r"|[^\W_]+(?:['’][^\W\d_]+)*|&"
)
"""What a token is, before folding; without groups, so that it can be part of a larger pattern."""
_MARKS = dict.fromkeys((ord("'"), ord("’"), ord(".")))


class Token(NamedTuple):
    """A folded token and where it stands in the text it came from: `text[start:end]`, in characters."""

    norm: str
    start: int
    end: int


def tokenise(text: str) -> list[Token]:
    """Cut `text` into folded tokens with offsets into the text as given.

    Lower case, accents dropped, inner apostrophes and dots dropped ("R.N." is `rn`), "&" alone is `and`; hyphens and
    slashes separate. "C++", "C#", "F#" and ".NET" keep their signs.
    """
    if text.isascii():
        return [Token(_fold_ascii(m[0]), m.start(), m.end()) for m in TOKEN.finditer(text)]
    return [Token(norm, m.start(), m.end()) for m in TOKEN.finditer(text) if (norm := _fold(m[0]))]


def fold(written: str) -> str:
    """The folded form of one token as matched by TOKEN; empty where nothing but accents is left."""
    return _fold_ascii(written) if written.isascii() else _fold(written)


def words(text: str) -> list[str]:
    """The folded tokens of `text`, as `tokenise` gives them, at a third of its time."""
    return [norm for written in TOKEN.findall(text) if (norm := fold(written))]


def normalise(text: str) -> str:
    """The folded tokens of `text` joined by single spaces; empty when there is none."""
    return " ".join(words(text))


@functools.lru_cache(maxsize=65536)
def singular(token: str) -> str:
    """The singular of an English plural token, by rule; other tokens unchanged.

    Meant for lookup keys, not for display: what matters is that both sides of a comparison pass through it.
    """
    if len(token) < 4 or not token.endswith("s") or token in _not_plural() or token.endswith(("ss", "us", "is")):
        return token
    if token in _IRREGULAR:
        return _IRREGULAR[token]
    if token.endswith("ies") and len(token) > 4:
        return token[:-3] + "y"
    if token.endswith(("sses", "shes", "ches", "xes", "zes")):
        return token[:-2]
    return token[:-1]


def key(text: str) -> str:
    """The lookup key of a phrase: normalised, every token singular."""
    return " ".join([norm for norm in map(_key_of_word, TOKEN.findall(text)) if norm])


def employer_key(name: str) -> str:
    """The lookup key of an employer: normalised, legal forms at the end dropped ("Acme Foods, Inc." is `acme foods`)."""
    found = words(name)
    while len(found) > 1 and found[-1] in _LEGAL_FORMS:
        found.pop()
    if len(found) > 1 and found[0] == "the":
        found.pop(0)
    return " ".join(found)


_LEGAL_FORMS = frozenset(["and", "co", "company", "corp", "corporation", "gmbh", "inc", "incorporated", "limited", "llc"]) | {
    "llp", "lp", "ltd", "na", "pc", "plc", "pllc", "pty",
}  # fmt: skip


@functools.cache
def _not_plural() -> frozenset[str]:
    text = resources.files(__package__).joinpath("data", "not_plural.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if not line.startswith("# "))


_IRREGULAR = {"wives": "wife", "knives": "knife", "lives": "life", "movies": "movie", "cookies": "cookie", "ties": "tie"}


@functools.lru_cache(maxsize=65536)
def _key_of_word(written: str) -> str:
    return singular(fold(written))


def _fold_ascii(written: str) -> str:
    if written == "&":
        return "and"
    if written[0] == "." or written.isalnum():
        return written.lower()
    return written.lower().translate(_MARKS)


@functools.lru_cache(maxsize=65536)
def _fold(token: str) -> str:
    decomposed = unicodedata.normalize("NFKD", token.casefold())
    bare = "".join(character for character in decomposed if not unicodedata.combining(character))
    return _fold_ascii(unicodedata.normalize("NFC", bare)) if bare else ""
