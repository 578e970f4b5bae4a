"""A user's files as views of DuckDB with the columns that the rest of the room knows; names and texts as SQL has them.

`shown` has unit, ts (microseconds since 1970), arm, clicked, clicked_at, request_id, job_id, key and the segments;
`earlier` has unit, ts, clicked and clicked_at; `all_events` has unit, ts, name and value.
"""

import contextlib
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from tritower import storage, threads
from tritower.engines.duckdb import listed
from tritower.errors import ConfigError, DataError, SchemaError
from tritower.experiment.config import AnalysisConfig


@contextlib.contextmanager
def opened(memory_limit: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB in a scratch folder, while the block runs: its tables, and what does not fit into memory, are files there.

    Raises:
        ConfigError: it does not take the limit.
    """
    with tempfile.TemporaryDirectory(prefix="tritower-experiment-") as folder:
        settings: dict[str, Any] = {"threads": threads.chosen(), "memory_limit": memory_limit, "temp_directory": folder}
        try:
            connection = duckdb.connect(str(Path(folder) / "kept.duckdb"), config=settings)
        except duckdb.Error as error:
            raise ConfigError(f"DuckDB refuses its settings: {error}", where="memory_limit", remedy="Try 2GiB.") from None
        with connection:
            connection.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
            yield connection


def exposures(connection: duckdb.DuckDBPyConnection, files: Sequence[str], config: AnalysisConfig) -> bool:
    """The view `shown`; whether its rows have a request and a job, by which copies are known.

    Raises:
        SchemaError: a column is missing.
        DataError: a file cannot be read.
    """
    have = set(view(connection, "given", files))
    unit = config.unit if config.unit in have else "user_id"
    reasons = {unit: "who was assigned", "ts": "when it was shown", "arm": "the arm", "clicked": "the click"}
    need(said(reasons, have), have, "exposures")
    for segment in config.segments:
        if segment not in have:
            raise SchemaError(f"the segment {segment!r} is no column", where="segments", remedy=there_are(have))
    only = ""
    if config.experiment and "experiment" in have:
        only = f"WHERE coalesce(experiment, '') IN ({text(config.experiment)}, '')"
    keyed = {"request_id", "job_id"} <= have
    key = "NULL AS request_id, NULL AS job_id, NULL AS key"
    if keyed:
        key = (
            "request_id::VARCHAR AS request_id, job_id::VARCHAR AS job_id, CASE WHEN request_id IS NOT NULL "
            "AND job_id IS NOT NULL THEN hash(request_id::VARCHAR, job_id::VARCHAR) END AS key"
        )
    segments = "".join(f", {name(one)}::VARCHAR AS {name(one)}" for one in config.segments)
    connection.execute(
        f"CREATE VIEW shown AS SELECT {who(config.unit, have)} AS unit, epoch_us(ts::TIMESTAMPTZ) AS ts, "
        f"coalesce(arm::VARCHAR, '') AS arm, coalesce(clicked::BOOLEAN, false) AS clicked, {_clicked_at(have)} AS clicked_at, "
        f"{key}{segments} FROM given {only}"
    )
    return keyed


def earlier(connection: duckdb.DuckDBPyConnection, files: Sequence[str], unit: str) -> None:
    """The view `earlier`: of these files, or of `shown` where there are none.

    Raises:
        SchemaError: a column is missing.
    """
    if not files:
        connection.execute("CREATE VIEW earlier AS SELECT unit, ts, clicked, clicked_at FROM shown")
        return
    have = view(connection, "before", files)
    wanted = (unit if unit in have else "user_id", "ts", "clicked")
    need(dict.fromkeys(wanted, f"CUPED needs user, time and click. {there_are(have)}"), have, "past")
    connection.execute(
        f"CREATE VIEW earlier AS SELECT {who(unit, have)} AS unit, epoch_us(ts::TIMESTAMPTZ) AS ts, "
        f"coalesce(clicked::BOOLEAN, false) AS clicked, {_clicked_at(have)} AS clicked_at FROM before"
    )


def events(connection: duckdb.DuckDBPyConnection, files: Sequence[str], unit: str) -> None:
    """The view `all_events`; an event without a value counts 1.

    Raises:
        SchemaError: a column is missing.
    """
    have = view(connection, "given_events", files)
    who = unit if unit in have else "user_id"
    need(dict.fromkeys((who, "ts", "name"), "Events have unit, ts, name and value."), have, "events")
    value = "value::DOUBLE" if "value" in have else "1.0::DOUBLE"
    connection.execute(
        f"CREATE VIEW all_events AS SELECT {name(who)}::VARCHAR AS unit, epoch_us(ts::TIMESTAMPTZ) AS ts, "
        f"name::VARCHAR AS name, {value} AS value FROM given_events"
    )


def need(wanted: Mapping[str, str], have: Container[str], where: str) -> None:
    """Raises: SchemaError: a column is missing; `wanted` has the remedy of each."""
    for column, remedy in wanted.items():
        if column not in have:
            raise SchemaError(f"the column {column!r} is missing", where=where, remedy=remedy)


def said(reasons: Mapping[str, str], have: Iterable[str]) -> dict[str, str]:
    """The remedies of columns, from what each of them says."""
    return {column: f"It says {why}. {there_are(have)}" for column, why in reasons.items()}


def there_are(have: Iterable[str]) -> str:
    """The columns of a table, for a remedy."""
    return f"There are: {', '.join(sorted(have))}."


def view(connection: duckdb.DuckDBPyConnection, name: str, files: Sequence[str]) -> list[str]:
    """Files, Parquet or CSV, as a view; its columns. Parquet in a store is read where it is, column by column.

    Raises:
        DataError: they are of another kind, or cannot be read.
        StorageError: the store cannot be read.
    """
    if not all(map(storage.is_local, files)):
        return _remote(connection, name, files)
    kinds = {Path(file).suffix.lower() for file in files}
    if kinds <= {".parquet"}:
        source = f"read_parquet({listed(files)}, hive_partitioning = false, union_by_name = true)"
    elif kinds <= {".csv", ".gz", ".tsv"}:
        source = f"read_csv({listed(files)}, hive_partitioning = false, union_by_name = true, sample_size = 100000)"
    else:
        raise DataError(
            f"files of {', '.join(sorted(kinds)) or 'no kind'}", where=name, remedy="Give Parquet or CSV files, of one kind."
        )
    try:
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {source}")
        return [column[0] for column in connection.execute(f"SELECT * FROM {name} LIMIT 0").description or ()]
    except duckdb.Error as error:
        raise DataError(
            str(error).splitlines()[0], where=", ".join(files[:3]), remedy="Give a file that DuckDB reads."
        ) from None


def name(column: str) -> str:
    """A column's name, quoted."""
    return '"' + column.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text, quoted."""
    return "'" + value.replace("'", "''") + "'"


def _remote(connection: duckdb.DuckDBPyConnection, name: str, files: Sequence[str]) -> list[str]:
    """The same of Parquet files of one store, whose columns are those of the first and the last of them."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    store, _ = storage.filesystem(files[0])
    paths = [storage.filesystem(file)[1] for file in files]
    with storage.reading(files[0]):
        ends = [ds.dataset(path, filesystem=store, format="parquet").schema for path in (paths[0], paths[-1])]
        schema = pa.unify_schemas([end.remove_metadata() for end in ends], promote_options="permissive")
        connection.register(name, ds.dataset(paths, schema=schema, filesystem=store, format="parquet"))
    return list(schema.names)


def who(unit: str, columns: Container[str]) -> str:
    """The unit; the user in rows of the server's log that have no unit, from before the test."""
    if unit not in columns or "user_id" not in columns:
        return f"{name(unit if unit in columns else 'user_id')}::VARCHAR"
    return f"coalesce(nullif({name(unit)}::VARCHAR, ''), user_id::VARCHAR)"


def _clicked_at(columns: Container[str]) -> str:
    return "epoch_us(clicked_at::TIMESTAMPTZ)" if "clicked_at" in columns else "NULL::BIGINT"
