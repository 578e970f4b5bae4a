"""A search in, ranked jobs out: one bundle, loaded.

    ranking = Ranking.open(folder)
    answer = ranking.answer(Question(query="nurse", candidates=("j1", "j2")))

Any number of threads may ask at once. Matrices are multiplied by the BLAS of scipy: a server sets OPENBLAS_NUM_THREADS=1.

Legend: N candidates, D dimension of an embedding, F features.
"""

import dataclasses
import datetime as dt
import time
import uuid
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tritower import storage
from tritower.config import from_dict
from tritower.entities.config import EntitiesConfig
from tritower.errors import ArtifactError
from tritower.features.online import OnlineFeatures, Recognise, Request
from tritower.ranker import documents
from tritower.ranker.online import OnlineRanker, Query
from tritower.serving import bundle
from tritower.serving.bundle import Bundle
from tritower.serving.catalogue import Catalogue, Ints, same_advert
from tritower.serving.encoding import TextEncoder
from tritower.serving.explain import explain, median
from tritower.serving.guide import Guide
from tritower.serving.messages import Answer, Question, RankedJob, Versions
from tritower.serving.retrieval import Retrieval
from tritower.serving.tailing import Known

if TYPE_CHECKING:
    from tritower.serving.rival import Rival

Floats = npt.NDArray[np.float32]


class Ranking:
    """A bundle that answers; `open` makes one."""

    def __init__(
        self, parts: Bundle, name: str, ranker: OnlineRanker, encoder: TextEncoder, features: OnlineFeatures, jobs: Catalogue,
        retrieval: Retrieval | None, baseline: "Rival | None" = None,
    ) -> None:  # fmt: skip
        """For `open`."""
        self._bundle, self._name = parts, name
        self._ranker, self._encoder, self._features, self._jobs = ranker, encoder, features, jobs
        self._retrieval, self._baseline = retrieval, baseline

    @staticmethod
    def open(folder: str | Path, name: str = "main", *, streams: int = 0) -> "Ranking":
        """Load a bundle, after every byte of it was checked.

        Args:
            folder: of the bundle.
            name: of this bundle in the server.
            streams: queries encoded at once; 0 = as many as this process has cores.

        Raises:
            StorageError: there is no bundle.
            ArtifactError: a part is damaged, missing or not made with the others.
        """
        parts = bundle.read(Path(folder))
        ranker = OnlineRanker.load(parts.needed("ranker"))
        encoder = TextEncoder(parts.needed("encoder"), streams)
        dataset, entities = parts.needed("dataset"), parts.path("entities")
        features = OnlineFeatures.open(
            parts.needed("state"), dataset, parts.needed("embeddings"), entities,
            embed=encoder, recognise=_recogniser(entities, dataset) if entities else None,
        )  # fmt: skip
        if missing := sorted(set(ranker.names) - set(features.names)):
            problem = f"the model reads features that the bundle cannot compute: {', '.join(missing)}"
            raise ArtifactError(problem, where=str(folder), remedy="Make the bundle with the entities.")
        jobs = Catalogue.read(dataset, documents.load(parts.needed("documents"), ranker))
        index, clicks = parts.path("index"), parts.path("clicks")
        retrieval = Retrieval.open(index, clicks) if index and clicks else None
        return Ranking(parts, name, ranker, encoder, features, jobs, retrieval, _rival(parts.path("baseline"), features.names))

    @property
    def versions(self) -> Versions:
        """What answers now."""
        claimed = self._bundle.claimed
        last = self._features.last_ts
        return Versions(
            bundle=self._bundle.sha256, name=self._name, model=claimed("model"), encoder=claimed("encoder"),
            catalogue=claimed("dataset"),
            state="" if last is None else (_EPOCH + dt.timedelta(microseconds=last)).isoformat(),
        )  # fmt: skip

    @cached_property
    def guide(self) -> Guide:
        """What the page says beside the ranking."""
        return Guide(self._jobs.documents.row_by_job, self._jobs.shown, self._features)

    def answer(self, question: Question) -> Answer:
        """Rank the candidates of a search: the probability of a click at the top position, best first.

        Without candidates, those are ranked that retrieval finds: open at the time of the search, past its filters.
        Equal scores are ordered by job id; of several adverts with the same title and company only the best is given, as the
        step `recommend` does. Candidates that the catalogue lacks are named in `unknown`; given ones need not be open.

        Raises:
            ArtifactError: there are no candidates, and the bundle has no index.
        """
        ts = time.time_ns() // 1000 if question.ts is None else question.ts
        asked = self._asked(question, ts)
        row_N = self._jobs.find(asked)
        known = [job_id for job_id, row in zip(asked, row_N, strict=True) if row >= 0]
        row_N = row_N[row_N >= 0]
        request = _request(question, ts)
        scored = self._scored(request, known, row_N) if known else None
        score_N = scored.score_N if scored else np.empty(0, np.float32)
        best = self._best(known, row_N, score_N, question.k)
        if question.with_features and scored:
            best = [(i, dataclasses.replace(job, features=tuple(scored.feature_NF[i].tolist()))) for i, job in best]
        return Answer(
            request_id=question.request_id or uuid.uuid4().hex,
            ts=ts,
            jobs=self._with_reasons(best, scored) if question.explain and scored else tuple(job for _, job in best),
            median_score=float(score_N[median(score_N)]) if question.explain and scored else None,
            versions=self.versions,
            features=tuple(self._ranker.names) if question.with_features else (),
            unknown=tuple(job_id for job_id in asked if job_id not in self._jobs.documents.row_by_job),
        )

    def rival(self, question: Question) -> Answer | None:
        """The order of the bundle's baseline, over the same candidates as `answer`; None where it has none."""
        if self._baseline is None:
            return None
        ts = time.time_ns() // 1000 if question.ts is None else question.ts
        known = [job_id for job_id in self._asked(question, ts) if job_id in self._jobs.documents.row_by_job]
        score_N = (
            self._baseline.scores(self._features.read(_request(question, ts), known)) if known else np.empty(0, np.float32)
        )
        best = self._best(known, self._jobs.find(known), score_N, question.k)
        jobs = tuple(job for _, job in best)
        return Answer(request_id=question.request_id, ts=ts, jobs=jobs, versions=self.versions)

    def known(self) -> Known:
        """What the state of its features knows of the events: where a journal goes on from."""
        return Known.read(self._bundle.needed("state"), self._bundle.parts["state"].sha256)

    def warm(self) -> None:
        """Do once what costs more the first time: every length of query, and every compiled function."""
        self._encoder.warm()
        some = tuple(list(self._jobs.documents.row_by_job)[:2])
        self.answer(Question(query="warm", candidates=some))

    def observe(self, events: pa.Table) -> None:
        """Count what has happened (`features.online.EVENTS`)."""
        self._features.observe(events)
        if self._retrieval:
            self._retrieval.observe(events, self._vectors)

    def close(self) -> None:
        """Nothing to do yet: files stay mapped until the last answer is given."""

    def _asked(self, question: Question, ts: int) -> tuple[str, ...]:
        """The candidates, each once."""
        return tuple(dict.fromkeys(self._found(question, ts) if question.candidates is None else question.candidates))

    def _found(self, question: Question, ts: int) -> list[str]:
        if self._retrieval is None:
            remedy = "Give candidates, or make the bundle again (python -m tritower.serving bundle)."
            raise ArtifactError("the bundle has no index to retrieve jobs from", where="candidates", remedy=remedy)
        if question.visitor:
            profile = (*question.visitor.interests, *question.visitor.past_titles)
        else:
            past = self._features.past(question.user_id)
            profile = (*past.wanted_titles, *past.past_titles)
        return self._retrieval.search(question, ts, self._vectors, profile)

    def _vectors(self, texts: Sequence[str]) -> npt.NDArray[np.float16]:
        return np.stack([self._features.vector(text) for text in texts])

    def _scored(self, request: Request, job_ids: Sequence[str], row_N: Ints) -> "_Scored":
        query = self._ranker.query(self._features.vector(request.query))
        columns = self._features.read(request, job_ids)
        feature_NF = np.stack([columns[name] for name in self._ranker.names]).T
        score_N = self._ranker.score(query, self._jobs.documents.table_JT, row_N, feature_NF)
        return _Scored(query, row_N, feature_NF, score_N)

    def _with_reasons(self, best: Sequence[tuple[int, RankedJob]], scored: "_Scored") -> tuple[RankedJob, ...]:
        table_JT, explained = self._jobs.documents.table_JT, [position for position, _ in best]
        reasons = explain(
            self._ranker, scored.query, table_JT, scored.row_N, scored.feature_NF, scored.score_N, explained
        )  # fmt: skip
        return tuple(dataclasses.replace(job, reasons=why) for (_, job), why in zip(best, reasons, strict=True))

    def _best(self, job_ids: Sequence[str], row_N: Ints, score_N: Floats, k: int) -> list[tuple[int, RankedJob]]:
        """The best k, each advert once, and where each stands among the candidates."""
        order = sorted(range(len(job_ids)), key=lambda i: (-score_N[i], job_ids[i]))
        found: list[tuple[int, RankedJob]] = []
        seen: set[tuple[str, str]] = set()
        for i in order:
            job = {name: self._jobs.shown[name][int(row_N[i])] for name in self._jobs.shown.column_names}
            title, company = job["title"].as_py(), job["company"].as_py()
            if same_advert(title, company) in seen:
                continue
            seen.add(same_advert(title, company))
            found.append((i, RankedJob(
                job_id=job_ids[i], rank=len(found) + 1, score=float(score_N[i]), title=title, company=company,
                city=job["city"].as_py(), region=job["region"].as_py(), posted_at=job["posted_at"].value,
            )))  # fmt: skip
            if len(found) == k:
                break
        return found


@dataclasses.dataclass(frozen=True)
class _Scored:
    """Candidates as the model saw them, and what it said."""

    query: Query
    row_N: Ints
    feature_NF: Floats
    score_N: Floats


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _request(question: Question, ts: int) -> Request:
    return Request(
        ts=ts, user_id=question.user_id, query=question.query, city=question.city, region=question.region,
        country=question.country,
    )  # fmt: skip


def _rival(folder: Path | None, names: Sequence[str]) -> "Rival | None":
    """The baseline of a bundle; where there is none, XGBoost is not even imported."""
    if folder is None:
        return None
    from tritower.serving.rival import Rival

    found = Rival.load(folder)
    if missing := sorted(set(found.names) - set(names)):
        problem = f"the baseline reads features that the bundle cannot compute: {', '.join(missing)}"
        raise ArtifactError(problem, where=str(folder), remedy="Make the bundle with the entities.")
    return found


def _recogniser(entities: Path, dataset: Path) -> Recognise:
    """As the step that wrote the entities."""
    from tritower.entities.recognise import recogniser

    config = from_dict(EntitiesConfig, storage.read_json(entities / "entities.json")["config"])
    employers = pq.read_table(dataset / "jobs.parquet", columns=["company"])["company"].unique().drop_null().to_pylist()
    return recogniser(config, sorted(employers))
