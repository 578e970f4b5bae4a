"""Logging and progress, set up at a process's entry point only.

Libraries and steps call `logging.getLogger(__name__)`; an entry point calls `setup()` once. Long loops wrap their
iterable in `progress`, which draws a bar on a terminal and is silent otherwise; `phase` writes the one line per phase.

    03:30:12 INFO read jobs: 12,000 rows in 0.4 s
    03:30:15 WARNING transformers.modeling_utils: what another library warns of
    ERROR SchemaError: column 'title' is missing
      where: jobs.parquet
      remedy: Add it, or name it by the knob rename.
"""

import contextlib
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

from tritower.errors import TritowerError

T = TypeVar("T")
_OURS = ("tritower", "pipelines", "__main__")


def setup(level: int = logging.INFO) -> None:
    """Log to standard error; under torchrun, ranks above 0 log warnings and worse, prefixed with their rank.

    Of other libraries warnings and worse are logged. What they say to those who call them is silenced: deprecations, and
    whatever transformers has to say about a model's settings.
    """
    rank = os.environ.get("RANK", "0")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Short("" if rank == "0" else f"[rank {rank}] "))
    handler.addFilter(_wanted)
    logging.basicConfig(level=level if rank == "0" else max(level, logging.WARNING), handlers=[handler], force=True)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.warnoptions:
        for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", kind)


class _Short(logging.Formatter):
    """Time, level and message; the logger's name where it is another library's."""

    def __init__(self, prefix: str) -> None:
        super().__init__(f"{prefix}%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        if not _is_ours(record):
            record.message = f"{record.name}: {record.message}"
        return super().formatMessage(record)


def _wanted(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or _is_ours(record)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in _OURS


def lines(error: TritowerError) -> list[str]:
    """An error as a process's log ends with it: what is wrong, where, and the remedy, a line each."""
    parts = [("where", error.where), ("remedy", error.remedy)]
    return [f"ERROR {type(error).__name__}: {error.problem}", *(f"  {name}: {text}" for name, text in parts if text)]


@contextlib.contextmanager
def phase(logger: logging.Logger, name: str) -> Iterator[dict[str, Any]]:
    """Log one INFO line when the block ends: its name, the counts put into the yielded dict, and wall seconds.

    >>> with phase(logger, "read jobs") as counts:
    ...     counts["rows"] = 12_000
    """
    counts: dict[str, Any] = {}
    start = time.perf_counter()
    yield counts
    shown = ", ".join(f"{value:,} {key}" if isinstance(value, int) else f"{key} {value}" for key, value in counts.items())
    logger.info("%s: %s in %.1f s", name, shown or "done", time.perf_counter() - start)


def progress(items: Iterable[T], *, name: str, total: int | None = None, unit: str = "rows") -> Iterable[T]:
    """The same items behind a progress bar when standard error is a terminal; otherwise unchanged."""
    if not sys.stderr.isatty():
        return items
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(items, desc=name, total=total, unit=unit, unit_scale=True, leave=False)
    return bar


@contextlib.contextmanager
def drawn() -> Iterator[None]:
    """Another library's progress bars, which it draws on standard output: on standard error where that is a terminal, nowhere
    otherwise. Its log is not touched, unless it is imported meanwhile and writes that to standard output, too.
    """
    with contextlib.redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
        yield


def moment(ts_us: int) -> str:
    """A time in microseconds since 1970, as messages show it: to the second, in UTC."""
    return f"{datetime.fromtimestamp(ts_us // 1_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
