"""Knobs of the feature step."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from tritower.config import Removed, check
from tritower.engines.config import SparkConfig


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """How counters decay, how long a history is remembered, what reads the rows."""

    FORMER: ClassVar[Mapping[str, str | Removed]] = {
        "batch_rows": Removed("rows are read 131,072 at a time", off=131_072),
        "history_texts": Removed("the column was of no use to the ranker (docs/experiments.md)", off=0),
    }

    ctr_half_life_days: float = 7.0
    """Days after which an event counts half in the decayed click-through rates. Above 0. Default: one week, the period of
    job search traffic."""

    history_half_life_days: float = 14.0
    """Days by which an older click counts half as much as a newer one in the centroid of a user's clicked jobs. Above 0.
    Default: twice the half-life of popularity, since taste changes more slowly."""

    history_clicks: int = 16
    """How many of a user's latest clicks the history holds; older ones only count in the feature `history_clicks`. Range: 1
    to 1,024. Default: 16, at which a history fits a core's first-level cache."""

    history_searches: int = 8
    """How many of a user's latest searches are compared with the job. Range: 1 to 1,024. Default: about three visits."""

    prior_impressions: float = 20.0
    """The Beta prior before anything can be fitted: one click in this many impressions. Above 1. Default: the inverse of
    a usual click-through rate of 5 %."""

    positions: int = 64
    """Positions told apart by the examination curve; deeper ones share the last. Range: 2 to 4,096. Default: more than a
    page shows."""

    remembered_days: int = 14
    """For how many days the state remembers which searches it has counted, to tell rows that a later run may skip from rows
    that came late; 8 bytes a search. Of older days it knows how many there were. At least 1. Default: two weeks, in which
    logs that are delivered late have come."""

    max_late_share: float = 0.05
    """The run stops when more than this share of its rows that no earlier run has counted lies before the state's last row,
    and so came too late to be counted. Range: 0 to 1. Default: as ingest's `max_quarantined_share`."""

    memory_limit: str = "1GiB"
    """What the engine may hold before it spills to disk. A number with MiB or GiB."""

    threads: int = 0
    """Threads of the engine. 0: one for DuckDB, which only reads ahead of the pass over time; for Spark OMP_NUM_THREADS,
    else what the container or the machine has."""

    scratch: str = ""
    """Where the engine keeps its tables while it works; empty: beside the output, in the run's store where Spark's executors
    are pods. With Spark on other machines, a location that all of them reach, such as s3://bucket/scratch."""

    engine: Literal["duckdb", "spark"] = "duckdb"
    """duckdb: this process; spark: a cluster (extra `spark`)."""

    spark: SparkConfig = field(default_factory=SparkConfig)
    """Where Spark's workers run, such as `{"master": "kubernetes", "executors": 4}`."""

    def __post_init__(self) -> None:
        check(self.ctr_half_life_days > 0, "ctr_half_life_days", self.ctr_half_life_days, "above 0")
        check(self.history_half_life_days > 0, "history_half_life_days", self.history_half_life_days, "above 0")
        check(1 <= self.history_clicks <= 1024, "history_clicks", self.history_clicks, "from 1 to 1,024")
        check(1 <= self.history_searches <= 1024, "history_searches", self.history_searches, "from 1 to 1,024")
        check(self.prior_impressions > 1, "prior_impressions", self.prior_impressions, "above 1")
        check(self.remembered_days >= 1, "remembered_days", self.remembered_days, "of at least 1")
        check(0 <= self.max_late_share <= 1, "max_late_share", self.max_late_share, "from 0 to 1")
        check(2 <= self.positions <= 4096, "positions", self.positions, "from 2 to 4,096")
        check(bool(re.fullmatch(r"\d+ ?[MG]i?B", self.memory_limit)), "memory_limit", self.memory_limit, "such as 1GiB")
        check(self.threads >= 0, "threads", self.threads, "of 0 or more")
