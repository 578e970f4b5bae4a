"""What was served and what became of it, as raw impressions: `schema.SHOWN`, which ingest and an A/B analysis read as they are.

    clicked     the journal has a click for the row
    shown       where the journal has impressions of a search, the jobs among them; else all that were served
    beside it   impressions that the journal has and no server served: rows without exposure columns
    user_id     a visitor whom nobody knows is somebody new: "visit " and the search's id

A click on what was neither served nor shown is left out, and counted.
"""

import datetime as dt
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tritower import schema, storage
from tritower.errors import DataError
from tritower.serving import served, tailing
from tritower.serving.moment import microseconds
from tritower.serving.reading import Reader

_OWN = ("ts", "user_id", "query", "position", "city", "region", "country", "randomised")


def write(
    *, served_at: storage.LocationLike, journal: storage.LocationLike, out: Path, since: int = 0, until: int = 1 << 60
) -> dict[str, int]:
    """Join the served log with the journal.

    Args:
        served_at: the log of what was served; empty where there is none.
        journal: the journal of events.
        out: folder to write, for the knob `impressions` of ingest.
        since, until: rows shown from then on and before then, microseconds since 1970; their clicks may come later.

    Returns:
        Rows, clicks, searches, and `lone_clicks` that belong to no row.

    Raises:
        DataError: there is nothing.
        ArtifactError: the journal is damaged.
        StorageError: a place cannot be read or written.
    """
    import duckdb

    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as session:
        session.execute(f"SET TimeZone = 'UTC'; SET temp_directory = '{scratch}/spill'")
        _journaled(journal, Path(scratch) / "events.parquet")
        session.execute(f"CREATE VIEW events AS SELECT * FROM read_parquet('{scratch}/events.parquet')")
        found = _fetched(served_at, Path(scratch), since, until) if served_at else []
        empty = Path(scratch) / "empty.parquet"
        pq.write_table(schema.SERVED.arrow().empty_table(), empty)
        names = ", ".join(f"'{path}'" for path in [*found, empty])
        session.execute(f"CREATE VIEW served AS SELECT * FROM read_parquet([{names}], union_by_name = true)")
        session.execute(f"CREATE TABLE shown AS {_query(since, until)}")
        counts = session.execute(
            """SELECT count(*), coalesce(sum(clicked::INT), 0), count(DISTINCT request_id), (SELECT count(*) FROM
            (SELECT DISTINCT request_id, job_id FROM events WHERE event = 'click') c ANTI JOIN shown USING (request_id, job_id))
            FROM shown"""
        ).fetchone()
        assert counts
        if not counts[0]:
            raise DataError(
                "nothing was served or shown", where=f"{served_at}, {journal}", remedy="Check the places and times."
            )
        with storage.atomic_directory(out) as folder:
            order = "SELECT * FROM shown ORDER BY ts, request_id, position, job_id"
            session.execute(f"COPY ({order}) TO '{scratch}/shown.parquet' (FORMAT parquet)")
            _copied(Path(scratch) / "shown.parquet", folder / "part-00000.parquet")
    return dict(zip(("rows", "clicks", "searches", "lone_clicks"), map(int, counts), strict=True))


def _query(since: int, until: int) -> str:
    own = ", ".join(f"coalesce(i.{name}, s.{name}) AS {name}" for name in _OWN)
    exposure = ", ".join(f"s.{column.name}" for column in schema.EXPOSURE)
    return f"""
        WITH impressions AS (
            SELECT request_id, job_id, {", ".join(f"first({name} ORDER BY ts) AS {name}" for name in _OWN)}
            FROM events WHERE event = 'impression' GROUP BY request_id, job_id),
        clicks AS (
            SELECT request_id, job_id, min(coalesce(clicked_at, ts)) AS clicked_at FROM events WHERE clicked GROUP BY ALL),
        last_answers AS (
            SELECT * FROM served WHERE epoch_us(ts) >= {since} AND epoch_us(ts) < {until}
            QUALIFY ts = max(ts) OVER (PARTITION BY request_id)
            AND row_number() OVER (PARTITION BY request_id, job_id ORDER BY ts, position) = 1),
        joined AS (
            SELECT coalesce(i.request_id, s.request_id) AS request_id, coalesce(i.job_id, s.job_id) AS job_id, {own},
                {exposure}, i.request_id IS NOT NULL AS is_seen
            FROM last_answers s FULL JOIN impressions i ON s.request_id = i.request_id AND s.job_id = i.job_id)
        SELECT j.request_id, j.ts, CASE WHEN j.user_id = '' THEN 'visit ' || j.request_id ELSE j.user_id END AS user_id,
            j.query, j.job_id, c.request_id IS NOT NULL AS clicked, j.position,
            CASE WHEN c.clicked_at > j.ts THEN c.clicked_at WHEN c.request_id IS NOT NULL THEN j.ts END AS clicked_at,
            j.city, j.region, j.country, coalesce(j.randomised, false) AS randomised,
            {", ".join(f"j.{column.name}" for column in schema.EXPOSURE)}
        FROM joined j LEFT JOIN clicks c ON j.request_id = c.request_id AND j.job_id = c.job_id
        WHERE epoch_us(j.ts) >= {since} AND epoch_us(j.ts) < {until}
            AND (j.is_seen OR c.request_id IS NOT NULL OR j.request_id NOT IN (SELECT request_id FROM impressions))"""


def _journaled(journal: storage.LocationLike, path: Path) -> None:
    """The journal's events as one file."""
    reader, kind = Reader(journal), tailing.table([]).schema
    with pq.ParquetWriter(path, kind) as writer:
        while journal and (frames := reader.read()):
            for frame in frames:
                writer.write_table(tailing.table(frame.record().events))


def _fetched(served_at: storage.LocationLike, scratch: Path, since: int, until: int) -> list[Path]:
    """The files of the hours that are asked for, on this machine."""
    found = []
    for number, name in enumerate(served.files(served_at)):
        hour = served.hour_of(name)
        if hour is not None and not since - served.HOUR_US < hour < until:
            continue
        if storage.is_local(name):
            found.append(storage.local_path(name))
        else:
            found.append(storage.fetch(name, scratch / f"served-{number}.parquet"))
    return found


def _copied(source: Path, target: Path) -> None:
    """The rows in the types of the schema."""
    kind = schema.SHOWN.arrow()
    with pq.ParquetFile(source) as file, pq.ParquetWriter(target, kind, compression="zstd") as writer:
        for batch in file.iter_batches(100_000, columns=kind.names):
            writer.write_table(pa.Table.from_batches([batch]).select(kind.names).cast(kind))


def moment(text: str) -> int:
    """Microseconds since 1970 of a time in ISO 8601; without a zone it is UTC.

    Raises:
        DataError: it is none.
    """
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise DataError(f"{text!r} is no time", where="a time", remedy="Write 2026-11-27 or 2026-11-27T06:00:00Z.") from None
    return microseconds(found if found.tzinfo else found.replace(tzinfo=dt.UTC))
