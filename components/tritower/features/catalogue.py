"""Every feature: its name, kind, definition, unit, range and what a missing value means. The one list of them.

The features of a group in `GROUPS` are computed together and lie side by side, group after group.
"""

import functools
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from tritower import vocabulary
from tritower.features import counters, entities, history


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of the features table, as written to features.json.

    Attributes:
        kind: popularity, text, entity, interaction, profile, embedding, place or time.
        low, high: bounds of the values, both inclusive; None = unbounded.
        missing: when the value is null.
        needs_embeddings: computed from vectors, so left out by a baseline without them.
    """

    name: str
    kind: str
    definition: str
    unit: str
    low: float | None
    high: float | None
    missing: str
    needs_embeddings: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


_LEVELS = {
    "job": ("this job", ""),
    "occupation": ("jobs of this occupation", "the occupation is unknown"),
    "company": ("jobs of this company", "the company is blank"),
    "query": ("jobs for this query", "the query is empty"),
    "query_occupation": ("jobs of this occupation for this query", "the query is empty or the occupation unknown"),
}


def _popularity(level: str) -> list[Feature]:
    of, unknown = _LEVELS[level]
    never = f"{of} never shown before" + (f", or {unknown}" if unknown else "")
    rows = [
        ("impressions", f"Times {of} had been shown.", "ln(1 + count)", None, unknown or "never"),
        ("clicks", f"Clicks on {of}.", "ln(1 + count)", None, unknown or "never"),
        ("ctr", f"Click-through rate of {of}, smoothed with a Beta prior fitted on the events before.", "share", 1, never),
        ("ctr_decayed", f"Click-through rate of {of}, events weighted 2^(-age / half-life).", "share", None, never),
        ("coec", f"Clicks on {of} over those expected at the positions shown at, smoothed towards 1.", "ratio", None, never),
    ]
    return [
        Feature(name=f"{level}_{what}", kind="popularity", definition=definition, unit=unit, low=0, high=high, missing=missing)
        for what, definition, unit, high, missing in rows
        if f"{level}_{what}" in counters.names()
    ]


def _text(target: str, scorers: tuple[str, ...]) -> list[Feature]:
    what = {
        "token_set": "Token-set ratio", "token_sort": "Token-sort ratio", "partial": "Partial ratio",
        "jaro_winkler": "Jaro-Winkler similarity",
    }  # fmt: skip
    return [
        Feature(name=f"{target}_{s}", kind="text", definition=f"{what[s]} of the query and the job's {target}.", unit="share",
                low=0, high=1, missing=f"the query or the {target} is empty")
        for s in scorers
    ]  # fmt: skip


def _history() -> list[Feature]:
    none = "the user never clicked before"
    rows = [
        ("history_cos_centroid", "Cosine of the document and the decayed centroid of the user's clicked documents.", "cosine"),
        ("history_cos_max", "Largest cosine of the document and one the user clicked.", "cosine"),
        ("history_cos_last", "Cosine of the document and the last one the user clicked.", "cosine"),
        ("history_same_company", "Share of the user's clicks on this company.", "share"),
        ("history_same_city", "Share of the user's clicks on jobs in this city.", "share"),
        ("history_same_occupation", "Share of the user's clicks on this occupation.", "share"),
        ("history_same_job", "Share of the user's clicks on this very job.", "share"),
        ("history_clicks", "The user's clicks.", "ln(1 + count)"),
        ("history_days_since_click", "Time since the user's last click.", "days"),
    ]
    unknown = {
        "history_same_city": f"{none} or the job's city is unknown",
        "history_same_occupation": f"{none} or the occupation is unknown",
        "history_clicks": "never",
    }
    return [
        Feature(name=name, kind="interaction", definition=definition, unit=unit, low=-1 if unit == "cosine" else 0,
                high=1 if unit in ("cosine", "share") else None, missing=unknown.get(name, none),
                needs_embeddings=unit == "cosine")
        for name, definition, unit in rows
    ]  # fmt: skip


def _searches() -> list[Feature]:
    none = "the user never searched with words before"
    rows = [
        ("searches_cos_centroid", "Cosine of the document and the decayed centroid of the user's past queries.", "cosine"),
        ("searches_cos_max", "Largest cosine of the document and a past query of the user.", "cosine"),
        ("searches_cos_last", "Cosine of the document and the user's query before this one.", "cosine"),
        ("searches_same_query", "Share of the user's past queries that equal this one.", "share"),
        ("searches", "The user's past searches with words.", "ln(1 + count)"),
        ("searches_days_since", "Time since the user's search before this one.", "days"),
    ]
    unknown = {"searches": "never", "searches_same_query": f"{none}, or the query is empty"}
    return [
        Feature(name=name, kind="interaction", definition=definition, unit=unit, low=-1 if unit == "cosine" else 0,
                high=1 if unit in ("cosine", "share") else None, missing=unknown.get(name, none),
                needs_embeddings=unit == "cosine")
        for name, definition, unit in rows
    ]  # fmt: skip


def _entities() -> list[Feature]:
    of = dict.fromkeys(entities.LABELS[: entities.OF_TITLE], "title") | {"COMPANY": "employer", "PLACE": "place"}
    rows = [
        Feature(name=f"entity_{label.lower()}_overlap", kind="entity", definition=f"Share of the query's {label} entities that "
                f"the job's {side} has.", unit="share", low=0, high=1,
                missing=f"no {label} in the query or in the job's {side}")
        for label, side in of.items()
    ]  # fmt: skip
    neither = "no TITLE in the query or in the job's title"
    rows.append(Feature(name="entity_title_words", kind="entity", definition="Words that the TITLE entities of query and title "
                        "share, over all their words.", unit="share", low=0, high=1, missing=neither))  # fmt: skip
    rows += [
        Feature(name=f"entity_{word}_exact", kind="entity", definition=f"The {word.upper()} entities of query and title are "
                "the same.", unit="0 or 1", low=0, high=1, missing=neither.replace("TITLE", word.upper()))
        for word in ("title", "skill")
    ]  # fmt: skip
    top = len(vocabulary.LEVELS) - 1
    for side, whose in (("query", "the query's"), ("user", "the highest of the user's past titles'")):
        rows.append(Feature(name=f"seniority_{side}_distance", kind="entity", definition=f"Level of the job's title minus "
                    f"{whose}.", unit="levels", low=-top, high=top, missing="no level on either side"))  # fmt: skip
    return rows


def _places() -> list[Feature]:
    sides = (("query", "the place searched in"), ("home", "the user's home"))
    rows = [
        Feature(name=f"{side}_{level}_match", kind="place", definition=f"The job is in the same {level} as {whose}.",
                unit="0 or 1", low=0, high=1, missing=f"the {level} is unknown on either side")
        for side, whose in sides
        for level in ("city", "region", "country")
    ]  # fmt: skip
    rows += [
        Feature(name="job_remote", kind="place", definition="The job's title or place speaks of remote work.", unit="0 or 1",
                low=0, high=1, missing="never"),
        Feature(name="query_remote", kind="place", definition="The query or the place searched in speaks of remote work.",
                unit="0 or 1", low=0, high=1, missing="never"),
    ]  # fmt: skip
    return rows


def _profile() -> list[Feature]:
    rows = []
    for side, what in (("wanted", "wanted titles"), ("past", "past titles")):
        none = f"the user has no {what}, or the job's title is empty"
        rows.append(Feature(name=f"{side}_cos_max", kind="profile", definition=f"Largest cosine of the job's title and one of "
                    f"the user's {what}.", unit="cosine", low=-1, high=1, missing=none, needs_embeddings=True))  # fmt: skip
        rows.append(Feature(name=f"{side}_token_set_max", kind="profile", definition=f"Largest token-set ratio of the job's "
                    f"title and one of the user's {what}.", unit="share", low=0, high=1, missing=none))  # fmt: skip
    return rows


_TIME = [
    Feature(name="job_age_days", kind="time", definition="Time since the job was posted.", unit="days", low=0, high=None,
            missing="no date of posting, or one after the row"),
    Feature(name="hour_of_week", kind="time", definition="Hour of the week in UTC, 0 is Monday 00:00.", unit="hour",
            low=0, high=167, missing="never"),
]  # fmt: skip

GROUPS: dict[str, list[Feature]] = {
    "counters": [
        *(feature for level in counters.LEVELS for feature in _popularity(level)),
        Feature(name="job_first_shown_days", kind="popularity", definition="Time since this job was first shown.", unit="days",
                low=0, high=None, missing="this job never shown before"),
    ],
    "title": _text("title", ("token_set", "token_sort", "partial", "jaro_winkler")),
    "company": _text("company", ("token_set", "partial", "jaro_winkler")),
    "history": _history(),
    "searches": _searches(),
    "profile": _profile(),
    "embedding": [
        Feature(name="query_document_cos", kind="embedding", definition="Cosine of the query and the document.", unit="cosine",
                low=-1, high=1, missing="the query is empty", needs_embeddings=True),
    ],
    "places": _places(),
    "time": _TIME,
    "entities": _entities(),
}  # fmt: skip
assert [f.name for f in GROUPS["counters"]] == counters.names()
assert [f.name for f in GROUPS["history"]] == list(history.NAMES)
assert [f.name for f in GROUPS["searches"]] == list(history.SEARCH_NAMES)
assert [f.name for f in GROUPS["entities"]] == list(entities.NAMES)


HISTORY = ("counters", "history", "searches")  # the groups that depend on earlier rows


class Layout:
    """Which features a run has and where each group's columns lie.

    Args:
        groups: names in `GROUPS`; the columns are in the order of that table.
    """

    def __init__(self, groups: Collection[str]) -> None:
        self.groups = {name: group for name, group in GROUPS.items() if name in groups}
        self.features = [feature for group in self.groups.values() for feature in group]
        self.names = [feature.name for feature in self.features]

    def columns(self, group: str) -> slice:
        """Where a group's columns lie."""
        start = self.names.index(self.groups[group][0].name)
        return slice(start, start + len(self.groups[group]))


@functools.cache
def whole_layout(*, with_entities: bool) -> Layout:
    """All features; those of entities need the entities step."""
    return Layout([name for name in GROUPS if with_entities or name != "entities"])


@functools.cache
def static_layout(*, with_entities: bool) -> Layout:
    """Those that depend on no other row."""
    return Layout([name for name in GROUPS if name not in HISTORY and (with_entities or name != "entities")])


def markdown() -> str:
    """The table of all features for the documentation."""
    lines = ["| name | kind | definition | unit | range | missing when |", "|---|---|---|---|---|---|"]
    for group in GROUPS.values():
        for f in group:
            low, high = ("" if bound is None else f"{bound:g}" for bound in (f.low, f.high))
            kind = f"{f.kind} *" if f.needs_embeddings else f.kind
            lines.append(f"| {f.name} | {kind} | {f.definition} | {f.unit} | {low} … {high} | {f.missing} |")
    return "\n".join(lines) + "\n"
