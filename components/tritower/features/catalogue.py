"""Every feature: its name, kind, definition, unit, range and what a missing value means. The one list of them.

`FEATURES` is in column order; the groups of `GROUPS` are computed together and lie side by side.
"""

from dataclasses import asdict, dataclass
from typing import Any

from tritower.features import counters, history


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of the features table, as written to features.json.

    Attributes:
        kind: popularity, text, interaction, profile, embedding, place or time.
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


def _popularity(level: str) -> list[Feature]:
    of = {"job": "this job", "occupation": "jobs of this occupation", "company": "jobs of this company"}[level]
    unknown = "" if level == "job" else f" or the {level} is unknown" if level == "occupation" else ""
    never = f"{of} never shown before{unknown}"
    count_missing = "the occupation is unknown" if level == "occupation" else "never"
    return [
        Feature(name=f"{level}_impressions", kind="popularity", definition=f"Times {of} had been shown.", unit="ln(1 + count)",
                low=0, high=None, missing=count_missing),
        Feature(name=f"{level}_clicks", kind="popularity", definition=f"Clicks on {of}.", unit="ln(1 + count)",
                low=0, high=None, missing=count_missing),
        Feature(name=f"{level}_ctr", kind="popularity", definition=f"Click-through rate of {of}, smoothed with a Beta prior "
                "fitted on the events before.", unit="share", low=0, high=1, missing=never),
        Feature(name=f"{level}_ctr_decayed", kind="popularity", definition="The same, events weighted 2^(-age / half-life).",
                unit="share", low=0, high=None, missing=never),
        Feature(name=f"{level}_coec", kind="popularity", definition=f"Clicks on {of} over the clicks expected at the positions "
                "it was shown at, smoothed towards 1.", unit="ratio", low=0, high=None, missing=never),
    ]  # fmt: skip


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
    "profile": _profile(),
    "embedding": [
        Feature(name="query_document_cos", kind="embedding", definition="Cosine of the query and the document.", unit="cosine",
                low=-1, high=1, missing="the query is empty", needs_embeddings=True),
    ],
    "places": _places(),
    "time": _TIME,
}  # fmt: skip
FEATURES: list[Feature] = [feature for group in GROUPS.values() for feature in group]
NAMES: list[str] = [feature.name for feature in FEATURES]

assert [f.name for f in GROUPS["counters"]] == counters.names()
assert [f.name for f in GROUPS["history"]] == list(history.NAMES)


def columns(group: str) -> slice:
    """Where a group's columns lie."""
    start = NAMES.index(GROUPS[group][0].name)
    return slice(start, start + len(GROUPS[group]))
