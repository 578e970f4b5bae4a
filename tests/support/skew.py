"""The test split of a run asked of a server, request by request, each before its events are sent.

What is answered is compared with what the steps wrote: features bit for bit, scores by their distance. A server begins with the
state of the log up to the test split.

Legend: N jobs of a request, F features.
"""

import datetime as dt
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tritower import schema, storage
from tritower.features import step as features
from tritower.features.config import FeaturesConfig
from tritower.ranker import step as ranker
from tritower.serving import events, tailing, wire
from tritower.serving.bundling import Sources
from tritower.serving.config import Precision, ServeConfig
from tritower.serving.ranking import Ranking

from tests.support import serving_process

Floats = npt.NDArray[np.float32]
_KINDS = ("is_title", "is_document", "is_profile")
_PLACE = ("city", "region", "country")
_MOST_EVENTS = 1_000


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A request of the test split.

    Attributes:
        search: as `POST /rank` takes it.
        events: what was shown and clicked, as `POST /events` takes it.
        feature_NF, score_N: what the steps say of its jobs, in the order of the search's candidates.
        is_new: nobody had typed its query before the split, and no other text equals it.
    """

    search: dict[str, Any]
    events: list[dict[str, Any]]
    feature_NF: Floats
    score_N: Floats
    is_new: bool


class Server(Protocol):
    """What answers and counts."""

    def ask(self, search: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of `POST /rank`."""
        ...

    def tell(self, happened: list[dict[str, Any]]) -> None:
        """Hand over events, and wait until they count."""
        ...


class Within:
    """A ranking in this process, behind the same forms of searches, answers and events as a server's."""

    def __init__(self, bundle: Path, precision: Precision = "auto") -> None:
        self._ranking, self._config = Ranking.open(bundle, precision=precision), ServeConfig()

    def ask(self, search: Mapping[str, Any]) -> dict[str, Any]:
        question = wire.Search.model_validate(search).question(self._config, "r")
        found: dict[str, Any] = json.loads(wire.told(self._ranking.answer(question)))
        return found

    def tell(self, happened: list[dict[str, Any]]) -> None:
        self._ranking.observe(tailing.table([events.checked(event) for event in happened]))


class Process:
    """A server of its own, over HTTP; see `serving`."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def ask(self, search: Mapping[str, Any]) -> dict[str, Any]:
        return self._posted("/rank", search)

    def tell(self, happened: list[dict[str, Any]]) -> None:
        for start in range(0, len(happened), _MOST_EVENTS):
            self._posted("/events", {"events": happened[start : start + _MOST_EVENTS]})
        last = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=max(event["ts"] for event in happened))
        # An answer names the last event that it knows, and costs nothing without candidates.
        serving_process.until(lambda: self.ask({"candidates": []})["versions"]["state"] >= last.isoformat(), 300, pause_s=0.001)

    def _posted(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def serving(bundle: Path, folder: Path, precision: Precision = "auto") -> Iterator[Process]:
    """A server process on a bundle, with a journal below `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    knobs = json.dumps({"port": 0, "rate_per_s": 0, "precision": precision})
    feed = json.dumps({"journal": str(folder / "journal"), "poll_s": 0.01})
    command = ["-m", "tritower.child", "tritower.serving", "serve", "--bundle", str(bundle), "--config", knobs, "--feed", feed]
    with serving_process.served([sys.executable, *command], folder) as running, running.client() as client:
        yield Process(client)


@dataclass
class Found:
    """What a replay found.

    Attributes:
        requests, values: asked, and features compared.
        differ: feature -> in how many values it differs in a bit.
        apart: distances of the scores to the steps'.
        tops: of each request asked without candidates, the ids found.
    """

    requests: int = 0
    values: int = 0
    differ: Counter[str] = field(default_factory=Counter)
    apart: list[float] = field(default_factory=list)
    tops: list[list[str]] = field(default_factory=list)


def replayed(
    server: Server, shown: Iterable[Shown], names: list[str], *,
    asked: Callable[[Shown], bool] = lambda one: True, top: int = 0,
) -> Found:  # fmt: skip
    """Ask the requests of a split, oldest first, and tell what happened after each.

    Args:
        server: with the state up to the split.
        shown: in the order of time.
        names: of the features, in the order of `Shown.feature_NF`.
        asked: those to ask; of the others only the events are told.
        top: ask without candidates, too, for so many jobs.
    """
    found, waiting = Found(), list[dict[str, Any]]()
    for _, group in groupby(shown, key=lambda one: one.search["ts"]):
        together = list(group)  # of one instant: none counts for another
        for one in filter(asked, together):
            if waiting:
                server.tell(waiting)
                waiting = []
            _compare(server.ask(one.search), one, names, found)
            if top:
                plain = {name: value for name, value in one.search.items() if name not in ("candidates", "features")}
                found.tops.append([job["job_id"] for job in server.ask(plain | {"k": top})["jobs"]])
        waiting += [event for one in together for event in one.events]
    return found


def _compare(answer: dict[str, Any], one: Shown, names: list[str], found: Found) -> None:
    order = [answer["features"].index(name) for name in names]
    at = {job_id: n for n, job_id in enumerate(one.search["candidates"])}
    given = [np.array([np.nan if value is None else value for value in job["features"]], np.float32) for job in answer["jobs"]]
    place = [at[job["job_id"]] for job in answer["jobs"]]  # adverts that read alike are answered once
    got_NF, expected_NF = np.stack(given)[:, order], one.feature_NF[place]
    is_other_NF = (got_NF.view(np.uint32) != expected_NF.view(np.uint32)) & ~(np.isnan(got_NF) & np.isnan(expected_NF))
    for f in np.flatnonzero(is_other_NF.any(axis=0)):
        found.differ[names[f]] += int(is_other_NF[:, f].sum())
    found.requests, found.values = found.requests + 1, found.values + got_NF.size
    found.apart += np.abs(np.array([job["score"] for job in answer["jobs"]]) - one.score_N[place]).tolist()


def split(sources: Sources, folder: Path, most: int | None = None) -> tuple[list[Shown], list[str]]:
    """The requests of a run's test split, in the order of time, and the names of the features.

    Args:
        sources: of the run.
        folder: gets the scores of the step `score`.
        most: requests; None = all.
    """
    own = sources
    if not (folder / "scores").exists():
        ranker.score(features=own.features, embeddings=own.embeddings, model=own.model, scores=folder / "scores")
    score_R = pq.read_table(folder / "scores" / "test.parquet").sort_by("row")["score"].to_numpy()
    rows = pq.read_table(own.features / "test", partitioning=None).sort_by("row")
    shown = pq.read_table(own.dataset / "impressions" / "test", partitioning=None).sort_by("row")
    assert rows["row"].equals(shown["row"])
    names = [one["name"] for one in storage.read_json(own.features / "features.json")["features"]]
    feature_RF = np.stack([rows[name].to_numpy() for name in names], axis=1).astype(np.float32)
    ids = {what: pq.read_table(own.dataset / f"{what}s.parquet")[f"{what}_id"].to_pylist() for what in ("user", "job")}
    texts = pq.read_table(own.dataset / "texts.parquet")["value"].to_pylist()
    known = ~_only_in_test(own.dataset)
    requests = pq.read_table(own.dataset / "requests.parquet").to_pylist()
    request_R, found = rows["request"].to_numpy(), []
    starts = np.flatnonzero(np.r_[True, request_R[1:] != request_R[:-1], True])
    for start, stop in list(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))[:most]:
        asked, own_rows = requests[request_R[start]], shown.slice(start, stop - start).to_pylist()
        search = {"query": texts[asked["query_text"]], "user_id": ids["user"][asked["user"]], "ts": _us(asked["ts"])}
        search |= {name: asked[name] for name in _PLACE}
        happened = [
            {"request_id": asked["request_id"], "job_id": ids["job"][row["job"]], **search, "clicked": row["clicked"]}
            | {name: row[name] for name in ("position", "randomised")}
            | {"clicked_at": None if row["clicked_at"] is None else _us(row["clicked_at"])}
            for row in own_rows
        ]  # fmt: skip
        jobs = [event["job_id"] for event in happened]
        found.append(Shown(
            search=search | {"candidates": jobs, "k": len(jobs), "features": True}, events=happened,
            feature_NF=feature_RF[start:stop], score_N=score_R[start:stop], is_new=not known[asked["query_text"]],
        ))  # fmt: skip
    return sorted(found, key=lambda one: one.search["ts"]), names


def before_test(sources: Sources, folder: Path) -> Path:
    """The state of a dataset that lacks the test split's events."""
    if (folder / "features").exists():
        return folder / "features"
    dataset = folder / "dataset"
    shutil.rmtree(dataset, ignore_errors=True)
    (dataset / "impressions" / "test").mkdir(parents=True)
    for path in sources.dataset.glob("[!.]*.*"):
        (dataset / path.name).symlink_to(path.absolute())
    for part in ("train", "validation"):
        (dataset / "impressions" / part).symlink_to((sources.dataset / "impressions" / part).absolute())
    pq.write_table(schema.DATASET_IMPRESSIONS.arrow().empty_table(), dataset / "impressions" / "test" / "part-00000.parquet")
    features.run(
        dataset=dataset, embeddings=sources.embeddings, entities=sources.entities, features=folder / "features",
        config=FeaturesConfig(),
    )  # fmt: skip
    return folder / "features"


def without_new_queries(sources: Sources, folder: Path) -> Sources:
    """The same run, with a catalogue that lacks the queries which the test split brings: a server has to encode them."""
    is_new_T, dataset, entities = _only_in_test(sources.dataset), folder / "dataset", folder / "entities"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sources.dataset, dataset, ignore=shutil.ignore_patterns(".*"))
    texts = pq.read_table(dataset / "texts.parquet")
    at = texts.schema.get_field_index("is_query")
    is_query = pa.array(texts["is_query"].to_numpy() & ~is_new_T)
    pq.write_table(texts.set_column(at, texts.schema.field(at), is_query), dataset / "texts.parquet")
    assert sources.entities
    shutil.copytree(sources.entities, entities, ignore=shutil.ignore_patterns(".*"))
    rows = pq.read_table(entities / "entities.parquet")
    pq.write_table(rows.filter(pa.array(~is_new_T[rows["text"].to_numpy()])), entities / "entities.parquet")
    facts = storage.read_json(entities / "entities.json")
    facts["counts"]["texts"] -= int(is_new_T.sum())
    storage.write_json(entities / "entities.json", facts)
    return replace(sources, dataset=dataset, entities=entities)


def _only_in_test(dataset: Path) -> npt.NDArray[np.bool_]:
    """The texts that are queries of the test split alone, and nothing else."""
    texts = pq.read_table(dataset / "texts.parquet")
    requests = pq.read_table(dataset / "requests.parquet", columns=["query_text", "split"])
    earlier = requests.filter(pa.compute.not_equal(requests["split"], "test"))["query_text"].to_numpy()
    is_other_T = np.logical_or.reduce([texts[kind].to_numpy() for kind in _KINDS])
    is_other_T[earlier] = True
    return texts["is_query"].to_numpy() & ~is_other_T


def _us(moment: dt.datetime) -> int:
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
