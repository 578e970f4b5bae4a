"""What every reader of raw files yields, and sizes that bound what it holds."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

BATCH_ROWS = 32_768
BLOCK_BYTES = 8 << 20
LONGEST_RECORD = 16 << 20
"""Bytes of one row; no row of a log is longer, and a reader holds no more than this beside a block."""
SHOWN_CHARACTERS = 2_000


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A row that could not be taken apart."""

    row: int
    reason: str
    detail: str
    record: str


@dataclass(kw_only=True)
class RawBatch:
    """Columns as the source holds them, with each row's 0-based number in its file."""

    table: pa.Table
    rows: pa.Array
    refused: list[Refused] = field(default_factory=list)


def count_from(start: int, length: int) -> pa.Array:
    """`length` whole numbers from `start`."""
    return pa.array(np.arange(start, start + length))


def shown(text: bytes) -> str:
    """Raw bytes for the quarantine: what is not UTF-8 as backslash escapes, cut where it is long."""
    return text[: 4 * SHOWN_CHARACTERS].decode(errors="backslashreplace")[:SHOWN_CHARACTERS]
