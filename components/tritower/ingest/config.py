"""Every knob of the ingest step."""

import re
from dataclasses import dataclass
from typing import Literal

from tritower.config import check


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """How raw rows are checked, split and numbered."""

    validation_share: float = 0.15
    """Share of the requests, by time, between the training and the test slice. 0 to 0.5. Default: common practice."""

    test_share: float = 0.15
    """Share of the requests, the latest ones, kept for the test. 0 to 0.5. Default: common practice."""

    max_quarantined_share: float = 0.05
    """The step fails when a larger share of a table's rows is refused. 0 to 1. Default: a judgement, strict enough to
    catch a broken export, loose enough for the odd bad row."""

    rename: dict[str, str] | None = None
    """Source column -> column of this schema, as "table.source_name": "name", such as {"impressions.shown_at": "ts"}."""

    memory_limit: str = "1GiB"
    """What the engine may hold before it spills to disk. A number with MiB or GiB."""

    threads: int = 0
    """Threads of the engine; 0 takes all cores."""

    engine: Literal["duckdb", "spark"] = "duckdb"
    """duckdb: this process; spark: a cluster (extra `spark`)."""

    def __post_init__(self) -> None:
        check(0 < self.validation_share <= 0.5, "validation_share", self.validation_share, "above 0, at most 0.5")
        check(0 < self.test_share <= 0.5, "test_share", self.test_share, "above 0, at most 0.5")
        check(0 <= self.max_quarantined_share <= 1, "max_quarantined_share", self.max_quarantined_share, "between 0 and 1")
        check(bool(re.fullmatch(r"\d+ ?[MG]i?B", self.memory_limit)), "memory_limit", self.memory_limit, "such as 1GiB")
        check(self.threads >= 0, "threads", self.threads, "of 0 or more")
