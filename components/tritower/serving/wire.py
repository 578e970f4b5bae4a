"""A search as JSON, and its answer: the fields of `POST /rank`, which the other doors use too.

Nothing is converted: "5" is no number.
"""

import difflib
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from tritower.serving import messages
from tritower.serving.config import ServeConfig
from tritower.serving.refusal import LONGEST_ID, Refusal, quoted

_Id = Annotated[str, Field(min_length=1, max_length=256)]
_Text = Annotated[str, Field(max_length=1_000)]
_Time = Annotated[int, Field(ge=0, lt=4_102_444_800_000_000, description="microseconds since 1970, UTC")]
_ANSWER = TypeAdapter(messages.Answer)
_MOST = 1_000
"""Longest history: clicks, searches, employers, titles each."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class PastClick(_Strict):
    """A click that the caller knows of."""

    job_id: _Id
    ts: _Time
    query: _Text = Field("", description="the search it was shown for")


class PastSearch(_Strict):
    """A search that the caller knows of."""

    query: _Text
    ts: _Time


class Visitor(_Strict):
    """Who searches, described here instead of looked up."""

    interests: list[_Text] = Field([], max_length=_MOST, description="wanted titles")
    past_titles: list[_Text] = Field([], max_length=_MOST, description="titles held before")
    clicks: list[PastClick] = Field([], max_length=_MOST)
    searches: list[PastSearch] = Field([], max_length=_MOST)


class Near(_Strict):
    """A distance from a place: by a name that the catalogue knows, by coordinates, or else from the place searched in."""

    km: float = Field(gt=0, le=20_040)
    place: _Text | None = Field(None, min_length=1, description="such as Austin, TX: the middle of the jobs there")
    latitude: float | None = Field(None, ge=-90, le=90, description="degrees; with longitude, and without place")
    longitude: float | None = Field(None, ge=-180, le=180)

    @model_validator(mode="after")
    def _one_middle(self) -> Self:
        if (self.latitude is None) != (self.longitude is None):
            raise ValueError("latitude and longitude go together")
        if self.place is not None and self.latitude is not None:
            raise ValueError("give a place or coordinates, not both")
        return self


class Filters(_Strict):
    """Hard conditions on the jobs."""

    city: _Text | None = None
    region: _Text | None = None
    country: _Text | None = None
    near: Near | None = Field(None, description="jobs without coordinates are left out; the answer's warnings count them")
    posted_since: _Time | None = None
    without_companies: list[_Text] = Field([], max_length=_MOST)


class Search(_Strict):
    """A search that waits for its jobs."""

    query: str = Field("", description="what was typed; may be empty")
    user_id: str = Field("", max_length=256, description="who searches; empty = nobody known")
    visitor: Visitor | None = Field(None, description="takes the place of what is known of user_id")
    city: _Text | None = None
    region: _Text | None = None
    country: _Text | None = None
    ts: _Time | None = Field(None, description="microseconds since 1970, UTC; absent = as the server's as_of says")
    candidates: list[_Id] | None = Field(None, description="rank these jobs; absent = retrieve")
    k: int = Field(10, ge=1, description="jobs in the answer")
    filters: Filters | None = None
    explain: bool = Field(False, description="say why each job is there")
    features: bool = Field(False, description="give the features of each job, as the model read them")
    request_id: str = Field("", max_length=LONGEST_ID, pattern=r"^[\w.:-]*$", description="empty = one is made")

    def question(self, config: ServeConfig, request_id: str, where: str = "") -> messages.Question:
        """The same as the ranking takes it.

        Args:
            config: the server's limits.
            request_id: for a search that brings none.
            where: goes before a field's name in an error.

        Raises:
            Refusal: a field is over its limit.
        """
        _within(len(self.query), config.max_query_chars, "characters", f"{where}query")
        _within(self.k, config.max_k, "jobs", f"{where}k")
        _within(len(self.candidates or ()), config.max_candidates, "candidates", f"{where}candidates")
        plain = self.model_dump(exclude={"visitor", "filters", "candidates", "features"})
        return messages.Question(
            **plain | {"request_id": self.request_id or request_id},
            visitor=None if self.visitor is None else _visitor(self.visitor),
            filters=messages.Filters() if self.filters is None else _filters(self.filters),
            candidates=None if self.candidates is None else tuple(self.candidates),
            with_features=self.features,
        )


def told(answer: messages.Answer) -> bytes:
    """An answer as JSON. Reasons and features are in it where they were asked for; a missing feature is null."""
    left_out: dict[str, Any] = {} if answer.features else {"features": True}
    of_jobs = {name for name in ("features", "reasons") if all(getattr(job, name) is None for job in answer.jobs)}
    left_out |= {"jobs": {"__all__": of_jobs}} if of_jobs else {}
    left_out |= {"median_score": True} if answer.median_score is None else {}
    return _ANSWER.dump_json(answer, exclude=left_out)


def _visitor(given: Visitor) -> messages.Visitor:
    return messages.Visitor(
        interests=tuple(given.interests),
        past_titles=tuple(given.past_titles),
        clicks=tuple(messages.PastClick(**one.model_dump()) for one in given.clicks),
        searches=tuple(messages.PastSearch(**one.model_dump()) for one in given.searches),
    )


def _filters(given: Filters) -> messages.Filters:
    plain = given.model_dump(exclude={"without_companies", "near"})
    near = None if given.near is None else messages.Near(**given.near.model_dump())
    return messages.Filters(**plain, near=near, without_companies=tuple(given.without_companies))


def _within(count: int, most: int, unit: str, where: str) -> None:
    if count > most:
        raise Refusal(422, f"{count:,} {unit} are too many", where=where, remedy=f"Give {most:,} at most.")


def invalid(errors: list[Any], before: str = "") -> Refusal:
    """The refusal for what pydantic found in a body: 400 where it is no JSON, else 422.

    Args:
        errors: of a ValidationError.
        before: goes before the field's name.
    """
    first = errors[0]
    path = [str(part) for part in first["loc"] if part != "body"]
    where = before + ".".join(path)
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "json_invalid":
        said = (first.get("ctx") or {}).get("error", first["msg"])
        return Refusal(400, f"the body is not JSON: {said}", where=where or "body", remedy="Check brackets, quotes, encoding.")
    if first["type"] == "extra_forbidden":
        return Refusal(422, f"unknown field{more}", where=where, remedy=_near(path[-1]))
    if not path:
        remedy = 'Give a JSON object such as {"query": "nurse", "k": 10}, with Content-Type: application/json.'
        return Refusal(422, f"the body does not fit: {first['msg']}", where="body", remedy=remedy)
    problem = f"{quoted(first.get('input'))} does not fit: {first['msg']}{more}"
    return Refusal(422, problem, where=where, remedy="The fields are described in /openapi.json.")


def _near(name: str) -> str:
    known = {field for kind in (Search, Filters, Near, Visitor, PastClick, PastSearch) for field in kind.model_fields}
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else "Leave it out; the fields are described in /openapi.json."
