"""The SQL of ingest, in the subset that every engine shares: from checked rows to numbered tables.

Each function names tables in the engine. `c_*` are checked rows (rows.checked_schema), `m_impressions` those with the ids as
jobs and users spell them (ids.py), `u_*` rows said once (repeats.py), `late_*` the rows refused because of other rows, `n_*`
the numbered tables that become the dataset.
"""

import datetime
import functools
from collections.abc import Iterator

import pyarrow as pa

from tritower.engines.protocol import Engine
from tritower.ingest import rows
from tritower.ingest.convert import clean_text
from tritower.schema import RAW_JOBS, RAW_USERS, Table, document_text

_PLACE = ("city", "region", "country")


def number_jobs(engine: Engine, description_words: int) -> None:
    """`u_jobs` -> `n_jobs`: numbered by job_id, with the texts to embed and the case-folded company."""
    schema = pa.schema(
        [field for field in rows.checked_schema(RAW_JOBS) if field.name in RAW_JOBS.names()]
        + [("document", pa.string()), ("about", pa.string()), ("company_folded", pa.string())]
    )
    kernel = functools.partial(_documents, description_words=description_words)
    engine.map_batches("d_jobs", f"SELECT {', '.join(RAW_JOBS.names())} FROM u_jobs", kernel, schema)
    engine.keep("n_jobs", "SELECT * FROM d_jobs", order_by="job_id", number="job")
    engine.keep("n_companies", "SELECT DISTINCT company_folded AS value FROM n_jobs", order_by="value", number="company_key")


def _documents(batches: Iterator[pa.RecordBatch], *, description_words: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        titles, companies = batch["title"].to_pylist(), batch["company"].to_pylist()
        documents = [document_text(title, company) for title, company in zip(titles, companies, strict=True)]
        wide = batch.append_column("document", pa.array(documents, pa.string()))
        told = clean_text(batch["description"]).to_pylist()
        about = [" ".join((text or "").split(" ")[:description_words]) or None for text in told]
        wide = wide.append_column("about", pa.array(about, pa.string()))
        yield wide.append_column("company_folded", _fold(batch["company"]))


FOLDED_SCHEMA = pa.schema([("company_folded", pa.string())])


def fold_companies(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Kernel: the case-folded names of a column `company`."""
    for batch in batches:
        yield pa.RecordBatch.from_arrays([_fold(batch["company"])], schema=FOLDED_SCHEMA)


def _fold(companies: pa.Array) -> pa.Array:
    return pa.array([company.casefold() for company in companies.to_pylist()], pa.string())


def known_jobs(engine: Engine) -> None:
    """Name `k_impressions`: checked impressions whose job is known, with its number."""
    engine.sql(
        "k_impressions",
        "SELECT m.*, j.job FROM m_impressions m JOIN n_jobs j ON m.job_id = j.job_id WHERE m.reason IS NULL",
    )


def unique_views(engine: Engine) -> int:
    """For views: `views` in time order, each user and job once; return how many later views were dropped.

    Region is where the user searched, or else the region of the viewed job.
    """
    engine.keep("viewers", "SELECT DISTINCT user_id FROM k_impressions", order_by="user_id", number="viewer")
    engine.keep(
        "regions",
        """SELECT DISTINCT region FROM (SELECT region FROM n_jobs UNION ALL SELECT region FROM k_impressions)
        AS r WHERE region IS NOT NULL""",
        order_by="region",
        number="number",
    )
    found = engine.keep(
        "every_view",
        """SELECT k.seq, k.ts, v.viewer, k.job,
            row_number() OVER (PARTITION BY v.viewer, k.job ORDER BY k.ts, k.seq) AS nth,
            coalesce(rj.number, -1) AS job_region, coalesce(rk.number, rj.number, -1) AS near
        FROM k_impressions k JOIN viewers v ON k.user_id = v.user_id JOIN n_jobs j ON k.job = j.job
        LEFT JOIN regions rj ON j.region = rj.region LEFT JOIN regions rk ON k.region = rk.region""",
    )
    kept = engine.keep("views", "SELECT v.* FROM every_view v WHERE v.nth = 1", order_by="ts, seq")
    return found - kept


def keep_views(engine: Engine) -> None:
    """For views: cut `k_impressions` to the views that got their `drawn` jobs."""
    engine.sql("all_impressions", "SELECT m.*, j.job FROM m_impressions m JOIN n_jobs j ON m.job_id = j.job_id")
    engine.sql(
        "k_impressions",
        "SELECT a.* FROM all_impressions a SEMI JOIN drawn d ON a.seq = d.seq",
    )


def add_drawn(engine: Engine) -> None:
    """For views: `u_impressions` and `late_impressions` from the views and the jobs drawn for them."""
    engine.sql(
        "late_impressions",
        f"""{UNKNOWN_JOB} UNION ALL SELECT v.seq, 'too_few_negatives' AS reason,
            'no other user viewed enough other jobs in the days after' AS detail
            FROM views v ANTI JOIN drawn d ON v.seq = d.seq""",
    )
    engine.sql(
        "u_impressions",
        """SELECT i.request, i.job, i.position, i.clicked, i.clicked_at FROM i_impressions i
        UNION ALL SELECT i.request, d.job, i.position, false AS clicked, NULL AS clicked_at
        FROM drawn d JOIN i_impressions i ON d.seq = i.seq""",
    )


UNKNOWN_JOB = """SELECT m.seq, 'unknown_job' AS reason, concat('job_id = ', m.job_id) AS detail
    FROM m_impressions m ANTI JOIN n_jobs j ON m.job_id = j.job_id WHERE m.reason IS NULL"""


def number_requests(engine: Engine) -> None:
    """`k_impressions` -> `n_requests` in time order and `i_impressions` with numbers for keys.

    A request's user, query and place are those of its first row in the source that has a query: some logs write it on one of
    a search's rows only. Its time is its earliest.
    """
    engine.keep(
        "first_rows",
        """SELECT request_id, min(ts) AS ts, coalesce(min(CASE WHEN query <> '' THEN seq END), min(seq)) AS seq
        FROM k_impressions GROUP BY request_id""",
    )
    engine.keep(
        "n_requests",
        f"""SELECT f.request_id, f.ts, c.user_id, c.query, {", ".join(f"c.{name}" for name in _PLACE)},
            coalesce(c.randomised, false) AS randomised
        FROM first_rows f JOIN m_impressions c ON f.seq = c.seq""",
        order_by="ts, request_id",
        number="request",
    )
    engine.keep(
        "i_impressions",
        """SELECT r.request, k.job, k.seq, k.position, k.clicked, k.clicked_at,
            (k.user_id <> r.user_id OR (k.query <> '' AND k.query <> r.query)) AS conflict
        FROM k_impressions k JOIN n_requests r ON k.request_id = r.request_id""",
    )


def number_users(engine: Engine) -> None:
    """`u_users` and the users of `n_requests` -> `n_users`, numbered by user_id; `long_profiles` one row per profile text."""
    picked = ", ".join(f"u.{name}" for name in RAW_USERS.names()[1:])
    engine.sql("every_user", "SELECT user_id FROM u_users UNION SELECT user_id FROM n_requests")
    engine.keep(
        "n_users",
        f"SELECT e.user_id, {picked} FROM every_user e LEFT JOIN u_users u ON e.user_id = u.user_id",
        order_by="user_id",
        number="user",
    )
    schema = pa.schema([("user", pa.int64()), ("kind", pa.int32()), ("ordinal", pa.int32()), ("value", pa.string())])
    engine.map_batches("long_profiles", "SELECT u.user, u.interests, u.past_titles FROM n_users u", _long_profiles, schema)


def _long_profiles(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        found = [
            (user, kind, ordinal, value)
            for kind, column in enumerate(("interests", "past_titles"))
            for user, values in zip(batch["user"].to_pylist(), batch[column].to_pylist(), strict=True)
            for ordinal, value in enumerate(values or ())
            if value
        ]
        users, kinds, ordinals, values = zip(*found, strict=True) if found else ((), (), (), ())
        arrays = [pa.array(users, pa.int64()), pa.array(kinds, pa.int32()), pa.array(ordinals, pa.int32())]
        yield pa.RecordBatch.from_arrays([*arrays, pa.array(values, pa.string())], names=["user", "kind", "ordinal", "value"])


def number_texts(engine: Engine) -> None:
    """Every distinct query, title, document, profile and description text -> `n_texts`, numbered in byte order."""
    kinds = {
        "is_query": "SELECT DISTINCT query AS value FROM n_requests",
        "is_title": "SELECT DISTINCT title AS value FROM n_jobs",
        "is_document": "SELECT DISTINCT document AS value FROM n_jobs",
        "is_profile": "SELECT DISTINCT value FROM long_profiles",
        "is_description": "SELECT DISTINCT about AS value FROM n_jobs WHERE about IS NOT NULL",
    }
    union = " UNION ALL ".join(
        f"SELECT value, {', '.join(f'{str(flag == kind).lower()} AS {flag}' for flag in kinds)} FROM ({query}) AS q_{kind}"
        for kind, query in kinds.items()
    )
    engine.keep(
        "n_texts",
        f"SELECT value, {', '.join(f'bool_or({flag}) AS {flag}' for flag in kinds)} FROM ({union}) AS every GROUP BY value",
        order_by="value",
        number="text",
    )


def profile_lists(engine: Engine) -> None:
    """`long_profiles` -> `profile_texts`: the text numbers of each user's wanted and past titles, in order."""
    schema = pa.schema(
        [("user", pa.int64()), ("interest_texts", pa.list_(pa.int32())), ("past_title_texts", pa.list_(pa.int32()))]
    )
    engine.map_groups(
        "profile_texts",
        "SELECT p.user, p.kind, p.ordinal, t.text FROM long_profiles p JOIN n_texts t ON p.value = t.value",
        "user",
        _lists_of_user,
        schema,
    )


def _lists_of_user(table: pa.Table) -> pa.Table:
    table = table.sort_by([("user", "ascending"), ("kind", "ascending"), ("ordinal", "ascending")])
    lists: dict[int, tuple[list[int], list[int]]] = {}
    for user, kind, text in zip(*(table[name].to_pylist() for name in ("user", "kind", "text")), strict=True):
        lists.setdefault(user, ([], []))[kind].append(text)
    texts = [pa.array([pair[kind] for pair in lists.values()], pa.list_(pa.int32())) for kind in (0, 1)]
    return pa.table({"user": pa.array(list(lists), pa.int64()), "interest_texts": texts[0], "past_title_texts": texts[1]})


JOBS_QUERY = f"""SELECT j.job, {", ".join("j." + name for name in RAW_JOBS.names())},
    t.text AS title_text, d.text AS document_text, a.text AS description_text, c.company_key
FROM n_jobs j JOIN n_texts t ON j.title = t.value JOIN n_texts d ON j.document = d.value
JOIN n_companies c ON j.company_folded = c.value
LEFT JOIN n_texts a ON j.about = a.value"""

USERS_QUERY = f"""SELECT u.user, {", ".join("u." + name for name in RAW_USERS.names())},
    p.interest_texts, p.past_title_texts
FROM n_users u LEFT JOIN profile_texts p ON u.user = p.user"""

TEXTS_QUERY = "SELECT t.text, t.value, t.is_query, t.is_title, t.is_document, t.is_profile, t.is_description FROM n_texts t"


def split_requests(engine: Engine, validation_from: int, test_from: int) -> None:
    """Name `s_requests`: requests with user, query text and split; bounds in microseconds."""
    engine.keep(
        "s_requests",
        f"""SELECT r.request, r.request_id, r.ts, u.user, t.text AS query_text, {", ".join("r." + name for name in _PLACE)},
            r.randomised, CASE WHEN r.ts >= {test_from} THEN 'test' WHEN r.ts >= {validation_from} THEN 'validation'
            ELSE 'train' END AS split
        FROM n_requests r JOIN n_users u ON r.user_id = u.user_id JOIN n_texts t ON r.query = t.value""",
        order_by="request",
    )


def impressions_query(split: str) -> str:
    """The rows of one split, without `row`; the order is IMPRESSIONS_ORDER."""
    return f"""SELECT i.request, r.ts, r.user, i.job, r.query_text, d.document_text, i.position, i.clicked,
        CASE WHEN i.clicked THEN coalesce(i.clicked_at, r.ts) END AS clicked_at, r.randomised
    FROM u_impressions i JOIN s_requests r ON i.request = r.request
    JOIN document_of_job d ON i.job = d.job WHERE r.split = '{split}'"""


IMPRESSIONS_ORDER = "request, position NULLS LAST, job"


def quarantine(engine: Engine, table: Table) -> None:
    """Name `q_<table>`: every refused row of a table as (seq, reason, detail, record)."""
    name = table.name
    schema = pa.schema([("seq", pa.int64()), ("reason", pa.string()), ("detail", pa.string()), ("record", pa.string())])
    every = ", ".join("c." + column for column in table.names())
    engine.map_batches(
        f"records_{name}",
        f"SELECT {every}, c.seq, l.reason, l.detail FROM c_{name} c JOIN late_{name} l ON c.seq = l.seq",
        _records,
        schema,
    )
    engine.sql(
        f"q_{name}",
        f"""SELECT seq, reason, detail, record FROM c_{name} WHERE reason IS NOT NULL
        UNION ALL SELECT seq, reason, detail, record FROM records_{name}""",
    )


def _records(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    times = {"ts", "clicked_at", "posted_at", "expires_at"}
    for batch in batches:
        plain = batch.drop_columns(["seq", "reason", "detail"]).to_pylist()
        records = [
            rows.record_json({name: iso(value) if name in times else value for name, value in record.items()})
            for record in plain
        ]
        yield pa.RecordBatch.from_arrays(
            [batch["seq"], batch["reason"], batch["detail"], pa.array(records, pa.string())],
            names=["seq", "reason", "detail", "record"],
        )


def iso(micros: int | None) -> str | None:
    """Microseconds since 1970 as ISO 8601 text in UTC."""
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return None if micros is None else (epoch + datetime.timedelta(microseconds=micros)).isoformat()
