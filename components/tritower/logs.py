"""Logging and progress, set up at a process's entry point only.

Libraries and steps call `logging.getLogger(__name__)`; an entry point calls `setup()` once. Long loops wrap their
iterable in `progress`, which draws a bar on a terminal and is silent otherwise; `phase` writes the one line per phase.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

T = TypeVar("T")
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def setup(level: int = logging.INFO) -> None:
    """Log to standard error; under torchrun, ranks above 0 log warnings and worse, prefixed with their rank."""
    rank = os.environ.get("RANK", "0")
    prefix = "" if rank == "0" else f"[rank {rank}] "
    logging.basicConfig(
        level=level if rank == "0" else max(level, logging.WARNING),
        format=prefix + _FORMAT,
        datefmt="%H:%M:%S",
        stream=sys.stderr,
        force=True,
    )


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


def moment(ts_us: int) -> str:
    """A time in microseconds since 1970, as messages show it: to the second, in UTC."""
    return f"{datetime.fromtimestamp(ts_us // 1_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
