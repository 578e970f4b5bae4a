"""The Spark session behind the engine: where it comes from, how much memory it may take, what its errors mean."""

import contextlib
import importlib
import json
import os
import pwd
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from tritower import errors
from tritower.engines.config import SparkConfig
from tritower.errors import JobFailed, StepError, StorageError, TritowerError
from tritower.threads import chosen

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_MARK = "tritower-error:"
_CAUSE = re.compile(r"^(?:Caused by: |: )?(?:[\w$]+\.)*([\w$]+(?:Error|Exception): .+)$", re.MULTILINE)  # Java's or Python's
_KILLED = "ended on the way, most likely for want of memory"
_NO_MEMORY = re.compile(r"OutOfMemoryError|Not enough memory to|UNABLE_TO_ACQUIRE_MEMORY|INVALID_(?:DRIVER|EXECUTOR)_MEMORY")


class Executors(Protocol):
    """Executors that somebody looks after: `tritower.cluster.executors`, which is loaded by name."""

    settings: dict[str, str]
    """Spark's settings, its master among them."""

    heap_mib: int
    """MiB of Java's heap in each."""

    slots: int
    """Tasks that run at once in all of them."""

    def hold(self) -> None:
        """From now on SIGTERM ends them before anything else."""

    def follow(self, session: "SparkSession") -> None:
        """Look after them from now on."""

    def close(self) -> None:
        """End them."""


def open_executors(config: SparkConfig) -> Executors | None:
    """Executors as the config says; None where the session is another's, or has its workers without our doing.

    Raises:
        ConfigError: a knob is wrong, or this process runs in no pod.
        LaunchError: something is missing on the cluster.
    """
    if config.master != "kubernetes" or _is_given():
        return None
    opened: Executors = importlib.import_module("tritower.cluster.executors").Executors(config)
    return opened


def _is_given() -> bool:
    return "PYSPARK_GATEWAY_PORT" in os.environ or bool(os.environ.get("SPARK_REMOTE"))


def find_session(memory_limit: str, threads: int, executors: Executors | None = None) -> "SparkSession":
    """The session that is there, or one of our own, within `memory_limit` (such as "1GiB") for the driver and each executor.

    Executors that somebody looks after have memory of their own.
    """
    try:
        from pyspark.sql import SparkSession
    except ModuleNotFoundError:
        raise StepError("Spark is not installed", where="engine", remedy='Install "tritower[spark]" and Java 17.') from None
    builder: Any = SparkSession.builder.appName("tritower")
    # Under spark-submit the master is set already, and setting it again would override it.
    if not _is_given():
        require_user_name()
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        slots = executors.slots if executors else chosen(threads)
        named = executors.settings["spark.master"] if executors else os.environ.get("TRITOWER_SPARK_MASTER")
        master = named or f"local[{slots}]"
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        megabytes = int(re.sub(r"\D", "", memory_limit)) * (1024 if "G" in memory_limit else 1)
        builder = (
            builder.master(master)
            .config("spark.driver.memory", f"{megabytes}m")
            .config("spark.executor.memory", f"{megabytes}m")
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.sql.shuffle.partitions", str(4 * slots))
            .config(map=_within(min(megabytes, executors.heap_mib) if executors else megabytes))
            .config(map=executors.settings if executors else {})
        )
    with contextlib.ExitStack() as failed:
        if executors:
            failed.callback(executors.close)
            executors.hold()
        with spark_errors():
            session: SparkSession = builder.getOrCreate()
        if executors:
            executors.follow(session)
        failed.pop_all()
    return session


def require_user_name() -> None:
    """Hadoop's login inside Spark fails with a NullPointerException where the user id has no name."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        remedy = "Run under a user id that it has (1000 in the image `spark`)."
        raise StepError(f"Spark needs a name for the user id {os.getuid()}", where="/etc/passwd", remedy=remedy) from None


def _within(megabytes: int) -> dict[str, str]:
    """Settings that keep a session of ours within a heap of so many MiB: which tables of a join it may hold whole.

    Spark takes a table for as large as its files, and a megabyte of ours becomes ten and more as a hash table (impressions:
    four bytes a row on the disk). So little is broadcast for its files' size; for its real size, known once it has been
    shuffled, a table may be larger.
    """
    return {
        "spark.sql.autoBroadcastJoinThreshold": f"{megabytes}k",
        "spark.sql.adaptive.autoBroadcastJoinThreshold": f"{16 * megabytes}k",
    }


def broadcast_by_real_sizes(session: "SparkSession") -> None:
    """For tables in a store: Spark takes what a kernel reads for as small as the list of its files, whatever is in them."""
    planned, shuffled = "spark.sql.autoBroadcastJoinThreshold", "spark.sql.adaptive.autoBroadcastJoinThreshold"
    session.conf.set(shuffled, str(session.conf.get(shuffled, None) or session.conf.get(planned)))
    session.conf.set(planned, "-1")


@contextlib.contextmanager
def spark_errors() -> Iterator[None]:
    """Spark's errors as ours: what a kernel raised, too little room or memory, or the line that says what went wrong."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError, ConnectionError, EOFError) as error:
        text = _text(error)
        found = re.search(re.escape(_MARK) + r"(\[.*\])", text)
        if found:
            name, problem, where, remedy = json.loads(found.group(1))
            raise getattr(errors, name)(problem, where=where, remedy=remedy) from error
        if "No space left" in text or "File too large" in text:
            raise StorageError("the disk is full", where="Spark worker", remedy="Free space or write elsewhere.") from error
        if not text or _NO_MEMORY.search(text):
            problem = f"the engine's memory is too small: {_reason(text)}" if text else f"Spark's Java process {_KILLED}"
            remedy = "Raise it, or lower threads; a session that was there before has limits of its own."
            raise StepError(problem, where="memory_limit", remedy=remedy) from error
        if "ExecutorLostFailure" in text and "OOM" in text:
            remedy = "Raise it, or lower spark.cores."
            raise JobFailed("the memory of an executor ran out again and again", where="spark.memory", remedy=remedy) from error
        if "Python worker exited unexpectedly" in text:
            remedy = "Lower threads, or give the machine more memory."
            raise StepError(f"a Python worker of Spark {_KILLED}", where="engine", remedy=remedy) from error
        raise StepError(
            f"Spark failed: {_reason(text)}", where="engine", remedy="See the logs of driver and workers."
        ) from error


def _text(error: BaseException) -> str:
    """What an error says; nothing where the Java process that knows it is gone."""
    from py4j.protocol import Py4JError, Py4JNetworkError

    if isinstance(error, (ConnectionError, EOFError, Py4JNetworkError)):
        return ""
    try:
        text = str(error)
    except (ConnectionError, Py4JError):
        return ""
    # Java ended while it was asked what had happened.
    return "" if "An error occurred while calling" in text and "Utils.exceptionString" in text else text


def _reason(text: str) -> str:
    """The line of a stack trace that names the first cause; the first line of any other text."""
    causes: list[str] = _CAUSE.findall(text)
    return "".join(causes[-1:] or text.strip().splitlines()[:1])[:500]


@contextlib.contextmanager
def marked() -> Iterator[None]:
    """Let an error of ours pass the border of a worker, which hands on nothing but text."""
    try:
        yield
    except TritowerError as error:
        raise RuntimeError(mark(error)) from error


def mark(error: TritowerError) -> str:
    """An error of ours as text that `spark_errors` knows."""
    return f"{_MARK}{json.dumps([type(error).__name__, error.problem, error.where, error.remedy])}"
