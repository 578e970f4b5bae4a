"""A user's files as tables of DuckDB, and names and texts as SQL has them."""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from tritower.engines.duckdb import listed
from tritower.errors import DataError


def view(connection: duckdb.DuckDBPyConnection, name: str, files: Sequence[str]) -> list[str]:
    """Files, Parquet or CSV, as a view; its columns.

    Raises:
        DataError: they are of another kind, or cannot be read.
    """
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
