"""Every knob of the ingest step."""

import re
from dataclasses import dataclass, field
from typing import Literal

from tritower.config import check
from tritower.engines.config import SparkConfig


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """How raw rows are checked, split and numbered."""

    validation_share: float = 0.15
    """Share of the requests, by time, between the training and the test slice. 0 to 0.5. Default: common practice."""

    test_share: float = 0.15
    """Share of the requests, the latest ones, kept for the test. 0 to 0.5. Default: common practice."""

    max_quarantined_share: float = 0.05
    """The step fails when a larger share of a table's rows is refused, or of the clicks. 0 to 1. Default: a judgement,
    strict enough to catch a broken export, loose enough for the odd bad row."""

    max_click_skew_s: float = 16.0
    """A click up to so many seconds *before* its impression comes from two clocks: it is counted at the time of the
    impression. An earlier one is refused. 0 or more. Default: MAXDISP of NTP (RFC 5905, section 7.2), the error from which on
    a clock counts as not synchronised."""

    max_repeated_share: float = 0.5
    """The step fails when a larger share of a table's rows repeats an earlier row. 0 to 1. Default: a judgement; a log of
    views repeats a quarter of its rows in practice."""

    previous: str = ""
    """Location of an earlier run's dataset folder, to compare with; empty for none. The limits below need it."""

    max_missing_rise: float = 0.2
    """By how much the share of missing values of any column may exceed the earlier run's. 0 to 1. Default: a judgement."""

    max_ctr_change: float = 0.5
    """By how much the click-through rate may differ from the earlier run's, as a ratio. Above 0. Default: a judgement."""

    max_new_company_share: float = 1.0
    """Share of the impressions that may belong to companies the earlier run did not know. 0 to 1. Default: no limit."""

    negatives: int = 0
    """Jobs drawn per view, for logs of views or clicks alone. 0: 9 where impressions have no column `clicked` (ten
    candidates a list, as is common in ranking tests), none where they have it. Above 0: every row is taken for a view."""

    negatives_window_d: float = 7.0
    """How far after a view the jobs are drawn from, in days. Above 0. Default: a week holds every weekday once."""

    seed: int = 0
    """Seed of the draw."""

    description_words: int = 64
    """First words of a job's description that are embedded beside its title. 0: none. What an advert offers stands near its
    top, and an encoder of 128 tokens reads no more; the cost of embedding grows with it."""

    max_text_characters: int = 1_000
    """Characters of a title, a query, a company, a place, an occupation or a wished-for title; what is beyond is cut, and
    counted. At least 16. Default: more than the 256 tokens that the encoder reads."""

    rename: dict[str, str] | None = None
    """Source column -> column of this schema, as "table.source_name": "name", such as {"impressions.shown_at": "ts"}."""

    memory_limit: str = "1GiB"
    """What the engine may hold before it spills to disk. A number with MiB or GiB."""

    threads: int = 0
    """Threads of the engine; 0 takes OMP_NUM_THREADS where set, else what the container or the machine has."""

    scratch: str = ""
    """Where the engine keeps its tables while it works; empty: beside the output, in the run's store where Spark's executors
    are pods. With Spark on other machines, a location that all of them reach, such as s3://bucket/scratch."""

    engine: Literal["duckdb", "spark"] = "duckdb"
    """duckdb: this process; spark: a cluster (extra `spark`)."""

    spark: SparkConfig = field(default_factory=SparkConfig)
    """Where Spark's workers run, such as `{"master": "kubernetes", "executors": 4}`."""

    log: Literal["auto", "impressions", "views"] = "auto"
    """What the rows of the impressions are. impressions: jobs shown, with `clicked`; views: jobs that were looked at. auto:
    impressions where a file has `clicked` or a column with a like name, else views. The step's first log line says which."""

    def __post_init__(self) -> None:
        check(0 < self.validation_share <= 0.5, "validation_share", self.validation_share, "above 0, at most 0.5")
        check(0 < self.test_share <= 0.5, "test_share", self.test_share, "above 0, at most 0.5")
        check(0 <= self.max_quarantined_share <= 1, "max_quarantined_share", self.max_quarantined_share, "between 0 and 1")
        for name in ("max_repeated_share", "max_missing_rise", "max_new_company_share"):
            check(0 <= getattr(self, name) <= 1, name, getattr(self, name), "between 0 and 1")
        check(self.max_click_skew_s >= 0, "max_click_skew_s", self.max_click_skew_s, "of 0 or more")
        check(self.max_ctr_change > 0, "max_ctr_change", self.max_ctr_change, "above 0")
        check(0 <= self.negatives <= 1_000, "negatives", self.negatives, "from 0 to 1000")
        check(not (self.log == "impressions" and self.negatives), "negatives", self.negatives, "0 where log is impressions")
        check(self.negatives_window_d > 0, "negatives_window_d", self.negatives_window_d, "above 0")
        check(self.description_words >= 0, "description_words", self.description_words, "of 0 or more")
        check(self.max_text_characters >= 16, "max_text_characters", self.max_text_characters, "of 16 or more")
        check(self.seed >= 0, "seed", self.seed, "of 0 or more")
        check(bool(re.fullmatch(r"\d+ ?[MG]i?B", self.memory_limit)), "memory_limit", self.memory_limit, "such as 1GiB")
        for key in self.rename or {}:
            table, _, column = key.partition(".")
            check(table in ("jobs", "impressions", "users") and bool(column), "rename", key, 'such as "jobs.name": "title"')
        check(self.threads >= 0, "threads", self.threads, "of 0 or more")
