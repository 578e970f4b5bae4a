"""A search in, ranked jobs out: one bundle, loaded.

    ranking = Ranking.open(folder)
    answer = ranking.answer(Question(query="nurse", candidates=("j1", "j2")))

Any number of threads may ask at once. Matrices are multiplied by the BLAS of scipy: a server sets OPENBLAS_NUM_THREADS=1.

Legend: N candidates, D dimension of an embedding, F features.
"""

import datetime as dt
import time
import uuid
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

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
from tritower.ranker.online import OnlineRanker
from tritower.serving import bundle
from tritower.serving.bundle import Bundle
from tritower.serving.catalogue import Catalogue, Ints, same_advert
from tritower.serving.encoding import TextEncoder
from tritower.serving.guide import Guide
from tritower.serving.messages import Answer, Question, RankedJob, Versions

Floats = npt.NDArray[np.float32]


class Ranking:
    """A bundle that answers; `open` makes one."""

    def __init__(
        self, parts: Bundle, name: str, ranker: OnlineRanker, encoder: TextEncoder, features: OnlineFeatures, jobs: Catalogue
    ) -> None:
        """For `open`."""
        self._bundle, self._name = parts, name
        self._ranker, self._encoder, self._features, self._jobs = ranker, encoder, features, jobs

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
        return Ranking(parts, name, ranker, encoder, features, jobs)

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

        Equal scores are ordered by job id; of several adverts with the same title and company only the best is given, as the
        step `recommend` does. Candidates that the catalogue lacks are named in `unknown`. Open or expired makes no difference.
        """
        ts = time.time_ns() // 1000 if question.ts is None else question.ts
        asked = tuple(dict.fromkeys(question.candidates or ()))
        row_N = self._jobs.find(asked)
        known = [job_id for job_id, row in zip(asked, row_N, strict=True) if row >= 0]
        row_N = row_N[row_N >= 0]
        request = Request(
            ts=ts, user_id=question.user_id, query=question.query, city=question.city, region=question.region,
            country=question.country,
        )  # fmt: skip
        score_N = self._scores(request, known, row_N) if known else np.empty(0, np.float32)
        return Answer(
            request_id=question.request_id or uuid.uuid4().hex,
            ts=ts,
            jobs=self._best(known, row_N, score_N, question.k),
            versions=self.versions,
            unknown=tuple(job_id for job_id in asked if job_id not in self._jobs.documents.row_by_job),
        )

    def warm(self) -> None:
        """Do once what costs more the first time: every length of query, and every compiled function."""
        self._encoder.warm()
        some = tuple(list(self._jobs.documents.row_by_job)[:2])
        self.answer(Question(query="warm", candidates=some))

    def observe(self, events: pa.Table) -> None:
        """Count what has happened (`features.online.EVENTS`)."""
        self._features.observe(events)

    def close(self) -> None:
        """Nothing to do yet: files stay mapped until the last answer is given."""

    def _scores(self, request: Request, job_ids: Sequence[str], row_N: Ints) -> Floats:
        query = self._ranker.query(self._features.vector(request.query))
        columns = self._features.read(request, job_ids)
        feature_NF = np.stack([columns[name] for name in self._ranker.names]).T
        return self._ranker.score(query, self._jobs.documents.table_JT, row_N, feature_NF)

    def _best(self, job_ids: Sequence[str], row_N: Ints, score_N: Floats, k: int) -> tuple[RankedJob, ...]:
        """The best k, each advert once."""
        order = sorted(range(len(job_ids)), key=lambda i: (-score_N[i], job_ids[i]))
        found: list[RankedJob] = []
        seen: set[tuple[str, str]] = set()
        for i in order:
            job = {name: self._jobs.shown[name][int(row_N[i])] for name in self._jobs.shown.column_names}
            title, company = job["title"].as_py(), job["company"].as_py()
            if same_advert(title, company) in seen:
                continue
            seen.add(same_advert(title, company))
            found.append(RankedJob(
                job_id=job_ids[i], rank=len(found) + 1, score=float(score_N[i]), title=title, company=company,
                city=job["city"].as_py(), region=job["region"].as_py(), posted_at=job["posted_at"].value,
            ))  # fmt: skip
            if len(found) == k:
                break
        return tuple(found)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _recogniser(entities: Path, dataset: Path) -> Recognise:
    """As the step that wrote the entities."""
    from tritower.entities.recognise import recogniser

    config = from_dict(EntitiesConfig, storage.read_json(entities / "entities.json")["config"])
    employers = pq.read_table(dataset / "jobs.parquet", columns=["company"])["company"].unique().drop_null().to_pylist()
    return recogniser(config, sorted(employers))
