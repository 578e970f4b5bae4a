"""The occupation of a job: what the source says, else what the vocabulary knows of its title.

Titles carry levels, shifts and places around the trade ("Sr. Registered Nurse II - Nights"), so the longest run of words that
is a known title decides. A source's own name of an occupation is turned into its code where the vocabulary has it, so that
both kinds agree.
"""

import functools
from collections.abc import Iterable

import pyarrow as pa

from tritower import vocabulary


def of_jobs(occupation: Iterable[str | None], title: Iterable[str]) -> list[str | None]:
    """The occupation of each job as a code or the source's own word in lower case; None where unknown.

    Args:
        occupation: as given by the source; None or blank where it has none.
        title: the job titles.
    """
    by_title, by_name = _index()
    found = functools.cache(lambda text: _longest(vocabulary.key(text).split(), by_title))
    named = functools.cache(lambda text: by_name.get(vocabulary.key(text), text.strip().lower()))
    return [named(given) if given and given.strip() else found(text) for given, text in zip(occupation, title, strict=True)]


def _longest(words: list[str], known: dict[str, str]) -> str | None:
    for length in range(min(len(words), 8), 0, -1):
        for start in range(len(words) - length + 1):
            if code := known.get(" ".join(words[start : start + length])):
                return code
    return None


@functools.cache
def _index() -> tuple[dict[str, str], dict[str, str]]:
    """Code by title key and by occupation name key; a title of several occupations goes to the one it names best."""
    titles = vocabulary.titles()
    rank = {"occupation": 0, "reported": 1, "alternate": 2}
    kind = pa.array([rank[value] for value in titles.column("kind").to_pylist()])
    rows = titles.append_column("rank", kind).sort_by([("rank", "ascending")])
    by_title: dict[str, str] = {}
    by_name: dict[str, str] = {}
    named = functools.cache(vocabulary.key)  # an occupation has some sixty titles
    for text, code, name in zip(
        *(rows.column(c).to_pylist() for c in ("title", "occupation", "occupation_title")), strict=True
    ):
        by_title.setdefault(vocabulary.key(text), code)
        by_name.setdefault(named(name), code)
    return by_title, by_name
