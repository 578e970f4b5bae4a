"""Build a board and write its log: raw tables, truth and world."""

import datetime
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tritower import logs, schema, storage, vocabulary
from tritower.simulate import chance, lexicon, log, market, people, policy, wording
from tritower.simulate import world as worlds
from tritower.simulate.config import SimulateConfig
from tritower.simulate.world import World

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What the world is called: texts and tables that only the log needs."""

    words: lexicon.Lexicon
    cities: list[vocabulary.Place]
    companies: list[str]
    titles: list[str]
    queries: list[str]
    meant: NDArray[np.bool_]
    profiles: dict[str, pa.Array]


def run(*, out: str | Path, config: SimulateConfig) -> dict[str, Any]:
    """Write a log to the directory `out`.

    Output: `jobs.parquet`, `users.parquet` and `impressions/part-*.parquet` (schema.RAW_TABLES; impressions in the order of
    time), `truth/part-*.parquet` (schema.TRUTH) and `world/`, from which `truth.relevance` recomputes the truth of any pair.

    Returns:
        Counts and rates of the log.
    """
    with storage.atomic_directory(out) as place:
        with logs.phase(logger, "world") as counts:
            world, texts = build(config)
            counts.update(jobs=len(texts.titles), users=len(world.users.city), requests=len(world.requests.user))
        with logs.phase(logger, "calibration"):
            search = policy.index_texts(world, texts.titles, texts.queries, texts.meant)
            world.intercept = log.calibrate(world, search)
        pq.write_table(jobs_table(world, texts), place / "jobs.parquet", compression="zstd")
        pq.write_table(users_table(world, texts), place / "users.parquet", compression="zstd")
        with logs.phase(logger, "impressions") as counts:
            facts = write_impressions(world, search, texts, place)
            counts.update(rows=facts["impressions"], clicks=facts["clicks"])
        world.facts = facts
        worlds.save(world, place / "world")
    return facts


def build(config: SimulateConfig) -> tuple[World, Texts]:
    """The board: everything but its log."""
    first = datetime.datetime.fromisoformat(config.start).replace(tzinfo=datetime.UTC)
    first_us = int(first.timestamp()) * 1_000_000

    def rng(purpose: str) -> np.random.Generator:
        return chance.generator(config.seed, purpose)

    words = lexicon.build(
        vocabulary.titles(), vocabulary.abbreviations(), num_occupations=config.num_occupations, rng=rng("lexicon")
    )
    cities = market.towns(vocabulary.places(), config.num_regions, rng("towns"))
    firms = market.companies(max(12, config.num_jobs // 12), rng("companies"))
    jobs = market.jobs(config, words, cities, firms, first_us, rng("jobs"))
    users = people.users(config, words, cities, rng("users"))
    requests, wishes = people.searches(config, words, users, cities, first_us, rng("searches"))
    queries, requests.query, meant = wording.queries(config, words, requests, wishes, users, cities, firms, rng("queries"))
    world = World(
        config=config,
        jobs=jobs,
        users=users,
        requests=requests,
        relatedness_OO=words.relatedness_OO,
        speciality_VD=words.speciality_VD,
    )
    texts = Texts(
        words=words,
        cities=cities,
        companies=firms.names,
        titles=wording.job_titles(config, words, jobs, cities, rng("titles")),
        queries=queries,
        meant=meant,
        profiles=wording.profiles(config, words, users, cities, rng("profiles")),
    )
    return world, texts


def jobs_table(world: World, texts: Texts) -> pa.Table:
    """The adverts as schema.RAW_JOBS."""
    jobs = world.jobs
    cities, codes = texts.cities, np.array(texts.words.codes, object)
    hidden = chance.generator(world.config.seed, "hidden").random(len(jobs.city)) < world.config.occupation_missing
    return pa.Table.from_pydict(
        {
            "job_id": [worlds.job_id(i) for i in range(len(jobs.city))],
            "title": texts.titles,
            "company": _take(texts.companies, jobs.company),
            "city": _take([p.city for p in cities], jobs.city),
            "region": _take([p.region for p in cities], jobs.city),
            "country": _take([p.country for p in cities], jobs.city),
            "occupation": pa.array(codes[jobs.category], pa.string(), mask=hidden),
            "description": pa.nulls(len(jobs.city), pa.string()),
            "posted_at": _time(jobs.posted_us),
            "expires_at": _time(jobs.expires_us),
        },
        schema=schema.RAW_JOBS.arrow(),
    )


def users_table(world: World, texts: Texts) -> pa.Table:
    """The people as schema.RAW_USERS."""
    ids = pa.array([worlds.user_id(i) for i in range(len(world.users.city))])
    return pa.Table.from_pydict({"user_id": ids, **texts.profiles}, schema=schema.RAW_USERS.arrow())


def write_impressions(world: World, search: policy.Search, texts: Texts, place: Path) -> dict[str, Any]:
    """Stream the impressions and their truth to Parquet; returns counts and rates."""
    (place / "impressions").mkdir()
    (place / "truth").mkdir()
    totals = {"impressions": 0, "clicks": 0, "randomised_impressions": 0, "randomised_clicks": 0}
    parts = -(-len(world.requests.user) // world.config.part_requests)
    shown: Parts | None = None
    true: Parts | None = None
    with Parts(place / "impressions", schema.RAW_IMPRESSIONS) as shown, Parts(place / "truth", schema.TRUTH) as true:
        ids = Names(world)
        for block in logs.progress(log.blocks(world, search), name="impressions", unit="blocks"):
            part = int(block.request[0]) // world.config.part_requests
            shown.write(impressions_table(world, texts, ids, block), part)
            true.write(truth_table(ids, block), part)
            randomised = world.requests.randomised[block.request]
            totals["impressions"] += len(block.job)
            totals["clicks"] += int(block.clicked.sum())
            totals["randomised_impressions"] += int(randomised.sum())
            totals["randomised_clicks"] += int((randomised & block.clicked).sum())
    del parts
    return {
        **totals,
        "ctr": totals["clicks"] / totals["impressions"],
        "requests": len(world.requests.user),
        "jobs": len(texts.titles),
        "users": len(world.users.city),
        "queries": len(texts.queries),
        "occupations": len(texts.words.codes),
        "companies": len(texts.companies),
        "cities": len(texts.cities),
    }


class Names:
    """Ids as Arrow arrays, made once; a column takes from them."""

    def __init__(self, world: World) -> None:
        self.request = np.arange(len(world.requests.user))
        self.jobs = pa.array([worlds.job_id(i) for i in range(len(world.jobs.city))])
        self.users = pa.array([worlds.user_id(i) for i in range(len(world.users.city))])


class Parts:
    """A folder of Parquet files, one open at a time."""

    def __init__(self, folder: Path, table: schema.Table) -> None:
        self.folder, self.schema = folder, table.arrow()
        self.part = -1
        self.writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "Parts":
        return self

    def write(self, table: pa.Table, part: int) -> None:
        if part != self.part:
            self.close()
            self.part = part
            # Without the Arrow schema in the file, dictionary columns read back as plain strings.
            self.writer = pq.ParquetWriter(
                self.folder / f"part-{part:05d}.parquet",
                table.schema,
                compression="zstd",
                compression_level=1,
                store_schema=False,
            )
        assert self.writer is not None
        self.writer.write_table(table)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def __exit__(self, *_: object) -> None:
        self.close()


def impressions_table(world: World, texts: Texts, ids: Names, block: log.Block) -> pa.Table:
    """A block as schema.RAW_IMPRESSIONS; text columns are dictionary-encoded."""
    requests = world.requests
    first, local = np.unique(block.request, return_inverse=True)
    ts = requests.ts_us[block.request]
    cities = texts.cities

    def by_request(values: pa.Array) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(local.astype(np.int32)), values)

    def by_city(values: list[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(requests.city[block.request]), pa.array(values))

    job, job_local = np.unique(block.job, return_inverse=True)
    columns = {
        "request_id": by_request(pa.array([worlds.request_id(int(r)) for r in first])),
        "ts": _time(ts),
        "user_id": by_request(ids.users.take(pa.array(requests.user[first]))),
        "query": by_request(pa.array([texts.queries[q] for q in requests.query[first]])),
        "job_id": pa.DictionaryArray.from_arrays(pa.array(job_local.astype(np.int32)), ids.jobs.take(pa.array(job))),
        "clicked": pa.array(block.clicked),
        "position": pa.array(block.position),
        "clicked_at": pa.array(ts + block.delay_us, pa.timestamp("us", tz="UTC"), mask=~block.clicked),
        "city": by_city([p.city for p in cities]),
        "region": by_city([p.region for p in cities]),
        "country": by_city([p.country for p in cities]),
        "randomised": pa.array(requests.randomised[block.request]),
    }
    return _as(schema.RAW_IMPRESSIONS, columns)


def truth_table(ids: Names, block: log.Block) -> pa.Table:
    """A block as schema.TRUTH."""
    first, local = np.unique(block.request, return_inverse=True)
    job, job_local = np.unique(block.job, return_inverse=True)
    request_ids = pa.array([worlds.request_id(int(r)) for r in first])
    columns = {
        "request_id": pa.DictionaryArray.from_arrays(pa.array(local.astype(np.int32)), request_ids),
        "job_id": pa.DictionaryArray.from_arrays(pa.array(job_local.astype(np.int32)), ids.jobs.take(pa.array(job))),
        "relevance": pa.array(block.relevance),
        "click_probability": pa.array(block.click_probability),
    }
    return _as(schema.TRUTH, columns)


def _as(table: schema.Table, columns: dict[str, pa.Array]) -> pa.Table:
    fields = [pa.field(c.name, columns[c.name].type, nullable=c.nullable) for c in table.columns]
    return pa.Table.from_arrays([columns[c.name] for c in table.columns], schema=pa.schema(fields))


def _take(values: list[str], rows: NDArray[Any]) -> pa.Array:
    return pa.array(values).take(pa.array(rows))


def _time(us: NDArray[np.int64]) -> pa.Array:
    return pa.array(us, pa.timestamp("us", tz="UTC"))
