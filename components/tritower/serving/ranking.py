"""A search in, ranked jobs out: one bundle, loaded.

    ranking = Ranking.open(folder)
    ranking.warm()
    answer = ranking.answer(Question(query="night nurse", city="Austin", k=10))

Any number of threads may ask, observe and update at once. The towers' matrices are multiplied by a BLAS: a server
sets OPENBLAS_NUM_THREADS=1.

Legend: N candidates, F features, J documents, T width of a document's row.
"""

import dataclasses
import datetime as dt
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tritower import optional, storage
from tritower.config import from_dict
from tritower.entities.config import EntitiesConfig
from tritower.errors import ArtifactError
from tritower.features.guest import Guest
from tritower.features.live import clean
from tritower.features.online import OnlineFeatures, Recognise, Request, conform_events, conform_jobs
from tritower.ranker import documents
from tritower.ranker.online import OnlineRanker, Query
from tritower.recommend.retrieve import fulfilling
from tritower.serving import bundle, explain, resident, updating
from tritower.serving.bundle import Bundle
from tritower.serving.catalogue import Catalogue, Floats, Ints, same_advert
from tritower.serving.config import Precision
from tritower.serving.encoding import TextEncoder
from tritower.serving.gate import Gate
from tritower.serving.guide import Guide
from tritower.serving.messages import Answer, Question, RankedJob, Versions, Visitor
from tritower.serving.nearby import Whereabouts
from tritower.serving.places import Place
from tritower.serving.retrieval import Retrieval, conditions
from tritower.serving.tailing import Known
from tritower.storage import manifest

if TYPE_CHECKING:
    from tritower.serving.rival import Rival

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LONGEST = 1_000  # characters of a query that count, as ingest cuts it


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parts:
    """What `open` loads."""

    bundle: Bundle
    ranker: OnlineRanker
    encoder: TextEncoder
    features: OnlineFeatures
    retrieval: Retrieval
    described: updating.Described
    baseline: "Rival | None"
    known: Known
    places: Whereabouts


@dataclasses.dataclass(frozen=True)
class _Scored:
    """Candidates as the model saw them, and what it said. `at_N` are their rows of `table_JT`."""

    row_N: Ints
    query: Query
    table_JT: Floats
    at_N: Ints
    feature_NF: Floats
    score_N: Floats


class Ranking:
    """A bundle that answers; `open` makes one."""

    def __init__(self, parts: _Parts, jobs: Catalogue, name: str) -> None:
        """For `open`."""
        self._parts, self._jobs, self._name = parts, jobs, name
        self._features, self._ranker, self._retrieval = parts.features, parts.ranker, parts.retrieval
        self._gate, self._updating = Gate(), threading.Lock()
        self._guide: Guide | None = None
        self._places = parts.places
        self._number_J = parts.features.numbers(jobs.index.job_ids)

    @staticmethod
    def open(folder: str | Path, name: str = "main", *, precision: Precision = "auto") -> "Ranking":
        """Load a bundle, after every byte of it was checked.

        Args:
            folder: of the bundle.
            name: of this bundle in the server.
            precision: what queries are encoded in.

        Raises:
            StorageError: there is no bundle.
            ArtifactError: a part is damaged, missing or not made with the others.
        """

        def read(here: Path) -> Ranking:
            found = bundle.read(here)
            with manifest.trusted(here):
                return Ranking._loaded(found, name, precision)

        return manifest.unmoved(folder, read)

    @staticmethod
    def _loaded(found: Bundle, name: str, precision: Precision) -> "Ranking":
        ranker = OnlineRanker.load(found.needed("ranker"))
        encoder = TextEncoder(found.needed("encoder"), precision)
        dataset, entities = found.needed("dataset"), found.path("entities")
        kept = resident.found(found)
        features = OnlineFeatures.open(
            found.needed("state"), dataset, found.needed("embeddings"), entities,
            embed=encoder, recognise=_recogniser(entities, dataset) if entities else None, kept=kept and kept / "features",
        )  # fmt: skip
        if missing := sorted(set(ranker.names) - set(features.names)):
            problem = f"the model reads features that the bundle cannot compute: {', '.join(missing)}"
            raise ArtifactError(problem, where=str(found.folder), remedy="Make the bundle with the entities.")
        towers = documents.load(found.needed("documents"), ranker)
        retrieval = Retrieval.open(found.needed("index"), found.needed("clicks"))
        jobs = Catalogue.read(dataset, towers, retrieval.index, kept)
        parts = _Parts(
            bundle=found, ranker=ranker, encoder=encoder, features=features, retrieval=retrieval,
            described=updating.Described.read(dataset, found.needed("embeddings")),
            baseline=_rival(found.path("baseline"), features.names),
            known=Known.read(found.needed("state"), found.parts["state"].sha256),
            places=Whereabouts.read(dataset),
        )  # fmt: skip
        return Ranking(parts, jobs, name)

    @property
    def versions(self) -> Versions:
        """What answers now."""
        claimed = self._parts.bundle.claimed
        last = self._features.last_ts
        return Versions(
            bundle=self._parts.bundle.sha256, name=self._name, model=claimed("model"), encoder=claimed("encoder"),
            catalogue=claimed("dataset"),
            state="" if last is None else (_EPOCH + dt.timedelta(microseconds=last)).isoformat(),
        )  # fmt: skip

    @property
    def folder(self) -> Path:
        """Where the bundle lies."""
        return self._parts.bundle.folder

    @property
    def guide(self) -> Guide:
        """What a page says beside the ranking."""
        jobs, guide = self._jobs, self._guide
        if guide is None:
            self._guide = guide = Guide(jobs.rows, jobs.by_row(), self._features)
        return guide

    def answer(self, question: Question) -> Answer:
        """Rank jobs for a search: the probability of a click at the top position, best first.

        Without candidates these are retrieved, by the function that the step `candidates` calls. Candidates that are given
        are ranked whether their adverts are open or not, if they pass the filters; those that the catalogue lacks are named in
        `unknown`. Equal scores are ordered by job id, and of several adverts with the same title and company only the best is
        given, as the step `recommend` does.

        Raises:
            ConfigError: a filter cannot be applied.
        """
        with self._gate.reading():
            return self._answer(question)

    def rival(self, question: Question) -> Answer | None:
        """The order of the bundle's baseline, over the same candidates as `answer`; None where it has none."""
        baseline = self._parts.baseline
        if baseline is None:
            return None
        with self._gate.reading():
            question, ts = _timed(question)
            row_N, unknown = self._candidates(question, ts, self._near(question))
            ranked: list[RankedJob] = []
            if len(row_N):
                score_N = baseline.scores(self._features.read(_request(question, ts), self._number_J[row_N]))
                ranked = self._told(row_N, score_N, self._best(row_N, score_N, question.k))
            return Answer(request_id=question.request_id, ts=ts, jobs=tuple(ranked), versions=self.versions, unknown=unknown)

    @property
    def has_places(self) -> bool:
        """Whether a distance can be asked for: a job has coordinates."""
        return self._places.some

    def known(self) -> Known:
        """What the state of its features knows of the events: where a journal goes on from."""
        return self._parts.known

    def warm(self) -> None:
        """Do once what costs more the first time: every length of query, and every compiled function."""
        self._parts.encoder.warm()
        some = tuple(self._jobs.index.ids(np.arange(min(2, len(self._jobs)))))
        visitor = Visitor(interests=("warm",))
        for candidates in (some, None):
            for query in ("warm", ""):
                self.answer(Question(query=query, candidates=candidates, explain=True))
                self.answer(Question(query=query, candidates=candidates, visitor=visitor))

    def observe(self, events: pa.Table) -> None:
        """Count what has happened: rows of `features.online.EVENTS`.

        Raises:
            SchemaError: a column is missing or of another type.
        """
        events = conform_events(events)
        self._features.observe(events)
        self._retrieval.observe(events, self._vectors)

    def update(self, jobs: pa.Table) -> None:
        """Take in new and changed adverts, as a whole: an answer knows all of them or none. An advert that has expired is one
        whose `expires_at` has changed.

        Args:
            jobs: rows of `schema.RAW_JOBS`; of one job the last row counts.

        Raises:
            SchemaError: a column is missing or of another type.
        """
        jobs = updating.last_of_each(conform_jobs(jobs))
        if not len(jobs):
            return
        with self._updating:
            text, vector_ND, tower_NT = updating.describe(jobs, self._ranker, self._parts.encoder, self._parts.described)
            index = self._jobs.index.updated(jobs, text, vector_ND)
            with self._gate.writing():
                self._features.update(jobs)
                self._retrieval.take(index)
                new = index.ids(np.arange(len(self._number_J), len(index)))
                self._number_J = np.concatenate([self._number_J, self._features.numbers(new)])
                self._jobs, self._guide = self._jobs.updated(jobs, index, tower_NT), None
                self._places = self._places.updated(jobs, self._jobs.find(jobs["job_id"].to_pylist()))

    def close(self) -> None:
        """Nothing to do: files stay mapped until the last answer that needs them is given."""

    def _answer(self, question: Question) -> Answer:
        question, ts = _timed(question)
        near_J = self._near(question)
        row_N, unknown = self._candidates(question, ts, near_J)
        scored = self._scored(question, ts, row_N) if len(row_N) else None
        return Answer(
            request_id=question.request_id or uuid.uuid4().hex,
            ts=ts,
            jobs=self._ranked(question, scored) if scored else (),
            versions=self.versions,
            unknown=unknown,
            features=tuple(self._ranker.names) if question.with_features else (),
            median_score=float(scored.score_N[explain.median(scored.score_N)]) if question.explain and scored else None,
            warnings=() if near_J is None else self._places.warnings,
        )

    def _near(self, question: Question) -> npt.NDArray[np.bool_] | None:
        """Which jobs lie near enough; None where nobody asked."""
        near = question.filters.near
        if near is None:
            return None
        searched = Place(city=question.city, region=question.region, country=question.country)
        place = self.guide.places.find(near.place) if near.place else searched
        return self._places.near(near, place, self._jobs.index)

    def _candidates(self, question: Question, ts: int, near_J: npt.NDArray[np.bool_] | None) -> tuple[Ints, tuple[str, ...]]:
        """The rows of the jobs to score, and the candidates that the catalogue lacks."""
        given = self._found(question, ts, near_J) if question.candidates is None else question.candidates
        asked = tuple(dict.fromkeys(given))
        row_N = self._jobs.find(asked)
        unknown = tuple(job_id for job_id, row in zip(asked, row_N, strict=True) if row < 0)
        row_N = row_N[row_N >= 0]
        return row_N[fulfilling(conditions(question.filters, near_J), self._jobs.index, row_N)], unknown

    def _found(self, question: Question, ts: int, near_J: npt.NDArray[np.bool_] | None) -> list[str]:
        visitor, past = question.visitor, None if question.visitor else self._features.past(question.user_id)
        titles = (*visitor.interests, *visitor.past_titles) if visitor else ()
        titles = (*past.wanted_titles, *past.past_titles) if past else titles
        return self._retrieval.search(question, ts, self._vectors, titles, near_J)

    def _vectors(self, texts: Sequence[str]) -> npt.NDArray[np.float16]:
        return np.stack([self._features.vector(text) for text in texts])

    def _scored(self, question: Question, ts: int, row_N: Ints) -> _Scored:
        query = self._ranker.query(self._features.vector(question.query))
        columns = self._features.read(_request(question, ts), self._number_J[row_N])
        feature_NF = np.stack([columns[name] for name in self._ranker.names]).T
        table_JT, at_N = self._jobs.towers(row_N)
        score_N = self._ranker.score(query, table_JT, at_N, feature_NF)
        return _Scored(row_N, query, table_JT, at_N, feature_NF, score_N)

    def _ranked(self, question: Question, scored: _Scored) -> tuple[RankedJob, ...]:
        best = self._best(scored.row_N, scored.score_N, question.k)
        told = self._told(scored.row_N, scored.score_N, best)
        if question.with_features:
            told = [
                dataclasses.replace(job, features=tuple(scored.feature_NF[n].tolist()))
                for job, n in zip(told, best, strict=True)
            ]
        if question.explain:
            reasons = explain.explain(
                self._ranker, scored.query, scored.table_JT, scored.at_N, scored.feature_NF, scored.score_N, best
            )  # fmt: skip
            told = [dataclasses.replace(job, reasons=why) for job, why in zip(told, reasons, strict=True)]
        return tuple(told)

    def _told(self, row_N: Ints, score_N: Floats, best: Sequence[int]) -> list[RankedJob]:
        """The best of the N, in words."""
        told = []
        for rank, (job_id, n) in enumerate(zip(self._jobs.index.ids(row_N[best]), best, strict=True), start=1):
            job = self._jobs.job(int(row_N[n]))
            words = {name: job[name].as_py() for name in ("title", "company", "city", "region")}
            posted_at = job["posted_at"].value
            told.append(RankedJob(job_id=job_id, rank=rank, score=float(score_N[n]), posted_at=posted_at, **words))
        return told

    def _best(self, row_N: Ints, score_N: Floats, k: int) -> list[int]:
        """Places of the best k among the N, each advert once."""
        found: list[int] = []
        seen: set[tuple[str, str]] = set()
        for n in np.lexsort((self._jobs.index.order_J[row_N], -score_N)).tolist():
            if len(found) == k:
                break
            title, company = self._jobs.named(int(row_N[n]))
            advert = same_advert(title, company)
            if advert not in seen:
                seen.add(advert)
                found.append(n)
        return found


def _timed(question: Question) -> tuple[Question, int]:
    """The question with its query as ingest would have kept it, and its time."""
    query = clean(question.query[: 4 * _LONGEST])[:_LONGEST]
    ts = time.time_ns() // 1000 if question.ts is None else question.ts
    return dataclasses.replace(question, query=query), ts


def _request(question: Question, ts: int) -> Request:
    return Request(
        ts=ts, user_id=question.user_id, query=question.query, city=question.city, region=question.region,
        country=question.country, guest=_guest(question.visitor),
    )  # fmt: skip


def _rival(folder: Path | None, names: Sequence[str]) -> "Rival | None":
    """The baseline of a bundle; where there is none, XGBoost is not even imported."""
    if folder is None:
        return None
    with optional.hidden("sklearn", "pandas"):  # XGBoost imports them where they are there: a second
        from tritower.serving.rival import Rival

    found = Rival.load(folder)
    if missing := sorted(set(found.names) - set(names)):
        problem = f"the baseline reads features that the bundle cannot compute: {', '.join(missing)}"
        raise ArtifactError(problem, where=str(folder), remedy="Make the bundle with the entities.")
    return found


def _guest(visitor: Visitor | None) -> Guest | None:
    if visitor is None:
        return None
    return Guest(
        wanted_titles=visitor.interests,
        past_titles=visitor.past_titles,
        clicks=tuple((click.job_id, click.ts) for click in visitor.clicks),
        searches=tuple((search.query, search.ts) for search in visitor.searches),
    )


def _recogniser(entities: Path, dataset: Path) -> Recognise:
    """As the step that wrote the entities."""
    config = from_dict(EntitiesConfig, storage.read_json(entities / "entities.json")["config"])
    with optional.hidden(*config.needless):
        from tritower.entities.recognise import recogniser
    employers = pq.read_table(dataset / "jobs.parquet", columns=["company"])["company"].unique().drop_null().to_pylist()
    return recogniser(config, sorted(employers))
