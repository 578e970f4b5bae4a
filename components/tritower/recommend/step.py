"""The steps `candidates` and `recommend`: files in, files out."""

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tritower import logs, storage, threads
from tritower.engines.duckdb import read_parquet
from tritower.errors import DataError
from tritower.recommend import inputs, retrieve, sample
from tritower.recommend import report as pages
from tritower.recommend.clicks import Clicks
from tritower.recommend.config import CandidatesConfig, RecommendConfig
from tritower.recommend.index import NEVER, Index
from tritower.schema import DATASET_IMPRESSIONS, RECOMMENDATIONS
from tritower.storage import manifest

logger = logging.getLogger(__name__)

_BLOCK = 256  # searches whose candidates are written at a time

Ints = NDArray[np.int64]


def candidates(
    *, dataset: str | Path, embeddings: str | Path, candidates: str | Path, config: CandidatesConfig
) -> dict[str, Any]:
    """Choose searches, retrieve jobs for each, and write them as rows that the feature step can read.

    Args:
        dataset: folder written by ingest.
        embeddings: folder written by embed.
        candidates: folder to write: `requests.parquet` and `candidates/part-*.parquet`.

    Returns:
        Counts: searches, searches_without_candidates, candidates, candidates_per_search (mean).

    Raises:
        DataError: the split has no requests, or a wanted request does not exist.
    """
    threads.cap_libraries()
    source = Path(dataset)
    manifest.check(dataset, embeddings)
    with logs.phase(logger, "choose searches") as counts:
        requests = _chosen_requests(source, config)
        counts["searches"] = requests.num_rows
    with logs.phase(logger, "retrieve") as counts, storage.atomic_directory(candidates) as folder:
        pq.write_table(requests, folder / "requests.parquet")
        (folder / "candidates").mkdir()
        index, clicks = inputs.index(source, Path(embeddings)), inputs.clicks(source, Path(embeddings))
        searches = _searches(source, inputs.matrix(Path(embeddings)), requests)
        with pq.ParquetWriter(folder / "candidates" / "part-00000.parquet", DATASET_IMPRESSIONS.arrow()) as writer:
            rows = answered = 0
            for table in _candidate_rows(requests, searches, index, clicks, config.candidates_per_search):
                writer.write_table(table)
                rows += table.num_rows
                answered += len(table["request"].unique())
        counts["candidates"] = rows
    if answered < requests.num_rows:
        _warn_unanswered(requests.num_rows - answered, requests, index)
    return {
        "searches": requests.num_rows,
        "searches_without_candidates": requests.num_rows - answered,
        "candidates": rows,
        "candidates_per_search": rows / requests.num_rows,
    }


def _warn_unanswered(count: int, requests: pa.Table, jobs: Index) -> None:
    """Say that searches get no jobs, and why where no advert is open at all."""
    ts_us = _int64(requests["ts"])
    first, last = int(ts_us.min()), int(ts_us.max())
    known = jobs.expires_J[jobs.expires_J != NEVER]
    reason = "no advert in them is open at the search's time"
    if not ((jobs.posted_J <= last) & (jobs.expires_J > first)).any():
        reason = f"no advert is open at {logs.moment(last)}"
        reason += f"; the last expired {logs.moment(int(known.max()))}" if len(known) else "; all are posted later"
    logger.warning("%d of %d searches get no recommendation: %s", count, requests.num_rows, reason)


def run(
    *,
    dataset: str | Path,
    candidates: str | Path,
    scores: str | Path,
    recommendations: str | Path,
    config: RecommendConfig,
    report: str | Path = "",
) -> dict[str, Any]:
    """Rank the scored candidates of each search and write the top K as one Parquet file.

    Equal scores are ordered by job id, so that the same input always gives the same list.

    Args:
        dataset: folder written by ingest.
        candidates: folder written by `candidates`.
        scores: folder with `candidates.parquet`, the ranker's scores of them.
        recommendations: Parquet file to write.
        report: HTML file to write, if any: twenty searches with their ranked jobs.

    Returns:
        Counts: searches, recommendations, duplicates (adverts left out because a better one stands for them).

    Raises:
        DataError: the scores are not those of these candidates.
    """
    manifest.check(dataset, candidates, scores)
    with logs.phase(logger, "rank candidates") as counts, duckdb.connect(config={"threads": threads.chosen()}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        _register(connection, Path(dataset), Path(candidates), Path(scores))
        _check_scores(connection, str(scores))
        connection.execute(_RANK_SQL, {"collapse": config.collapse_duplicates}).fetchall()
        ((searches, kept, scored),) = connection.execute(
            "SELECT count(DISTINCT request), count(*), (SELECT count(*) FROM scored) FROM ranked"
        ).fetchall()
        with storage.atomic_file(recommendations) as file:
            top: pa.Table = connection.sql(_TOP_SQL, params={"top_k": config.top_k}).to_arrow_table()
            pq.write_table(top.cast(RECOMMENDATIONS.arrow()), file)
        ((asked,),) = connection.execute("SELECT count(*) FROM requests").fetchall()
        counts["searches"], counts["recommendations"] = searches, top.num_rows
    if str(report):
        told = {"searches": searches, "recommendations": top.num_rows, "without": asked - searches}
        storage.write_text(report, pages.html(top, told))
    return {"searches": searches, "recommendations": top.num_rows, "duplicates": scored - kept}


_RANK_SQL = """
CREATE TEMP TABLE ranked AS
SELECT *, row_number() OVER (PARTITION BY request ORDER BY score DESC, job_id) AS rank
FROM (
    SELECT scored.request, scored.score, jobs.job_id, jobs.title, jobs.company, jobs.city, jobs.region,
        row_number() OVER (
            PARTITION BY scored.request,
                CASE WHEN $collapse THEN regexp_replace(lower(trim(jobs.title)), '\\s+', ' ', 'g') ELSE jobs.job_id END,
                CASE WHEN $collapse THEN jobs.company_key ELSE 0 END
            ORDER BY scored.score DESC, jobs.job_id
        ) AS copy
    FROM scored JOIN jobs USING (job)
)
WHERE copy = 1
"""

_TOP_SQL = """
SELECT ranked.request, requests.request_id, users.user_id, texts.value AS query,
    requests.city AS request_city, requests.region AS request_region, requests.ts,
    ranked.rank::SMALLINT AS rank, ranked.job_id, ranked.title, ranked.company, ranked.city, ranked.region, ranked.score
FROM ranked
JOIN requests USING (request)
JOIN users ON users."user" = requests."user"
JOIN texts ON texts.text = requests.query_text
WHERE ranked.rank <= $top_k
ORDER BY ranked.request, ranked.rank
"""


def _register(connection: duckdb.DuckDBPyConnection, dataset: Path, candidates: Path, scores: Path) -> None:
    rows = [str(part) for part in storage.parquet_parts(candidates / "candidates")]
    views = {
        "jobs": [str(dataset / "jobs.parquet")],
        "users": [str(dataset / "users.parquet")],
        "texts": [str(dataset / "texts.parquet")],
        "requests": [str(candidates / "requests.parquet")],
        "candidates": rows,
        "scores": [str(scores / "candidates.parquet")],
    }
    for name, files in views.items():
        connection.sql(f"SELECT * FROM {read_parquet(files)}").create_view(name)
    connection.execute(
        "CREATE TEMP TABLE scored AS SELECT candidates.request, candidates.job, scores.score "
        "FROM candidates JOIN scores USING (row, request)"
    )


def _check_scores(connection: duckdb.DuckDBPyConnection, where: str) -> None:
    found = connection.execute(
        "SELECT (SELECT count(*) FROM scored), (SELECT count(*) FROM candidates), (SELECT count(*) FROM scores)"
    ).fetchall()
    if len(set(found[0])) != 1:
        raise DataError(
            f"the scores do not match the candidates (matched, candidates, scores: {found[0]})",
            where=where,
            remedy="Score the features of these very candidates.",
        )
    ((broken,),) = connection.execute("SELECT count(*) FROM scores WHERE score IS NULL OR NOT isfinite(score)").fetchall()
    if broken:
        raise DataError(f"{broken:,} of {found[0][2]:,} scores are not finite", where=where, remedy="Score again.")


def _chosen_requests(dataset: Path, config: CandidatesConfig) -> pa.Table:
    requests = pq.read_table(dataset / "requests.parquet")
    if config.request_ids:
        chosen = sample.by_id(requests["request_id"].to_pylist(), config.request_ids)
    else:
        of_split = requests if config.split == "all" else requests.filter(pc.equal(requests["split"], config.split))
        if of_split.num_rows == 0:
            raise DataError(
                f"the split {config.split!r} has no requests",
                where=str(dataset / "requests.parquet"),
                remedy="Give a longer log, or another split.",
            )
        number = _int64(of_split["request"])
        if config.latest_per_user:
            chosen = sample.latest_per_user(number, _int64(of_split["user"]))
        else:
            chosen = sample.latest(number, count=config.searches, share=config.recent_share, seed=config.seed)
    taken = requests.take(pa.array(chosen))
    if config.answer_at == "end":
        end = pc.max(requests["ts"].cast(pa.int64())).as_py() + 1
        column = taken.schema.get_field_index("ts")
        ts = pa.array(np.full(len(chosen), end)).cast(requests.schema.field("ts").type)
        taken = taken.set_column(column, requests.schema.field("ts"), ts)
    return taken


def _searches(dataset: Path, matrix_TD: NDArray[np.float16], requests: pa.Table) -> Iterator[retrieve.Search]:
    text = pq.read_table(dataset / "texts.parquet", columns=["value"])["value"]
    users = pq.read_table(dataset / "users.parquet", columns=["user_id", "interest_texts", "past_title_texts"])
    query_text = _int64(requests["query_text"])
    columns = (
        query_text,
        text.take(pa.array(query_text)).to_pylist(),
        _int64(requests["ts"]),
        users.take(requests["user"]).to_pylist(),
        requests["city"].to_pylist(),
        requests["region"].to_pylist(),
    )
    for number, query, ts_us, user, city, region in zip(*columns, strict=True):
        yield retrieve.Search(
            ts_us=ts_us,
            query=query,
            query_D=matrix_TD[number] if query else None,
            profile_XD=matrix_TD[[*(user["interest_texts"] or ()), *(user["past_title_texts"] or ())]],
            user_id=user["user_id"],
            city=city,
            region=region,
        )


def _candidate_rows(
    requests: pa.Table, searches: Iterator[retrieve.Search], index: Index, clicks: Clicks, limit: int
) -> Iterator[pa.Table]:
    row = search = 0
    for asked in logs.progress(_blocks(searches), name="retrieve", unit="blocks"):
        block = [retrieve.retrieve(one, index, clicks, limit=limit) for one in asked]
        count = [len(one) for one in block]
        part = requests.take(pa.array(np.repeat(np.arange(search, search + len(block)), count)))
        job = np.concatenate(block)
        part = requests.take(pa.array(np.repeat(np.arange(search, search + len(block)), count)))
        rows = len(job)
        columns = {
            "row": np.arange(row, row + rows),
            "request": part["request"],
            "ts": part["ts"],
            "user": part["user"],
            "job": job.astype(np.int32),
            "query_text": part["query_text"],
            "document_text": index.text_J[job].astype(np.int32),
            "position": pa.nulls(rows, pa.int16()),
            "clicked": np.zeros(rows, dtype=bool),
            "clicked_at": pa.nulls(rows, pa.timestamp("us", tz="UTC")),
            "randomised": np.zeros(rows, dtype=bool),
        }
        yield pa.table(columns).cast(DATASET_IMPRESSIONS.arrow())
        row, search = row + rows, search + len(block)


def _blocks(searches: Iterator[retrieve.Search]) -> Iterator[list[retrieve.Search]]:
    while block := list(itertools.islice(searches, _BLOCK)):
        yield block


def _int64(column: pa.ChunkedArray, missing: int = -1) -> Ints:
    values: Ints = pc.fill_null(column.cast(pa.int64()), missing).to_numpy()
    return values
