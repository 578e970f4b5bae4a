"""Build a board and write its log: raw tables, truth and world."""

import collections
import datetime
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tritower import logs, storage, vocabulary
from tritower.errors import StorageError
from tritower.simulate import chance, damage, lexicon, log, market, people, policy, tables, wording
from tritower.simulate import world as worlds
from tritower.simulate.config import SimulateConfig
from tritower.simulate.tables import Ids, Texts
from tritower.simulate.world import World

logger = logging.getLogger(__name__)


def run(*, out: str | Path, config: SimulateConfig) -> dict[str, Any]:
    """Write a log to the directory `out`, which is replaced.

    Output: `jobs.parquet`, `users.parquet` and `impressions/part-*.parquet` (schema.RAW_TABLES; impressions in the order of
    time, a request never in two files), `truth/part-*.parquet` (schema.TRUTH), `bad_rows.json` (what was damaged on purpose)
    and `world/`, from which `truth.relevance` recomputes the truth of any pair.

    Returns:
        Counts and rates of the log, also kept in world/world.json.

    Raises:
        ConfigError: the board would have too few open jobs to fill a page on some day.
        StorageError: `out` holds something else than a log, or cannot be written.
    """
    _replaceable(Path(out))
    with storage.atomic_directory(out) as folder:
        with logs.phase(logger, "world") as counts:
            world, texts = build(config)
            ids = Ids(world)
            counts.update(jobs=len(texts.titles), users=len(world.users.city), requests=len(world.requests.user))
        with logs.phase(logger, "calibration"):
            search = policy.index_texts(world, texts.titles, texts.queries, texts.meant_R)
            world.intercept = log.calibrate(world, search)
        _write(tables.jobs(world, texts, ids), folder / "jobs.parquet")
        _write(tables.users(texts, ids), folder / "users.parquet")
        with logs.phase(logger, "impressions") as counts:
            facts = _stream(world, search, texts, ids, folder)
            counts.update(rows=facts["impressions"], clicks=facts["clicks"])
        world.facts = facts | _sizes(world, texts)
        worlds.save(world, folder / "world")
    return world.facts


def _replaceable(out: Path) -> None:
    """Refuse to replace a directory that is not a log: a slip in `--out` must not cost anyone their files."""
    if out.exists() and not (out / "world" / "world.json").is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise StorageError("the folder holds something else than a log", where=str(out), remedy="Name a new directory.")


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
    market.check_open(config, jobs, first_us)
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
    return world, Texts(
        words=words,
        cities=cities,
        companies=firms.names,
        titles=wording.job_titles(config, words, jobs, cities, rng("titles")),
        descriptions=wording.descriptions(words, jobs, rng("descriptions")),
        queries=queries,
        meant_R=meant,
        profiles=wording.profiles(config, words, users, cities, rng("profiles")),
    )


def _stream(world: World, search: policy.Search, texts: Texts, ids: Ids, folder: Path) -> dict[str, Any]:
    """Write impressions, truth and the list of bad rows block by block; returns counts and rates."""
    config = world.config
    totals = dict.fromkeys(("impressions", "clicks", "randomised_impressions", "randomised_clicks"), 0)
    bad: list[dict[str, Any]] = []
    with _Parts(folder / "impressions") as shown, _Parts(folder / "truth") as true:
        for block in logs.progress(log.blocks(world, search), name="impressions", unit="blocks"):
            part = int(block.request[0]) // config.part_requests
            rows, good = tables.impressions(world, texts, ids, block), tables.truth(ids, block)
            if config.bad_rows:
                kind = damage.draw(config.seed, block.cell, config.bad_rows)
                rows, after = damage.apply(rows, kind)
                good = good.filter(pa.array(damage.in_truth(kind)))
                bad += damage.records(rows, after, *shown.next_row(part))
            shown.write(rows, part)
            true.write(good, part)
            randomised = world.requests.randomised[block.request]
            totals["impressions"] += len(block.job)
            totals["clicks"] += int(block.clicked.sum())
            totals["randomised_impressions"] += int(randomised.sum())
            totals["randomised_clicks"] += int((randomised & block.clicked).sum())
    kinds = collections.Counter(record["kind"] for record in bad)
    storage.write_json(folder / "bad_rows.json", {"counts": {k: kinds[k] for k in damage.KINDS}, "rows": bad})
    return {**totals, "bad_rows": len(bad), "ctr": round(totals["clicks"] / totals["impressions"], 6)}


def _sizes(world: World, texts: Texts) -> dict[str, int]:
    return {
        "requests": len(world.requests.user),
        "randomised_requests": int(world.requests.randomised.sum()),
        "users": len(world.users.city),
        "searching_users": len(np.unique(world.requests.user)),
        "jobs": len(texts.titles),
        "queries": len(texts.queries),
        "titles": len(set(texts.titles)),
        "occupations": len(texts.words.codes),
        "companies": len(texts.companies),
        "cities": len(texts.cities),
    }


class _Parts:
    """A folder of Parquet files, one open at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.part = -1
        self.rows = 0
        self.writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "_Parts":
        return self

    def next_row(self, part: int) -> tuple[str, int]:
        """The file, and the row in it, that the next row of a part will have."""
        return f"part-{part:05d}.parquet", self.rows if part == self.part else 0

    def write(self, table: pa.Table, part: int) -> None:
        if part != self.part:
            self.__exit__()
            self.part, self.rows = part, 0
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
        self.rows += table.num_rows

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", store_schema=False)
