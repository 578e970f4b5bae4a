"""One answer of two bundles: their lists, drafted by teams (`experiment/draft.py`), `main` being a and the other b.

Both are asked for k jobs one after the other, in one thread: an interleaved answer takes as long as both rankings together.
Threads for each would gain nothing under load, where all are at work, and could wait for each other.
"""

import dataclasses
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from tritower.assignment import fraction
from tritower.config import check
from tritower.errors import ConfigError, TritowerError
from tritower.experiment.draft import team_draft
from tritower.serving.catalogue import same_advert
from tritower.serving.messages import Answer, Interleaved, Question, RankedJob, Ranker, Team

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Interleave:
    """Whose lists are drafted of two bundles."""

    share: float = 1.0
    """Share of users or requests, 0 to 1; a larger one adds some and takes none away."""
    by: Literal["user", "request"] = "user"
    """`user`: somebody gets interleaved lists always or never, and nobody who is not known. `request`: each by itself."""
    salt: str = "interleaving"
    """Decides who, and the coins. A new one draws anew."""
    other: str = "other"
    """Name of bundle b."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        check(0 <= self.share <= 1, "share", self.share, "from 0 to 1")
        check(bool(self.salt) and "\0" not in self.salt, "salt", self.salt, "not empty, without a zero byte")
        check(self.other not in ("", "main"), "other", self.other, "the name of the second bundle")

    def takes(self, question: Question) -> bool:
        """Whether this one gets an interleaved list."""
        unit = question.user_id if self.by == "user" else question.request_id
        return bool(unit) and fraction(unit, f"interleave:{self.salt}") < self.share


class Answers(Protocol):
    """A bundle that answers (`ranking.Ranking`)."""

    def answer(self, question: Question) -> Answer:
        """Jobs for a search."""
        ...


def settled(question: Question) -> Question:
    """The question with an id and a time, so that both bundles are asked the same."""
    return dataclasses.replace(
        question,
        request_id=question.request_id or uuid.uuid4().hex,
        ts=time.time_ns() // 1000 if question.ts is None else question.ts,
    )


def answer(question: Question, a: Answers, b: Answers | None, salt: str) -> Answer:
    """The draft of both lists; the list of one where the other fails.

    Args:
        question: with an id and a time (`settled`).
        a, b: the bundles; b is None where it is not there any more.
        salt: of the coins.

    Raises:
        Exception: of a, where both fail, as with a question that cannot be answered.
    """
    answers: dict[Ranker, Answer] = {}
    failures: dict[Ranker, Exception] = {}
    asked: tuple[tuple[Ranker, Answers | None], ...] = (("a", a), ("b", b))
    for team, ranking in asked:
        try:
            if ranking is None:
                raise ConfigError("the second bundle was dropped", where="server", remedy="Put it back, or do not interleave.")
            answers[team] = ranking.answer(question)
        except Exception as error:  # noqa: BLE001 - a fault of one bundle, whatever it is, must not cost the other's answer
            failures[team] = error
    if not answers:
        raise failures["a"]
    if not failures:
        return drafted(answers["a"], answers["b"], question.k, salt)
    ((failed, fault),), (left,) = failures.items(), answers.values()
    traceback = None if isinstance(fault, TritowerError) else fault
    where = question.request_id
    _log.warning("bundle %s failed, request %s gets the other's list: %s", failed, where, fault, exc_info=traceback)
    return dataclasses.replace(left, interleaved=_alone(salt, failed, left))


def drafted(a: Answer, b: Answer, k: int, salt: str) -> Answer:
    """The draft of two answers to one request. An advert comes once, even where a and b chose different ids of it."""
    of_a, of_b = _by_advert(a), _by_advert(b)
    jobs: list[RankedJob] = []
    teams: list[Team] = []
    sources: list[Ranker] = []
    for advert, team in team_draft(list(of_a), list(of_b), k, request_id=a.request_id, salt=salt):
        source: Ranker = "b" if team == "b" or advert not in of_a else "a"
        job = of_b[advert] if source == "b" else of_a[advert]
        if source == "b" and a.features != b.features:  # the log has one list of features for an answer
            job = dataclasses.replace(job, features=None)
        jobs.append(job)
        teams.append(team)
        sources.append(source)
    unknown = set(b.unknown)
    return dataclasses.replace(
        a,
        jobs=tuple(dataclasses.replace(job, rank=place) for place, job in enumerate(jobs, start=1)),
        unknown=tuple(job_id for job_id in a.unknown if job_id in unknown),
        median_score=None,
        interleaved=Interleaved(
            salt=salt, other=b.versions, teams=tuple(teams), sources=tuple(sources), ranks=tuple(job.rank for job in jobs)
        ),
    )


def _by_advert(answer: Answer) -> Mapping[tuple[str, str], RankedJob]:
    found: dict[tuple[str, str], RankedJob] = {}
    for job in answer.jobs:
        found.setdefault(same_advert(job.title, job.company), job)
    return found


def _alone(salt: str, failed: Ranker, left: Answer) -> Interleaved:
    source: Ranker = "b" if failed == "a" else "a"
    nobody: Team = ""
    count = len(left.jobs)
    return Interleaved(
        salt=salt, other=None, failed=failed, teams=(nobody,) * count, sources=(source,) * count,
        ranks=tuple(job.rank for job in left.jobs),
    )  # fmt: skip
