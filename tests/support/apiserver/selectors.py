"""labelSelector and fieldSelector."""

import re
from collections.abc import Callable
from typing import Any

from tests.support.apiserver import answers
from tests.support.apiserver.kinds import Kind

Object = dict[str, Any]
Test = Callable[[Object], bool]
_TERM = re.compile(r"^(!?)([\w./-]+)\s*(?:(==|=|!=)\s*([\w.-]*)|\s(in|notin)\s*\(([^)]*)\))?$")


def matcher(kind: Kind, query: dict[str, str]) -> Test:
    """The test of both selectors of a query. Raises: Refused: 400."""
    labels = [_label(one) for one in _split(query.get("labelSelector", ""))]
    fields = [_field(kind, one) for one in _split(query.get("fieldSelector", ""))]
    return lambda item: all(test(item) for test in (*labels, *fields))


def _split(text: str) -> list[str]:
    return [one.strip() for one in re.split(r",(?![^(]*\))", text) if one.strip()]


def _label(term: str) -> Test:
    found = _TERM.match(term)
    if not found:
        wrong = "=" if "=" in term else term
        raise answers.bad_request(f"unable to parse requirement: found '{wrong}', expected: identifier")
    absent, key, sign, value, word, values = found.groups()
    among = [one.strip() for one in (values or "").split(",")]

    def test(item: Object) -> bool:
        labels = item["metadata"].get("labels") or {}
        if word:
            return (key in labels and labels[key] in among) == (word == "in")
        if not sign:
            return (key in labels) != bool(absent)
        return bool(labels.get(key) == value) == (sign != "!=")

    return test


def _field(kind: Kind, term: str) -> Test:
    key, sign, value = re.match(r"([^!=]*)(==|=|!=)(.*)", term).groups() if "=" in term else (term, "=", "")  # type: ignore[union-attr]
    if key not in ("metadata.name", "metadata.namespace", *kind.fields):
        raise answers.bad_request(f"field label not supported: {key}")

    def test(item: Object) -> bool:
        found: Any = item
        for part in key.split("."):
            found = found.get(part, "") if isinstance(found, dict) else ""
        return bool(found == value) == (sign != "!=")

    return test
