"""What a server does besides answering: takes events, counts them, assigns arms, shuffles a few lists, logs what it served.

One process takes events and writes the journal (`takes_events`); every process that answers follows it.
"""

import dataclasses
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import Gauge, Histogram
from pydantic import BaseModel, ConfigDict, Field

from tritower.assignment import Assignment, Experiment
from tritower.config import check
from tritower.errors import ConfigError, OverloadError, TritowerError
from tritower.serving import retention
from tritower.serving.doors import REFUSED, Refused
from tritower.serving.interleaved import Interleave
from tritower.serving.journal import Journal, JournalConfig
from tritower.serving.messages import Answer, Question
from tritower.serving.refusal import Refusal
from tritower.serving.retention import Retention
from tritower.serving.served import ServedConfig, ServedLog
from tritower.serving.shuffling import shuffled
from tritower.serving.tailing import Follower

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tritower.serving.ranking import Ranking
    from tritower.serving.service import Service

_log = logging.getLogger(__name__)
_EXPIRE_S = 3_600.0
_LAGS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 2.0, 5.0, 10.0, 60.0, 600.0)


@dataclass(frozen=True, kw_only=True)
class FeedConfig:
    """Events, exposure and what is kept of them. All of it is off by default."""

    journal: str = ""
    """Location of the journal of events; empty = no events are counted."""
    takes_events: bool = True
    """Take events (`POST /events`) and write the journal. One process does; the others only follow."""
    events_at: str = ""
    """Address of the server that takes events (http://host:port or https://), for one that does not: whoever posts events here
    is sent there. Empty = they are told that another server takes events."""
    poll_s: float = 0.5
    """Seconds between looks into a journal that another process writes, above 0."""
    served: str = ""
    """Location of the log of what was served; empty = none."""
    shuffle_share: float = 0.0
    """Share of lists whose first positions are shuffled, 0 to 1."""
    shuffle_top: int = 10
    """Positions to shuffle, 2 or more."""
    experiment: Experiment | None = None
    """Whose arms name the bundles of this server; None = everybody gets `main`."""
    interleave: Interleave | None = None
    """Who gets lists of both bundles' jobs; None = nobody. Not together with an experiment. These lists are never shuffled."""
    writing: JournalConfig = field(default_factory=JournalConfig)
    """How events are taken."""
    logging: ServedConfig = field(default_factory=ServedConfig)
    """How what was served is logged."""
    retention: Retention = field(default_factory=Retention)
    """How long journal and log are kept; the process that takes events removes what is older, once an hour."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        is_address = not self.events_at or self.events_at.startswith(("http://", "https://"))
        check(is_address, "events_at", self.events_at, "that begins with http:// or https://")
        check(self.poll_s > 0, "poll_s", self.poll_s, "above 0")
        check(0 <= self.shuffle_share <= 1, "shuffle_share", self.shuffle_share, "from 0 to 1")
        check(self.shuffle_top >= 2, "shuffle_top", self.shuffle_top, "of at least 2")
        if self.experiment and self.interleave:
            problem = "the bundles of an experiment's arms would be interleaved"
            raise ConfigError(problem, where="experiment, interleave", remedy="Give one of the two.")


class Event(BaseModel):
    """An impression or a click."""

    model_config = ConfigDict(extra="forbid")
    request_id: str = Field(description="The search it belongs to: what /rank gave.")
    job_id: str
    ts: int | str = Field(description="When it was shown: microseconds since 1970, or ISO 8601 with a zone.")
    user_id: str = Field(description="Who searched; of somebody unknown an id of the visit's.")
    query: str = Field(description="What was typed; may be empty.")
    event: str = Field("impression", description="impression or click")
    clicked: bool | None = None
    clicked_at: int | str | None = None
    position: int | None = None
    city: str | None = None
    region: str | None = None
    country: str | None = None
    randomised: bool | None = None


class Events(BaseModel):
    """What happened. Rows of one search belong into one call; either all rows are taken, or none."""

    model_config = ConfigDict(extra="forbid")
    events: list[Event] = Field(max_length=1_000)


class Taken(BaseModel):
    """The events are safe. `repeated` ones were known already."""

    taken: int
    repeated: int


class Feed:
    """The part of a server that deals with events and exposure.

    Raises:
        StorageError: the journal cannot be opened, or another process takes events.
        ArtifactError: the journal is damaged.
    """

    def __init__(self, config: FeedConfig) -> None:
        self.config = config
        takes = bool(config.journal) and config.takes_events
        self.journal = Journal(config.journal, config.writing) if takes else None
        self.served = ServedLog(config.served, config.logging) if config.served else None
        self._followers: dict[str, Follower] = {}
        self._ended, self._next_expiry = threading.Event(), time.monotonic()
        self._thread = threading.Thread(target=self._keep, name="feed", daemon=True)
        self._gauges: dict[str, Gauge] = {}
        self._lags: Histogram | None = None

    def attach(self, ranking: "Ranking") -> None:
        """Let a bundle count all events that are there, and then those that come, in place of the one of the same name.

        Raises:
            StorageError: the journal cannot be read.
            ArtifactError: it is damaged.
        """
        if not self.config.journal:
            return
        name = ranking.versions.name
        wake = self.journal.written if self.journal and name == "main" else None
        known, poll_s = ranking.known(), self.config.poll_s
        follower = Follower(self.config.journal, ranking.observe, known, poll_s=poll_s, wake=wake, counted=self._counted)
        follower.catch_up()
        before = self._followers.get(name)
        if before:
            before.stop()
        self._followers[name] = follower
        follower.start()

    def mount(self, app: "FastAPI", service: "Service") -> None:
        """Add `POST /events`, figures and hooks to a server.

        Raises:
            ConfigError: an arm, or an interleaved ranker, has no bundle.
        """
        self._check_arms(service)
        service.arm, service.ask, service.finish = self.arm, self.ask, self.finish
        service.interleave = self.config.interleave
        registry = service.metrics.registry
        of, live = ["what"], {"multiprocess_mode": "livesum", "registry": registry}
        self._gauges = {
            "events": Gauge("tritower_events", "Events since the start, by what became of them", of, **live),  # type: ignore[arg-type]
            "counted": Gauge("tritower_events_counted", "Events of the journal in this process's features", of, **live),  # type: ignore[arg-type]
            "served": Gauge("tritower_served_rows", "Rows of the log of what was served", of, **live),  # type: ignore[arg-type]
            "behind": Gauge(
                "tritower_events_behind_seconds", "Age of the oldest event not counted", multiprocess_mode="livemax",
                registry=registry,
            ),
            "record": Gauge(
                "tritower_events_record", "Number of the journal's last record counted, of the process that is furthest behind",
                multiprocess_mode="livemin", registry=registry,
            ),
        }  # fmt: skip
        said = "From a record's being taken, by the clock of its writer, to its being counted in this process's features"
        self._lags = Histogram("tritower_events_lag_seconds", said, buckets=_LAGS_S, registry=registry)
        if self.journal:
            refused = {status: one for status, one in REFUSED.items() if status != 404}
            app.post("/events", response_model=Taken, responses=refused, summary="Take impressions and clicks")(self._take)
        elif self.config.journal:
            status, described = (307, "It is there: Location") if self.config.events_at else (421, "Another server does")
            responses = {status: {"model": Refused, "description": f"This server takes no events. {described}"}}
            summary = "Say who takes impressions and clicks"
            app.post("/events", status_code=status, responses=responses, summary=summary)(self._elsewhere)  # type: ignore[arg-type]
        self._thread.start()

    def arm(self, question: Question) -> str | None:
        """The bundle for whoever asks; None = `main`."""
        return self._assigned(question).arm or None if self.config.experiment else None

    def ask(self, question: Question) -> Question:
        """The question, with the features where the log wants them."""
        wants = self.served is not None and self.config.logging.features
        return dataclasses.replace(question, with_features=True) if wants else question

    def finish(self, question: Question, answer: Answer) -> Answer:
        """The answer as it is sent; it is logged."""
        if answer.interleaved is None:
            answer = shuffled(answer, share=self.config.shuffle_share, top=self.config.shuffle_top)
        if self.served:
            self.served.put(question, answer, self._assigned(question) if self.config.experiment else None)
        if answer.features and not question.with_features:
            jobs = tuple(dataclasses.replace(job, features=None) for job in answer.jobs)
            answer = dataclasses.replace(answer, jobs=jobs, features=())
        return answer

    def close(self) -> None:
        """Write what waits, and end."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        for follower in self._followers.values():
            follower.stop()
        if self.journal:
            self.journal.close()
        if self.served:
            self.served.close()

    def _counted(self, lag_s: float) -> None:
        if self._lags:
            self._lags.observe(lag_s)

    def _assigned(self, question: Question) -> Assignment:
        assert self.config.experiment
        return self.config.experiment.assign(question.user_id)

    def _check_arms(self, service: "Service") -> None:
        needed = {arm.name: "experiment.arms" for arm in (self.config.experiment.arms if self.config.experiment else ())}
        if self.config.interleave:
            needed[self.config.interleave.other] = "interleave.other"
        for name, where in needed.items():
            try:
                service.holder.get(name)
            except (ConfigError, KeyError):
                what = "the arm" if self.config.experiment else "the ranker"
                remedy = "The bundles are called main and other; give the second one (--other)."
                raise ConfigError(f"{what} {name!r} has no bundle", where=where, remedy=remedy) from None

    def _take(self, sent: Events) -> Taken:
        assert self.journal
        try:
            receipt = self.journal.take([event.model_dump(exclude_none=True) for event in sent.events])
        except OverloadError as error:
            raise Refusal(
                503, error.problem, where=error.where, remedy=error.remedy, headers={"Retry-After": "1"}
            ) from None  # fmt: skip
        return Taken(taken=receipt.taken, repeated=receipt.repeated)

    def _elsewhere(self) -> None:
        """RFC 9110: 307 keeps method and body; 421 is of a server that cannot answer for this address, where another can."""
        problem, there = "this server only follows the journal, another one takes events", self.config.events_at.rstrip("/")
        if there:
            headers = {"Location": f"{there}/events"}
            raise Refusal(307, problem, where="POST /events", remedy=f"Send them to {there}/events.", headers=headers)
        remedy = "Send them to the server that writes the journal (its takes_events is true)."
        raise Refusal(421, problem, where="POST /events", remedy=remedy)

    def _keep(self) -> None:
        """Figures every second, and what is too old once an hour."""
        while not self._ended.wait(1.0):
            self._show()
            if self.journal and time.monotonic() >= self._next_expiry:
                self._next_expiry = time.monotonic() + _EXPIRE_S
                try:
                    gone = retention.expire(self.config.retention, journal_at=self.config.journal, served_at=self.config.served)
                    _log.info("too old: %s", gone)
                except (TritowerError, OSError) as error:
                    _log.warning("what is too old cannot be removed: %s", error)

    def _show(self) -> None:
        if self.journal:
            for name in ("received", "journaled", "repeated", "refused", "failed", "waiting"):
                self._gauges["events"].labels(name).set(getattr(self.journal.figures, name))
        lags = [follower.lag() for follower in list(self._followers.values())]
        for name in ("applied_events", "skipped_events", "failed_events", "missing_records"):
            self._gauges["counted"].labels(name).set(sum(getattr(lag, name) for lag in lags))
        self._gauges["behind"].set(max((lag.behind_s for lag in lags), default=0.0))
        self._gauges["record"].set(min((lag.last_record for lag in lags), default=0))
        if self.served:
            for name in ("written", "left_out", "lost"):
                self._gauges["served"].labels(name).set(getattr(self.served.figures, name))
