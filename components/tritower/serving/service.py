"""Questions in, answers out, on a bounded number of threads; what all doors share."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tritower import threads
from tritower.errors import ConfigError
from tritower.serving import interleaved, moment
from tritower.serving.config import ServeConfig
from tritower.serving.messages import Answer, Question
from tritower.serving.metrics import Metrics
from tritower.serving.refusal import Refusal

if TYPE_CHECKING:
    from tritower.serving.holder import Holder
    from tritower.serving.ranking import Ranking


class Service:
    """The model behind the doors.

    Attributes:
        holder: gives the ranking of a request.
        arm: names the bundle for a question; all are `main` unless an experiment says otherwise.
        interleave: who gets the jobs of two bundles in one list; nobody where it is None.
        ask, finish: what the ranking is asked for a question, and what is sent for its answer (`feed.py`).
        watchers: called with each question and its answer, in the thread that made it, before the caller has it.
        draining: SIGTERM came.
        trouble: why the newest bundle at the location is not in use; empty where it is.
    """

    def __init__(self, holder: "Holder", config: ServeConfig, metrics: Metrics) -> None:
        self.holder, self.config, self.metrics = holder, config, metrics
        self.arm: Callable[[Question], str | None] = lambda question: None
        self.interleave: interleaved.Interleave | None = None
        self.ask: Callable[[Question], Question] = lambda question: question
        self.finish: Callable[[Question, Answer], Answer] = lambda question, answer: answer
        self.watchers: list[Callable[[Question, Answer], None]] = []
        self.draining, self.trouble = False, ""
        self._threads = config.threads or threads.available()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="rank")
        self._at_work = 0

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send requests."""
        return not self.draining

    async def answer(self, question: Question) -> Answer:
        """The answer to one question; see `answers`."""
        return (await self.answers([question]))[0]

    async def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in the order of the questions, those of one bundle all by the same version of it.

        Raises:
            Refusal: too many requests wait already.
            TritowerError: a question cannot be answered.
        """
        if self._at_work >= self._threads + self.config.max_waiting:
            self.metrics.refused.labels("waiting").inc()
            remedy = "Try again in a moment; add workers or replicas where it goes on."
            raise Refusal(503, f"{self.config.max_waiting} requests wait already", remedy=remedy, headers={"Retry-After": "1"})
        self._at_work += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self._answers, questions, time.perf_counter())
        finally:
            self._at_work -= 1

    def _answers(self, questions: Sequence[Question], since: float) -> list[Answer]:
        self.metrics.waited_seconds.observe(time.perf_counter() - since)
        arms = [self.arm(question) for question in questions]
        ranks = {name: self.holder.get(name) for name in dict.fromkeys(arms)}
        second = self._second()
        found = []
        for question, name in zip(questions, arms, strict=True):
            start = time.perf_counter()
            if self.config.as_of == "last_event":
                question = moment.as_of_last_event(question, ranks[name].versions.state)
            answer = moment.warned(question, self._ranked(self.ask(question), ranks[name], second))
            answer = self.finish(question, answer)
            self.metrics.rank_seconds.observe(time.perf_counter() - start)
            for watcher in self.watchers:
                watcher(question, answer)
            found.append(answer)
        return found

    def _second(self) -> "Ranking | None":
        """The bundle to interleave with, where there is one."""
        try:
            return self.holder.get(self.interleave.other) if self.interleave else None
        except ConfigError:
            return None

    def _ranked(self, question: Question, ranking: "Ranking", second: "Ranking | None") -> Answer:
        if self.interleave is None:
            return ranking.answer(question)
        question = interleaved.settled(question)
        if not self.interleave.takes(question):
            return ranking.answer(question)
        answer = interleaved.answer(question, ranking, second, self.interleave.salt)
        failed = answer.interleaved.failed if answer.interleaved else ""
        self.metrics.interleaved.labels(f"{failed} failed" if failed else "both").inc()
        return answer

    def swap(self, location: str, name: str = "main") -> None:
        """Put another bundle in the place of the one of this name; requests that have begun keep the old one.

        Raises:
            TritowerError: the new one is refused; the old one stays.
        """
        before = self.holder.get(name).versions.bundle
        self.holder.swap(location, name)
        self.metrics.bundles.labels(name, before).set(0)
        self.announce(name)

    def announce(self, name: str = "main") -> None:
        """Show a bundle in the figures."""
        self.metrics.bundles.labels(name, self.holder.get(name).versions.bundle).set(1)

    def close(self) -> None:
        """Wait for what is being computed; take no more."""
        self._pool.shutdown()
