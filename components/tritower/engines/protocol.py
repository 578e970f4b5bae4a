"""Relational work behind a small protocol, so that one SQL text and one set of Arrow kernels run on one machine or many.

DuckDB is the embedded default: in this process, out of core, no server. Spark (extra `spark`) is for more than one machine.

Rules for whoever writes for both:

* A table has a name; `sql` names a query, `keep` computes it once, `map_batches` and `map_groups` put a kernel behind it.
* SQL stays in the common subset: joins, GROUP BY, CASE, window functions with a PARTITION BY, ORDER BY with NULLS LAST.
  Lists are built and taken apart in kernels, texts are cleaned in kernels, never in SQL.
* A time is a BIGINT of microseconds since 1970 in UTC. `register` turns timestamps into that, `write` turns them back
  where its schema says timestamp.
* A kernel takes and yields Arrow record batches. It is a module-level function or a `functools.partial` of one, so that a
  worker process can import it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tritower.engines.batches import BatchKernel, GroupKernel
from tritower.engines.config import SparkConfig
from tritower.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

EngineName = Literal["duckdb", "spark"]


class Engine(Protocol):
    """What ingest, features and recommend ask of an engine. Both engines give equal rows for equal calls."""

    def register(self, name: str, source: Any) -> None:
        """Name a Parquet file, a folder of them, a list of files, or a small Arrow table."""

    def shared(self, source: str | Path) -> str:
        """Where kernels find a file or folder, whatever machine they run on."""

    def sql(self, name: str, query: str) -> None:
        """Name a query; it is computed wherever the name is used."""

    def keep(self, name: str, query: str, *, order_by: str = "", number: str = "") -> int:
        """Compute a query once, name the result and return its row count.

        Args:
            name: the table's name.
            query: a SELECT.
            order_by: columns of a total order, such as "ts, request_id"; needed with `number`.
            number: name of a BIGINT column to append, 0-based, counting rows in that order.
        """

    def map_batches(self, name: str, query: str, kernel: BatchKernel, schema: "pa.Schema") -> int:
        """Run `kernel` over the query's batches, in any order and any grouping; name the result, return its row count."""

    def map_groups(self, name: str, query: str, key: str, kernel: GroupKernel, schema: "pa.Schema") -> int:
        """Run `kernel` over tables that each hold whole groups of equal `key`, many groups per call, rows in any order."""

    def write(
        self,
        query: str,
        path: str | Path,
        schema: "pa.Schema",
        *,
        order_by: str = "",
        number: str = "",
        number_from: int = 0,
        part_rows: int = 0,
    ) -> int:
        """Write a query as Parquet and return its row count.

        Args:
            query: a SELECT; its columns are picked by the names of `schema` and cast to its types.
            path: one file, or with `part_rows` a folder of `part-00000.parquet` and so on.
            schema: columns of the file in order.
            order_by: as for `keep`.
            number: as for `keep`; the column must be in `schema`.
            number_from: its first value.
            part_rows: rows per file.
        """

    def stream(
        self,
        query: str,
        *,
        order_by: str = "",
        presorted: bool = False,
        kernel: BatchKernel | None = None,
        schema: "pa.Schema | None" = None,
        batch_rows: int = 0,
    ) -> "Iterator[pa.RecordBatch]":
        """The batches of a result in this process, in order: for passes that cannot be cut into groups.

        Args:
            query: a SELECT.
            order_by: as for `keep`.
            presorted: the query picks columns and rows of one registered source whose files, one after another, are in this
                order already. An engine that reads them in order need not sort; whoever takes the rows checks.
            kernel: applied to the ordered rows on their way, where the engine has its workers; a row's result must not depend
                on the rows beside it.
            schema: of what the kernel yields.
            batch_rows: rows of every batch but the last; 0 for whatever comes.
        """

    def rows(self, query: str) -> list[dict[str, Any]]:
        """A small result as Python values."""

    def close(self) -> None:
        """Let go of every table and of the scratch space."""

    def __enter__(self) -> "Engine":
        """Itself."""

    def __exit__(self, *_: object) -> None:
        """Close."""


def open_engine(
    name: EngineName = "duckdb",
    *,
    memory_limit: str = "1GiB",
    threads: int = 0,
    scratch: str | Path | None = None,
    spark: SparkConfig | None = None,
) -> "Engine":
    """The engine called `name`.

    Args:
        name: duckdb or spark.
        memory_limit: what DuckDB may hold before it spills, such as "1GiB"; the Java heap of a Spark session of our own, 450MiB
            at least.
        threads: 0 for what `threads.chosen` says.
        scratch: folder for kept tables and spills; a fresh one under the system's temporary folder when None. Spark
            workers on other machines need a location that all of them reach.
        spark: where Spark's workers run; this machine when None.

    Raises:
        ConfigError: no such engine, or a knob of `spark` that does not fit.
        LaunchError: Spark's executors cannot be started on this cluster.
    """
    if name == "duckdb":
        from tritower.engines.duckdb import DuckDBEngine

        return DuckDBEngine(memory_limit=memory_limit, threads=threads, scratch=scratch)
    if name == "spark":
        from tritower.engines.spark import SparkEngine

        return SparkEngine(memory_limit=memory_limit, threads=threads, scratch=scratch, config=spark)
    raise ConfigError(f"unknown engine {name!r}", where="engine", remedy="Use duckdb or spark.")


def scratch_place(given: str, folder: Path, store: str, engine: EngineName, spark: SparkConfig) -> str | Path:
    """Where an engine keeps its tables.

    Args:
        given: the knob `scratch`.
        folder: that the step writes.
        store: location of what the step writes in the run's store; pods of executors reach no other place.
        engine: its name.
        spark: where Spark's workers run.
    """
    if given:
        return given
    in_store = engine == "spark" and spark.master == "kubernetes" and store
    return f"{store.rstrip('/')}.scratch" if in_store else folder / ".scratch"
