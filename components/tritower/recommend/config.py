"""Knobs of the two steps of this room: `candidates` and `recommend`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from tritower.config import Removed, check


@dataclass(frozen=True, kw_only=True)
class CandidatesConfig:
    """Which searches are answered, and how many jobs are retrieved for each."""

    FORMER: ClassVar[Mapping[str, str | Removed]] = {
        "search_block": Removed("256 searches are compared with the jobs at a time", off=256),
        "job_block": Removed("16,384 jobs are compared at a time", off=16_384),
    }

    searches: int = 200
    """Number of searches drawn from the log; unused when `request_ids` is given. At least 1; 200 is a readable sample."""

    request_ids: tuple[str, ...] = ()
    """Answer exactly these requests, by the source's id, instead of a sample."""

    split: Literal["train", "validation", "test", "all"] = "test"
    """Split the searches come from; `test` holds the latest ones, `all` takes every search of the log."""

    recent_share: float = 0.5
    """The sample is drawn from this latest share of the split's requests, in (0, 1]: recommendations are for now, and the
    newest searches have the fullest history behind them."""

    latest_per_user: bool = False
    """Answer the latest search of every user in the split instead of a sample, as a daily batch run does."""

    answer_at: Literal["search", "end"] = "search"
    """The time a search is answered for: its own, or just after the last search of the log. It decides which jobs are
    active and what history counts."""

    seed: int = 0
    """Seed of the sample, 0 or more."""

    candidates_per_search: int = 200
    """Jobs handed to the ranker for each search, at least 1. Fewer are given where fewer jobs are active."""

    def __post_init__(self) -> None:
        check(self.searches >= 1, "searches", self.searches, "of at least 1")
        check(0 < self.recent_share <= 1, "recent_share", self.recent_share, "above 0 and at most 1")
        check(self.seed >= 0, "seed", self.seed, "of at least 0")
        check(self.candidates_per_search >= 1, "candidates_per_search", self.candidates_per_search, "of at least 1")


@dataclass(frozen=True, kw_only=True)
class RecommendConfig:
    """How the scored candidates become a list."""

    top_k: int = 10
    """Jobs per search, from 1 to 32767; one page."""

    collapse_duplicates: bool = True
    """Keep only the best of several adverts with the same title and company (white space and case apart), as a reader
    takes them for one job."""

    def __post_init__(self) -> None:
        check(1 <= self.top_k <= 32_767, "top_k", self.top_k, "from 1 to 32767")
