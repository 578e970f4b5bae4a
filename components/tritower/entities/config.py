"""Knobs of the `entities` step."""

from dataclasses import dataclass
from typing import Literal

from tritower.config import check

Method = Literal["gazetteer"]


@dataclass(frozen=True, kw_only=True)
class EntitiesConfig:
    """How entities are found."""

    method: Method = "gazetteer"
    """`gazetteer`: phrase lookup."""

    companies: bool = True
    """Look for the employers of the dataset's own job table too (label COMPANY)."""

    rows_per_batch: int = 65_536
    """Texts read and recognised at a time; bounds the memory. At least 1."""

    def __post_init__(self) -> None:
        check(self.rows_per_batch >= 1, "rows_per_batch", self.rows_per_batch, "of at least 1")
