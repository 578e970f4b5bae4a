"""The board's arrays and texts as the tables of `schema.py`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tritower import schema, vocabulary
from tritower.simulate import chance
from tritower.simulate import world as worlds
from tritower.simulate.lexicon import Lexicon
from tritower.simulate.log import Block
from tritower.simulate.world import World
from tritower.vocabulary import Place

_TIME = pa.timestamp("us", tz="UTC")
_SPREAD_KM, _KM_PER_DEGREE = 5.0, 111.2


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What the arrays of a world are called; only the log needs it. `meant_R` says which searches name what is wanted."""

    words: Lexicon
    cities: list[Place]
    companies: list[str]
    titles: list[str]
    descriptions: list[str | None]
    queries: list[str]
    meant_R: NDArray[np.bool_]
    profiles: dict[str, pa.Array]


class Ids:
    """The ids of jobs and users as Arrow arrays, made once."""

    def __init__(self, world: World) -> None:
        self.jobs = pa.array([worlds.job_id(i) for i in range(len(world.jobs.city))])
        self.users = pa.array([worlds.user_id(i) for i in range(len(world.users.city))])


def jobs(world: World, texts: Texts, ids: Ids) -> pa.Table:
    """The adverts as schema.RAW_JOBS."""
    codes = np.array(texts.words.codes, object)
    hidden = chance.generator(world.config.seed, "hidden occupation").random(len(codes[world.jobs.category]))
    columns = {
        "job_id": ids.jobs,
        "title": pa.array(texts.titles),
        "company": pa.array(texts.companies).take(pa.array(world.jobs.company)),
        **_place(texts.cities, world.jobs.city),
        "occupation": pa.array(codes[world.jobs.category], pa.string(), mask=hidden < world.config.occupation_missing),
        "description": pa.array(texts.descriptions, pa.string()),
        "posted_at": pa.array(world.jobs.posted_us, _TIME),
        "expires_at": pa.array(world.jobs.expires_us, _TIME),
        **_coordinates(world, texts.cities),
    }
    return _as(schema.RAW_JOBS, columns)


def _coordinates(world: World, cities: list[Place]) -> dict[str, pa.Array]:
    """Where each job is: some kilometres from the middle of its city; unknown for a share of them."""
    rng = chance.generator(world.config.seed, "coordinates")  # a stream of its own: no other number of the log depends on it
    centre_C2 = np.array([vocabulary.coordinates()[place.city, place.region] for place in cities])
    point_J2 = centre_C2[world.jobs.city]
    moved_J2 = rng.standard_normal(point_J2.shape) * _SPREAD_KM / _KM_PER_DEGREE
    moved_J2[:, 1] /= np.cos(np.radians(point_J2[:, 0]))
    is_unknown_J = rng.random(len(point_J2)) < world.config.coordinates_missing
    columns = (point_J2 + moved_J2).round(5).T
    return {name: pa.array(one, mask=is_unknown_J) for name, one in zip(("latitude", "longitude"), columns, strict=True)}


def users(texts: Texts, ids: Ids) -> pa.Table:
    """The people as schema.RAW_USERS."""
    return _as(schema.RAW_USERS, {"user_id": ids.users, **texts.profiles})


def impressions(world: World, texts: Texts, ids: Ids, block: Block) -> pa.Table:
    """A block as schema.RAW_IMPRESSIONS; text columns are dictionary-encoded."""
    requests = world.requests
    first, local = _dense(block.request)
    ts = requests.ts_us[block.request]
    columns = {
        "request_id": _coded(local, pa.array([worlds.request_id(int(r)) for r in first])),
        "ts": pa.array(ts, _TIME),
        "user_id": _coded(local, ids.users.take(pa.array(requests.user[first]))),
        "query": _coded(local, pa.array([texts.queries[q] for q in requests.query[first]])),
        "job_id": _job_ids(ids, block.job),
        "clicked": pa.array(block.clicked),
        "position": pa.array(block.position),
        "clicked_at": pa.array(ts + block.delay_us, _TIME, mask=~block.clicked),
        **{name: _coded(local, values) for name, values in _place(texts.cities, requests.city[first]).items()},
        "randomised": pa.array(requests.randomised[block.request]),
    }
    return _as(schema.RAW_IMPRESSIONS, columns)


def truth(ids: Ids, block: Block) -> pa.Table:
    """A block as schema.TRUTH."""
    first, local = _dense(block.request)
    columns = {
        "request_id": _coded(local, pa.array([worlds.request_id(int(r)) for r in first])),
        "job_id": _job_ids(ids, block.job),
        "relevance": pa.array(block.relevance),
        "click_probability": pa.array(block.click_probability),
    }
    return _as(schema.TRUTH, columns)


def _dense(request: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The distinct values of an ascending array and, for each row, which it is."""
    new = np.r_[True, request[1:] != request[:-1]]
    return request[new], (np.cumsum(new) - 1).astype(np.int32)


def _coded(local: NDArray[np.int32], values: pa.Array) -> pa.Array:
    # Equal values in a dictionary make the Parquet writer give up dictionary pages, and then its bytes vary from run to run.
    distinct = values.dictionary_encode()
    return pa.DictionaryArray.from_arrays(distinct.indices.take(pa.array(local)), distinct.dictionary)


def _job_ids(ids: Ids, job: NDArray[np.int32]) -> pa.Array:
    used = np.zeros(len(ids.jobs), np.bool_)
    used[job] = True
    numbers = np.flatnonzero(used)
    local = np.cumsum(used) - 1
    return _coded(local[job].astype(np.int32), ids.jobs.take(pa.array(numbers)))


def _place(cities: list[Place], city: NDArray[np.int32]) -> dict[str, pa.Array]:
    parts = {"city": [p.city for p in cities], "region": [p.region for p in cities], "country": [p.country for p in cities]}
    return {name: pa.array(values).take(pa.array(city)) for name, values in parts.items()}


def _as(table: schema.Table, columns: dict[str, Any]) -> pa.Table:
    fields = [pa.field(c.name, columns[c.name].type, nullable=c.nullable) for c in table.columns]
    return pa.Table.from_arrays([columns[c.name] for c in table.columns], schema=pa.schema(fields))
