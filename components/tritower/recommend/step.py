"""The steps `candidates` and `recommend`: files in, files out."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tritower import logs, storage, threads
from tritower.engines.duckdb import read_parquet
from tritower.errors import DataError
from tritower.recommend import clicks as past
from tritower.recommend import report as pages
from tritower.recommend import retrieve, sample
from tritower.recommend.config import CandidatesConfig, RecommendConfig
from tritower.schema import DATASET_IMPRESSIONS, RECOMMENDATIONS, SPLITS
from tritower.storage import manifest

logger = logging.getLogger(__name__)

_VOTED = 2_000  # jobs clicked after similar queries, before those no longer open are left out

_NEVER = np.iinfo(np.int64).max

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
        searches, jobs = _inputs(source, Path(embeddings), requests)
        with pq.ParquetWriter(folder / "candidates" / "part-00000.parquet", DATASET_IMPRESSIONS.arrow()) as writer:
            rows = answered = 0
            for table in _candidate_rows(requests, searches, jobs, config):
                writer.write_table(table)
                rows += table.num_rows
                answered += len(table["request"].unique())
        counts["candidates"] = rows
    if answered < requests.num_rows:
        _warn_unanswered(requests.num_rows - answered, searches, jobs)
    return {
        "searches": requests.num_rows,
        "searches_without_candidates": requests.num_rows - answered,
        "candidates": rows,
        "candidates_per_search": rows / requests.num_rows,
    }


def _warn_unanswered(count: int, searches: retrieve.Searches, jobs: retrieve.Jobs) -> None:
    """Say that searches get no jobs, and why where no advert is open at all."""
    first, last = int(searches.ts_us_S.min()), int(searches.ts_us_S.max())
    known = jobs.expires_us_J[jobs.expires_us_J != _NEVER]
    reason = "no advert in them is open at the search's time"
    if not ((jobs.posted_us_J <= last) & (jobs.expires_us_J > first)).any():
        reason = f"no advert is open at {logs.moment(last)}"
        reason += f"; the last expired {logs.moment(int(known.max()))}" if len(known) else "; all are posted later"
    logger.warning("%d of %d searches get no recommendation: %s", count, len(searches.ts_us_S), reason)


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


def _inputs(dataset: Path, embeddings: Path, requests: pa.Table) -> tuple[retrieve.Searches, retrieve.Jobs]:
    matrix_TD = np.load(embeddings / "matrix.npy", mmap_mode="r")
    text = pq.read_table(dataset / "texts.parquet", columns=["value"])["value"]
    jobs = pq.read_table(dataset / "jobs.parquet", columns=["document_text", "posted_at", "expires_at", "city", "region"])
    users = pq.read_table(dataset / "users.parquet", columns=["interest_texts", "past_title_texts"])
    user = users.take(requests["user"])
    query_text = _int64(requests["query_text"])
    is_empty = pc.equal(text.take(pa.array(query_text)), "").to_numpy()
    query_SD = matrix_TD[query_text].astype(np.float32)
    query_SD[is_empty] = 0

    lexical_JV, lexical_SV = retrieve.lexical_vectors(
        text.take(jobs["document_text"]).to_pylist(), text.take(pa.array(query_text)).to_pylist()
    )
    clicks = _clicks(dataset)
    ts_us, text_J = _int64(requests["ts"]), _int64(jobs["document_text"])
    place = {name: _place_numbers(jobs[name], requests[name]) for name in ("city", "region")}
    return retrieve.Searches(
        query_SD=query_SD,
        profile_SD=_profile(matrix_TD, user["interest_texts"].to_pylist(), user["past_title_texts"].to_pylist()),
        history_SD=past.centroids(clicks, _int64(requests["user"]), ts_us, matrix_TD, text_J),
        lexical_SV=lexical_SV,
        ts_us_S=ts_us,
        place_S2=np.stack([place["city"][1], place["region"][1]], axis=1),
        clicked_S=past.voted(clicks, query_SD, ts_us, matrix_TD, limit=_VOTED),
    ), retrieve.Jobs(
        matrix_TD=matrix_TD,
        text_J=text_J,
        lexical_JV=lexical_JV,
        posted_us_J=_int64(jobs["posted_at"], missing=np.iinfo(np.int64).min),
        expires_us_J=_int64(jobs["expires_at"], missing=_NEVER),
        place_J2=np.stack([place["city"][0], place["region"][0]], axis=1),
    )


def _candidate_rows(
    requests: pa.Table, searches: retrieve.Searches, jobs: retrieve.Jobs, config: CandidatesConfig
) -> Iterator[pa.Table]:
    found = retrieve.retrieve(searches, jobs, limit=config.candidates_per_search)
    row = search = 0
    for block in logs.progress(found, name="retrieve", unit="blocks"):
        count = [len(one) for one in block]
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
            "document_text": jobs.text_J[job].astype(np.int32),
            "position": pa.nulls(rows, pa.int16()),
            "clicked": np.zeros(rows, dtype=bool),
            "clicked_at": pa.nulls(rows, pa.timestamp("us", tz="UTC")),
            "randomised": np.zeros(rows, dtype=bool),
        }
        yield pa.table(columns).cast(DATASET_IMPRESSIONS.arrow())
        row, search = row + rows, search + len(block)


def _clicks(dataset: Path) -> past.Clicks:
    """Every click of the dataset in the order in which they were made."""
    parts = [str(part) for split in SPLITS for part in sorted((dataset / "impressions" / split).glob("*.parquet"))]
    columns = ["user", "job", "query_text", "ts", "clicked_at"]
    found = ds.dataset(parts, schema=DATASET_IMPRESSIONS.arrow(), partitioning=None)
    table = found.to_table(columns=columns, filter=pc.field("clicked"))
    made = pc.coalesce(table["clicked_at"], table["ts"])
    table = table.append_column("made", made).sort_by("made")
    return past.Clicks(
        user_E=_int64(table["user"]),
        job_E=_int64(table["job"]),
        query_text_E=_int64(table["query_text"]),
        clicked_us_E=_int64(table["made"]),
    )


def _profile(matrix_TD: NDArray[np.float16], *text_lists: list[list[int]]) -> NDArray[np.float32]:
    """The mean embedding of each user's titles, L2-normalised; zeros where there are none."""
    profile_SD = np.zeros((len(text_lists[0]), matrix_TD.shape[1]), dtype=np.float32)
    for search, lists in enumerate(zip(*text_lists, strict=True)):
        texts = [text for one in lists for text in one]
        if texts:
            mean = matrix_TD[texts].astype(np.float32).mean(axis=0)
            profile_SD[search] = mean / max(float(np.linalg.norm(mean)), 1e-9)
    return profile_SD


def _place_numbers(of_jobs: pa.ChunkedArray, of_requests: pa.ChunkedArray) -> tuple[Ints, Ints]:
    """Equal numbers for equal places, letter case and outer white space apart; -1 where unknown."""
    both = pa.chunked_array([*of_jobs.chunks, *of_requests.chunks], type=pa.string())
    folded = pc.utf8_lower(pc.utf8_trim_whitespace(both))
    folded = pc.if_else(pc.equal(folded, ""), None, folded)
    number = _int64(pa.chunked_array([pc.dictionary_encode(folded).combine_chunks().indices]), missing=-1)
    return number[: len(of_jobs)], number[len(of_jobs) :]


def _int64(column: pa.ChunkedArray, missing: int = -1) -> Ints:
    values: Ints = pc.fill_null(column.cast(pa.int64()), missing).to_numpy()
    return values
