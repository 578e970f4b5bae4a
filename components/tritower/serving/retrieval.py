"""Jobs for a search that brings no candidates: the same lists as the step `candidates` makes, from the same function.

Beside the index stand the clicks by user and by query; `observe` adds what happens, `update` takes in adverts.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tritower import storage
from tritower.features.live import clean
from tritower.recommend import inputs
from tritower.recommend.clicks import Clicks
from tritower.recommend.config import CandidatesConfig
from tritower.recommend.index import Index
from tritower.recommend.retrieve import Conditions, Search, retrieve
from tritower.schema import document_text
from tritower.serving.messages import Filters, Question

CANDIDATES = CandidatesConfig().candidates_per_search
"""Jobs that are scored for a search, as many as the batch scores, at least."""
Embed = Callable[[Sequence[str]], npt.NDArray[np.floating[Any]]]
"""Texts in, their unit vectors (X, D) out."""


class Retrieval:
    """An index and its clicks. Any number of threads may search, observe and update."""

    def __init__(self, index: Index, clicks: Clicks) -> None:
        """For `open`."""
        self._index, self._clicks = index, clicks
        self._updating = threading.Lock()

    @staticmethod
    def write(dataset: Path, embeddings: Path, out: Path) -> dict[str, int]:
        """Write the parts `index` and `clicks` of a bundle below `out`; counts.

        Args:
            dataset: written by ingest, with its log.
            embeddings: of its texts.
        """
        made_of = {
            "dataset": str(storage.read_json(dataset / "dataset.json")["fingerprint"]),
            "encoder": str(storage.read_json(embeddings / "encoder.json")["hash"]),
        }
        index = inputs.index(dataset, embeddings)
        index.save(out / "index", made_of)
        inputs.clicks(dataset, embeddings).save(out / "clicks", made_of)
        return {"jobs": len(index)}

    @staticmethod
    def open(index: Path, clicks: Path) -> "Retrieval":
        """Map what `write` wrote.

        Raises:
            StorageError: a file is missing or may not be read.
            ArtifactError: a folder was changed, or is of another version.
        """
        return Retrieval(Index.open(index), Clicks.open(clicks))

    @property
    def index(self) -> Index:
        """The jobs as retrieval sees them now."""
        return self._index

    def take(self, index: Index) -> None:
        """Go on with another index, whose jobs have the numbers of the one before."""
        self._index = index

    def search(
        self, question: Question, ts: int, embed: Embed, profile: Sequence[str], near_J: npt.NDArray[np.bool_] | None = None
    ) -> list[str]:
        """The ids of the jobs to score, open at the time and past the filters, those first that most lists agree on.

        Args:
            question: who asks for what.
            ts: the time it is answered for.
            embed: for the query and the titles.
            profile: wanted and past titles of whoever asks.
            near_J: which jobs lie near enough; None = all.
        """
        index, query, titles = self._index, clean(question.query), [title for title in map(clean, profile) if title]
        visitor = question.visitor
        clicked = None if visitor is None else index.find([click.job_id for click in visitor.clicks if click.ts < ts])
        search = Search(
            ts_us=ts,
            query=query,
            query_D=embed([query])[0] if query else None,
            profile_XD=embed(titles) if titles else None,
            user_id="" if visitor else question.user_id,
            clicked=None if clicked is None else clicked[clicked >= 0],
            city=question.city,
            region=question.region,
            conditions=conditions(question.filters, near_J),
        )
        return index.ids(retrieve(search, index, self._clicks, limit=max(CANDIDATES, question.k)))

    def observe(self, events: pa.Table, embed: Embed) -> None:
        """Take in the clicks among events (`features.online.EVENTS`); one on a job that the catalogue lacks counts for nothing.

        Args:
            embed: for the queries.
        """
        clicks = events.filter(events.column("clicked"))
        number_N = self._index.find(clicks.column("job_id").to_pylist())
        queries = [clean(query) for query in clicks.column("query").to_pylist()]
        distinct = list(dict.fromkeys(query for query in queries if query))
        vector = dict(zip(distinct, embed(distinct), strict=True)) if distinct else {}
        made = clicks.column("ts") if "clicked_at" not in clicks.column_names else _made(clicks)
        users = clicks.column("user_id").to_pylist()
        for user, job, query, ts in zip(users, number_N.tolist(), queries, made.cast(pa.int64()).to_pylist(), strict=True):
            if job >= 0:
                self._clicks.add(user, job, query, vector.get(query), ts)

    def update(self, jobs: pa.Table, embed: Embed) -> None:
        """Take in new, changed and expired adverts (`schema.RAW_JOBS`); searches under way keep the index they began with."""
        titles, companies = (map(clean, jobs.column(name).to_pylist()) for name in ("title", "company"))
        documents = [document_text(title, company) for title, company in zip(titles, companies, strict=True)]
        if documents:
            vector_ND = embed(documents)
            with self._updating:
                self._index = self._index.updated(jobs, documents, vector_ND)

    def forget(self, user_id: str) -> int:
        """Remove a person's clicks; how many there were. What is kept by query does not say who clicked."""
        return self._clicks.forget(user_id)


def _made(clicks: pa.Table) -> pa.ChunkedArray:
    return pc.coalesce(clicks.column("clicked_at"), clicks.column("ts"))


def conditions(filters: Filters, near_J: npt.NDArray[np.bool_] | None = None) -> Conditions:
    """Filters as retrieval takes them; `near_J`: which jobs lie near enough, None = all."""
    return Conditions(
        city=filters.city,
        region=filters.region,
        country=filters.country,
        posted_since=filters.posted_since,
        without_companies=filters.without_companies,
        allowed_J=near_J,
    )
