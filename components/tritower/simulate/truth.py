"""The truth of any pair of a search and a job, recomputed from a saved world."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tritower import storage
from tritower.errors import ArtifactError
from tritower.simulate import relevance as click_model
from tritower.simulate import world as worlds
from tritower.simulate.world import World

COLUMN = "true_probability"


def relevance(world: World | str | Path, request_ids: Sequence[str], job_ids: Sequence[str]) -> NDArray[np.float32]:
    """Probability of a click if examined, for aligned ids of the log; equal, to the bit, to `relevance` of the truth table.

    Any job may be paired with any request, also one that was never shown for it or is not open at the time.

    Args:
        world: a loaded world, the `world` folder of a log, or the log's folder.
        request_ids: ids from the log.
        job_ids: ids from the log.

    Raises:
        ArtifactError: an id is not of this world.
    """
    if not isinstance(world, World):
        world = open_world(world)
    request = _numbers(request_ids, "r", len(world.requests.user), "request_id")
    job = _numbers(job_ids, "j", len(world.jobs.city), "job_id")
    return click_model.relevance(world, request, job)


def open_world(log: str | Path) -> World:
    """The world of a log, given its `world` folder or the log's own folder."""
    inner = Path(log) / "world"
    return worlds.load(inner if inner.is_dir() else log)


def add(*, world: str | Path, recommendations: str | Path, out: str | Path, impressions: str | Path | None = None) -> int:
    """Write a Parquet table with columns request_id and job_id again, with the column `true_probability` (float32) added.

    Args:
        world: the log's folder or its `world` folder.
        recommendations: a Parquet file such as schema.RECOMMENDATIONS.
        out: the Parquet file to write.
        impressions: the log's impressions, to make sure that they belong to this world.

    Returns:
        The number of rows.

    Raises:
        ArtifactError: the ids, or the impressions, are not of this world.
    """
    loaded = open_world(world)
    if impressions is not None:
        _same_world(loaded, Path(impressions))
    table = pq.read_table(recommendations, partitioning=None)
    values = relevance(loaded, table["request_id"].to_pylist(), table["job_id"].to_pylist())
    if "user_id" in table.column_names:
        _same_users(loaded, table, str(recommendations))
    with storage.atomic_file(out) as temporary:
        pq.write_table(table.append_column(pa.field(COLUMN, pa.float32(), nullable=False), pa.array(values)), temporary)
    return int(table.num_rows)


def _same_world(world: World, impressions: Path) -> None:
    first = storage.parquet_parts(impressions)[0] if impressions.is_dir() else impressions
    head = next(pq.ParquetFile(first).iter_batches(1_000, columns=["request_id", "user_id"]), None)
    if head is not None:
        _same_users(world, pa.Table.from_batches([head]), str(first))


def _same_users(world: World, table: pa.Table, where: str) -> None:
    """A cheap proof that rows and world belong together: the user of each request."""
    pairs = [(r, u) for r, u in zip(table["request_id"].to_pylist(), table["user_id"].to_pylist(), strict=True) if u]
    request = _numbers([r for r, _ in pairs], "r", len(world.requests.user), "request_id")
    expected = [worlds.user_id(int(user)) for user in world.requests.user[request]]
    if expected != [u for _, u in pairs]:
        raise ArtifactError("the searches are not of this world: other users made them", where=where, remedy=_REMEDY)


_REMEDY = "Give the world that was written with this log."


def _numbers(ids: Sequence[str], letter: str, count: int, column: str) -> NDArray[np.int64]:
    numbers = np.array([int(i[1:]) if i[:1] == letter and i[1:].isdecimal() else -1 for i in ids], np.int64)
    bad = np.flatnonzero((numbers < 0) | (numbers >= count))
    if len(bad):
        raise ArtifactError(f"{ids[bad[0]]!r} is not an id of this world", where=column, remedy=_REMEDY)
    return numbers
