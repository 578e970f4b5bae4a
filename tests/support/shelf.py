"""A few adverts that answer searches by counting words: small, but a ranking, for tests of what stands before it."""

import time
from collections.abc import Sequence

from tritower.features.past import Past
from tritower.serving.guide import Clicked, Example, Known
from tritower.serving.messages import Answer, Question, RankedJob, Reason, Versions
from tritower.serving.places import Places

Advert = tuple[str, str, str | None, str | None]
ADVERTS: tuple[Advert, ...] = (
    ("Registered Nurse - Nights", "Mercy Clinics", "Austin", "TX"),
    ("ICU Nurse", "Mercy Clinics", "Austin", "TX"),
    ("Home Health Aide", "Good Hands", "Boston", "MA"),
    ("Truck Driver (CDL)", "Roadrunner Freight", "Reno", None),
)
DAY_US = 86_400_000_000


class Guidance:
    """What the page says beside; one user is known."""

    def __init__(self, adverts: Sequence[Advert]) -> None:
        self.places = Places((city, region, "US" if city else None) for _, _, city, region in adverts)

    def known(self, user_id: str) -> Known:
        if user_id != "u1":
            return Known(past=Past(), clicks=())
        past = Past(
            clicked=2, searched=1, searches=(("rn <b>night</b>", 5 * DAY_US),), wanted_titles=("ICU Nurse",),
            past_titles=("Aide",),
        )  # fmt: skip
        clicks = (Clicked(title="ICU Nurse", company="Mercy Clinics", ts=4 * DAY_US), Clicked(title="", company="", ts=0))
        return Known(past=past, clicks=clicks)

    def examples(self) -> list[Example]:
        return [Example(query="rn night & day", place="Austin, TX", user_id="u1")]


class Shelf:
    """Adverts by the words they share with the search, then in their order.

    Args:
        adverts: title, company, city and region of each.
        name: of this version.
        backwards: those that share least come first.
        error: raised in place of any answer.
    """

    def __init__(
        self,
        adverts: Sequence[Advert] = ADVERTS,
        *,
        name: str = "main",
        backwards: bool = False,
        error: Exception | None = None,
    ) -> None:
        self.adverts, self.backwards, self.error = adverts, backwards, error
        self.guide = Guidance(adverts)
        self.versions = Versions(
            bundle=f"{name}-0123456789", name=name, model="m" * 12, encoder="e", catalogue="c",
            state="1970-01-11T00:00:00+00:00",
        )  # fmt: skip
        self.asked: list[Question] = []
        self.has_places = True

    def answer(self, question: Question) -> Answer:
        self.asked.append(question)
        if self.error:
            raise self.error
        words = set(question.query.lower().split())
        shared = [len(words & set(title.lower().split())) for title, _, _, _ in self.adverts]
        order = sorted(range(len(shared)), key=lambda i: (shared[i] if self.backwards else -shared[i], i))
        if words and not any(shared):
            order = []
        return Answer(
            request_id=question.request_id or "r", ts=question.ts or time.time_ns() // 1000, versions=self.versions,
            jobs=tuple(self._job(i, rank, shared[i], question.city) for rank, i in enumerate(order[: question.k], 1)),
        )  # fmt: skip

    def _job(self, i: int, rank: int, shared: int, city: str | None) -> RankedJob:
        title, company, at, region = self.adverts[i]
        reasons = (
            Reason(group="meaning", value=0.9 * shared), Reason(group="words", value=0.5 * shared - 0.2),
            Reason(group="place", value=0.4 if city and city == at else -0.7), Reason(group="you", value=-0.1),
            Reason(group="entities", value=0.01), Reason(group="popularity", value=0.0), Reason(group="time", value=-0.04),
        )  # fmt: skip
        return RankedJob(
            job_id=f"j{i}", rank=rank, score=0.9 / (rank + 1), title=title, company=company, city=at, region=region,
            posted_at=i * DAY_US, reasons=reasons,
        )  # fmt: skip

    def rival(self, question: Question) -> Answer | None:
        return None


class Desk:
    """What a server holds and asks: one ranking, perhaps another."""

    def __init__(self, main: Shelf, other: Shelf | None = None) -> None:
        self.main, self._other = main, other

    @property
    def holder(self) -> "Desk":
        return self

    def get(self, name: str | None = None) -> Shelf:
        return self.main

    def other(self) -> Shelf | None:
        return self._other

    async def answer(self, question: Question) -> Answer:
        return self.main.answer(question)
