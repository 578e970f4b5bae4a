"""The page at `/`: type a search, see ranked jobs, why each is there, and another order beside it.

    mount(app, service)

Rendered here, of one form with GET: no script, no cookie, nothing from elsewhere, nothing that changes anything. Its policy
lets a browser load its own style sheet and no more, so that a job title that gets past the escaping still runs nothing.
"""

import asyncio
import hashlib
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response

from tritower.errors import TritowerError
from tritower.pages import page as pages
from tritower.serving import moment, wording
from tritower.serving.guide import Example, Guide, Known
from tritower.serving.messages import Answer, Filters, Near, Question, Versions
from tritower.serving.places import Place
from tritower.serving.ranking import Ranking
from tritower.serving.refusal import refusal, unexpected
from tritower.serving.service import Service

_LOG = logging.getLogger(__name__)
_PACKAGE = "tritower.serving"
SHOWN = 10
"""Jobs on the page."""
_FARTHEST_KM = 20_040
LONGEST = 200
"""Characters of a field of the form; the encoder reads some 100 words at most."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer. A search may name a person: it is neither kept by the browser nor told to another site."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What was typed; `is_asked` is false where the page was opened without a search."""

    query: str = ""
    place: str = ""
    user: str = ""
    km: str = ""
    is_asked: bool = False

    @property
    def distance(self) -> float | None:
        """Kilometres; None where no number of them was typed."""
        try:
            km = float(self.km.replace(",", "."))
        except ValueError:
            return None
        return km if 0 < km <= _FARTHEST_KM else None

    @staticmethod
    def of(request: Request) -> "Form":
        """Of a request's address; fields that nobody knows are left aside."""
        given = request.query_params
        words = {name: " ".join(given.get(name, "").split())[:LONGEST] for name in ("query", "place", "user", "km")}
        return Form(**words, is_asked=bool(request.query_params))


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A job of the page: the answer's, in words."""

    rank: int
    title: str
    company: str
    place: str
    age: str
    percent: str
    chance: str
    width: float
    because: str
    profile: Sequence[wording.Bar] = ()
    reasons: Sequence[wording.Told] = ()
    elsewhere: str = ""


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A line of the other order; `tone` says whether the job stands higher (good) or lower (bad) in ours."""

    title: str
    company: str
    here: str
    tone: str


@dataclass(frozen=True, kw_only=True)
class View:
    """All that the template writes."""

    form: Form
    heading: str = ""
    notes: Sequence[str] = ()
    alarm: str = ""
    remedy: str = ""
    jobs: Sequence[Shown] = ()
    rival: str = ""
    rivals: Sequence[Rival] = ()
    known: Known | None = None
    as_of: str = ""
    versions: Versions | None = None
    request_id: str = ""
    examples: Sequence[Example] = ()
    places: Sequence[str] = ()
    has_places: bool = False
    ts: int = 0
    took_ms: int = 0


def mount(app: FastAPI, service: Service) -> None:
    """Add the page and its style sheet to a server."""
    template = pages.template(_PACKAGE, "page.html")
    style = str(pages.style(_PACKAGE))
    version = hashlib.sha256(style.encode()).hexdigest()[:12]  # in its address, so that a browser may keep it for good
    template.globals.update({"ago": wording.ago, "longest": LONGEST, "style_version": version})

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        form = Form.of(request)
        view, status = await _view(service, form)
        text = template.render(view=view).strip() + "\n"
        return HTMLResponse(text.encode("utf-8", "replace"), status, HEADERS)

    @app.get("/page.css", include_in_schema=False)
    async def page_css() -> Response:
        return Response(
            style, headers=HEADERS | {"Cache-Control": "public, max-age=31536000, immutable"}, media_type="text/css"
        )


async def _view(service: Service, form: Form) -> tuple[View, int]:
    """What is shown, and the status of HTTP."""
    request_id = uuid.uuid4().hex
    try:
        return await _answered(service, form, request_id), HTTPStatus.OK
    except TritowerError as error:
        failed = refusal(error)
    except Exception:  # noqa: BLE001 - the top of a request: whoever asked reads a page, and the log has the rest
        _LOG.exception("the page failed, request %s", request_id)
        failed = unexpected()
    alarm = failed.problem[:1].upper() + failed.problem[1:]
    return View(form=form, alarm=alarm, remedy=failed.remedy, request_id=request_id), failed.status


async def _answered(service: Service, form: Form, request_id: str) -> View:
    ranking = service.holder.get()
    guide, versions = ranking.guide, ranking.versions
    view = View(
        form=form, examples=guide.examples(), places=guide.places.named, has_places=ranking.has_places, versions=versions
    )  # fmt: skip
    if not form.is_asked:
        return view
    place = guide.places.find(form.place) if form.place else None
    known = guide.known(form.user) if form.user else None
    ts = _as_of(versions.state)
    question = Question(
        query=form.query, user_id=form.user, k=SHOWN, explain=True, request_id=request_id, ts=ts,
        city=place.city if place else None, region=place.region if place else None, country=place.country if place else None,
        filters=Filters(near=Near(km=form.distance) if place and form.distance and view.has_places else None),
    )  # fmt: skip
    start = time.perf_counter()
    answer = await service.answer(question)
    took_ms = round(1000 * (time.perf_counter() - start))
    rival, other = await _rival(service, ranking, question)
    return replace(
        view,
        heading=_heading(form, place), known=known,
        notes=[*_notes(form, place, known, guide), *map(_sentence, answer.warnings)],
        jobs=_shown(answer, other), rival=rival, rivals=_rivals(answer, other),
        as_of="" if ts is None else wording.date(ts), ts=answer.ts, took_ms=took_ms,
        versions=answer.versions, request_id=answer.request_id,
    )  # fmt: skip


async def _rival(service: Service, ranking: Ranking, question: Question) -> tuple[str, Answer | None]:
    """Another order of jobs for the same search, and what to call it: of the server's other version, else of the baseline."""
    other = service.holder.other()
    if other is not None:
        return f"Version “{other.versions.name}”", await asyncio.to_thread(other.answer, replace(question, explain=False))
    found = await asyncio.to_thread(ranking.rival, question)
    return "XGBoost" if found else "", found


def _as_of(state: str) -> int | None:
    """The time to ask for: that of an old state's last event, or what the server takes for one that is not named (None)."""
    return moment.last_event(state) if moment.is_stale(state, time.time_ns() // 1000) else None


def _heading(form: Form, place: Place | None) -> str:
    what = f"Jobs for “{form.query}”" if form.query else "Jobs for any search"
    if not place:
        return what
    return f"{what} within {form.distance:g} km of {place}" if form.distance else f"{what} near {place}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _notes(form: Form, place: Place | None, known: Known | None, guide: Guide) -> list[str]:
    """What a reader must know of the answer."""
    notes = []
    if not form.query:
        notes.append("No words were given: the jobs are ranked by all else that is known.")
    if form.place and not place:
        near = f" Try {guide.places.named[0]}, say." if guide.places.named else ""
        notes.append(f"No job is in a place called “{form.place}”: the jobs are ranked without a place.{near}")
    if form.km and form.distance is None:
        notes.append(f"“{form.km}” is no distance in kilometres: jobs at any distance are shown.")
    elif form.km and not form.place:
        notes.append("A distance needs a place: jobs at any distance are shown.")
    if known is not None and not known:
        notes.append(f"Nothing is known of a user “{form.user}”: the jobs are ranked as for somebody new.")
    return notes


def _shown(answer: Answer, other: Answer | None) -> list[Shown]:
    rank_there = {job.job_id: job.rank for job in other.jobs} if other else {}
    why = {job.job_id: job.reasons or () for job in answer.jobs}
    largest = max((abs(one.value) for reasons in why.values() for one in reasons), default=0.0)
    return [
        Shown(
            rank=job.rank, title=job.title, company=job.company, place=str(Place(city=job.city, region=job.region)),
            age=wording.age(job.posted_at, answer.ts), percent=wording.percent(job.score), chance=wording.chance(job.score),
            width=round(100 * job.score, 1), because=wording.because(why[job.job_id]),
            profile=wording.profile(why[job.job_id], largest), reasons=wording.told(why[job.job_id], largest),
            elsewhere=_elsewhere(rank_there.get(job.job_id)) if other else "",
        )
        for job in answer.jobs
    ]  # fmt: skip


def _rivals(answer: Answer, other: Answer | None) -> list[Rival]:
    here = {job.job_id: job.rank for job in answer.jobs}
    out = []
    for job in other.jobs if other else ():
        rank = here.get(job.job_id)
        tone = "" if rank == job.rank else "bad" if rank is None or rank > job.rank else "good"
        out.append(Rival(title=job.title, company=job.company, here=_elsewhere(rank), tone=tone))
    return out


def _elsewhere(rank: int | None) -> str:
    return wording.ordinal(rank) if rank else f"below {wording.ordinal(SHOWN)}"
