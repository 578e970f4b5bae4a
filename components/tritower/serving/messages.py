"""What goes into the ranking and what comes out, whichever door it took: plain values, no HTTP.

`ranking.Ranking` answers them; `app.py` turns JSON into them and back.
"""

from dataclasses import dataclass, field
from typing import Literal

Ranker = Literal["a", "b"]
Team = Literal["a", "b", ""]


@dataclass(frozen=True, kw_only=True)
class PastClick:
    """A click that the caller knows of and the state does not.

    Attributes:
        job_id: what was clicked.
        ts: microseconds since 1970, UTC.
        query: the search it was shown for; may be empty.
    """

    job_id: str
    ts: int
    query: str = ""


@dataclass(frozen=True, kw_only=True)
class PastSearch:
    """A search that the caller knows of and the state does not; `ts` in microseconds since 1970, UTC."""

    query: str
    ts: int


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Somebody who searches, described in the request instead of looked up.

    Attributes:
        interests: wanted titles.
        past_titles: titles held before.
        clicks: past clicks, in any order.
        searches: past searches, in any order.
    """

    interests: tuple[str, ...] = ()
    past_titles: tuple[str, ...] = ()
    clicks: tuple[PastClick, ...] = ()
    searches: tuple[PastSearch, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Near:
    """A circle around a point of the globe. A job without coordinates lies in none.

    Attributes:
        km: great-circle distance from its middle.
        place: the middle, as somebody types it: the middle of the jobs there. None, and no coordinates: the place searched in.
        latitude, longitude: the middle in degrees; both, or neither.
    """

    km: float
    place: str | None = None
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Hard conditions on the jobs; an absent one lets every job through.

    Attributes:
        city, region, country: the job's place must equal these, letter case aside.
        near: the job must lie within this; needs jobs with coordinates.
        posted_since: microseconds since 1970, UTC; older adverts are left out.
        without_companies: employers to leave out, letter case and outer white space aside.
    """

    city: str | None = None
    region: str | None = None
    country: str | None = None
    near: Near | None = None
    posted_since: int | None = None
    without_companies: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Question:
    """A search that waits for its jobs.

    Attributes:
        query: what was typed; may be empty.
        user_id: who searches; empty = nobody known.
        visitor: who searches, described here; takes the place of what is known of `user_id`.
        city, region, country: where; None = unknown.
        ts: its time in microseconds since 1970, UTC; None = now. A server may say otherwise (`ServeConfig.as_of`).
        candidates: rank these jobs; None = retrieve.
        k: jobs in the answer, at least 1.
        filters: hard conditions.
        explain: say why each job is there.
        request_id: the caller's; empty = one is made.
        with_features: give the features of each job as well, for the log.
    """

    query: str = ""
    user_id: str = ""
    visitor: Visitor | None = None
    city: str | None = None
    region: str | None = None
    country: str | None = None
    ts: int | None = None
    candidates: tuple[str, ...] | None = None
    k: int = 10
    filters: Filters = field(default_factory=Filters)
    explain: bool = False
    request_id: str = ""
    with_features: bool = False


@dataclass(frozen=True, kw_only=True)
class Reason:
    """A group of features and what it adds to the logit of the job's score, against the list's median job."""

    group: str
    value: float


@dataclass(frozen=True, kw_only=True)
class RankedJob:
    """A job of the answer.

    Attributes:
        rank: 1 is the best.
        score: probability of a click at the top position.
        posted_at: microseconds since 1970, UTC; None = unknown.
        propensity: probability with which this job came to this rank; 1 unless the list was shuffled.
        reasons: exact Shapley values, largest magnitude first; None unless asked for.
        features: as the model read them, in the order of the answer's `features`, NaN = missing; None unless asked for.
    """

    job_id: str
    rank: int
    score: float
    title: str
    company: str
    city: str | None = None
    region: str | None = None
    posted_at: int | None = None
    propensity: float = 1.0
    reasons: tuple[Reason, ...] | None = None
    features: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Versions:
    """What answered.

    Attributes:
        bundle: the bundle's hash.
        name: the bundle's name in this server (`main` where there is one only): the arm of an experiment.
        model, encoder, catalogue: hashes of the parts.
        state: time of the last event in the features' state, ISO 8601, UTC.
    """

    bundle: str
    name: str
    model: str
    encoder: str
    catalogue: str
    state: str


@dataclass(frozen=True, kw_only=True)
class Interleaved:
    """How a list of two bundles came about; tuples have a value for each of the answer's jobs.

    Attributes:
        salt: of the coins.
        other: bundle b; the answer's `versions` are bundle a's. None where one failed: `versions` are then of the one left.
        failed: the bundle that failed; the list is the other's.
        teams: whose pick each job was; empty = of both, or of none.
        sources: which bundle's score, reasons and features it has.
        ranks: its rank in that bundle's list.
    """

    salt: str
    other: Versions | None
    teams: tuple[Team, ...]
    sources: tuple[Ranker, ...]
    ranks: tuple[int, ...]
    failed: Team = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Ranked jobs, best first.

    Attributes:
        ts: the time that it was answered for, microseconds since 1970, UTC.
        unknown: candidates that the catalogue does not have, as asked for.
        randomised: the list was shuffled, so that later tests can learn from it.
        features: names of the features of each job; empty unless asked for.
        median_score: score of the candidates' median job; a job's reasons add up to the logit of its score less that of this.
            None unless asked to explain, and where two bundles were interleaved: they have a median each.
        interleaved: set where the list is, or was to be, of two bundles.
        warnings: what the caller should know before believing it, a sentence each: that the state is old, say.
    """

    request_id: str
    ts: int
    jobs: tuple[RankedJob, ...]
    versions: Versions
    unknown: tuple[str, ...] = ()
    randomised: bool = False
    features: tuple[str, ...] = ()
    median_score: float | None = None
    interleaved: Interleaved | None = None
    warnings: tuple[str, ...] = ()
