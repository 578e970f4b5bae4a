"""Every constant of the simulated job board, with the reason for its default."""

import datetime
from dataclasses import dataclass

from tritower.config import check


@dataclass(frozen=True, kw_only=True)
class SimulateConfig:
    """The board: its size, its people, its logging policy, its click model and its dirt.

    Weights of the click model (`weight_*`) are in log-odds. They were chosen so that a ranking by the true relevance
    reaches an AUC near .85 on the randomised slice while no single observable signal passes .70: such data can be learned
    from, but not easily.
    """

    impressions: int = 200_000
    """Rows in the log, at least 100. 200,000 is enough to train a ranker on a laptop in minutes."""
    seed: int = 0
    """Same seed, same config and same version: the same bytes."""
    days: int = 28
    """Length of the log in days, 2 to 365. Four whole weeks, so that every weekday is seen equally."""
    start: str = "2026-01-05"
    """First day, ISO date in UTC; a Monday."""

    jobs: int = 0
    """Job adverts, posted over the 30 days before the log and during it; 0 derives
    6,000 x (impressions / 200,000) ^ 0.75, so that a larger log also shows each job more often."""
    users: int = 0
    """Job seekers, of whom about half search within the log; 0 derives 8,000 x (impressions / 200,000) ^ 0.9: growth comes
    mostly from new people."""
    occupations: int = 0
    """Occupations in the market; 0 derives one per 45 jobs, between 12 and 150: a larger log shows each of them more often."""
    regions: int = 0
    """States with jobs; 0 derives one per 400 jobs, between 3 and 50: a search then finds several jobs in its state."""

    page_low: int = 10
    """Fewest jobs on a page of results, 1 to `page_high`."""
    page_high: int = 20
    """Most jobs on a page of results, up to 40. Result pages of large boards hold 10 to 20 adverts."""
    requests_per_session: float = 2.2
    """Mean searches in a visit, at least 1. Most visits to a board are short."""
    randomised_share: float = 0.10
    """Share of requests shown in random order, 0 to 1. A tenth gives the test days a few hundred unbiased
    clicks at 200,000 rows."""
    tie_share: float = 0.02
    """Share of requests that carry the same `ts` as the one before, 0 to 1: point-in-time code must not
    depend on their order."""

    drift: float = 0.25
    """Probability that a user's intent moves to a related occupation between two visits, 0 to 1."""
    side_intent: float = 0.15
    """Probability that a visit is about the user's second career instead of the current one, 0 to 1."""
    activity_sigma: float = 1.1
    """Spread of visits per user (sigma of a log-normal), 0 to 3: most users come once, a few come daily."""
    profile_missing: float = 0.35
    """Probability that a user has no interests, and separately no past titles, 0 to 1. Profiles are optional on most boards."""
    home_search: float = 0.85
    """Probability that a search is made in the user's home city, 0 to 1; others are in the same state or anywhere."""

    same_words: float = 0.35
    """Share of searches worded as employers word titles, 0 to 1; the others use the seeker's own alternate titles, which
    often share no word with the advert."""
    abbreviation_share: float = 0.5
    """Probability that an abbreviation (RN, CDL, CSR) is used in a search where one exists, 0 to 1."""
    typo_share: float = 0.06
    """Probability of a misspelt word in a search, 0 to 1. Query logs of search engines show 5 to 15 % misspelt queries."""
    vague_share: float = 0.12
    """Probability of a search that names no occupation ('part time', 'warehouse'), 0 to 1."""
    empty_share: float = 0.03
    """Probability of an empty search: the user only browses a place, 0 to 1."""
    title_noise: float = 0.25
    """Probability that a job title carries requisition noise (shift, pay, number, 'Hiring Now'), 0 to 1."""
    occupation_missing: float = 0.25
    """Probability that a job's `occupation` is missing, 0 to 1: not every source of adverts is coded."""
    coordinates_missing: float = 0.05
    """Probability that a job has no coordinates, 0 to 1: not every address is found."""
    occupation_wrong: float = 0.20
    """Probability that a job's `occupation` is a related but wrong code, 0 to 1. Automatic coding of titles to detailed SOC
    codes disagrees with experts about as often, or oftener."""

    candidates: int = 48
    """Jobs that the logging policy retrieves per request before it ranks them, at least `page_high`, up to 200."""
    policy_known: float = 0.35
    """Share of retrieved candidates found through the board's synonym table, 0 to 1. Without it no job whose title shares no
    word with the search would ever be shown, and nothing could be learned about such pairs."""
    policy_explore: float = 0.12
    """Share of retrieved candidates that are any open job, 0 to 1: weak candidates are seen, too."""
    policy_noise: float = 0.6
    """Standard deviation of the noise in the policy's score; the score's lexical part is at most 2."""

    examination_decay: float = 0.456
    """Examination at position k is k ** -decay, 0 to 3: 1 at the top and .35 at position 10, within the range of
    eye-tracking and randomisation studies (Joachims et al. 2005; Wang et al. 2018)."""
    ctr: float = 0.07
    """Clicks per impression over all positions, 0.005 to 0.5; the intercept of the click model is solved for it."""
    click_delay_s: float = 25.0
    """Median seconds from showing to clicking, above 0; log-normal with sigma 1.2, at most an hour."""

    weight_occupation: float = 3.4
    """Per unit of relatedness (0 to 1) between what the user wants and the job: the strongest signal of a board."""
    weight_speciality: float = 0.9
    """Per unit of likeness (-1 to 1) of wanted and advertised title inside related occupations."""
    weight_seniority: float = 0.45
    """Loss per level between the user's seniority and the job's."""
    weight_city: float = 1.5
    """Gain of a job in the city searched. Place is the strongest single signal in real views of a job board."""
    weight_region: float = 0.8
    """Gain of a job in the same state but another city."""
    weight_remote: float = 0.9
    """Gain of a remote job for a fully remote-minded user."""
    weight_company: float = 0.35
    """Per standard deviation of the employer's reputation."""
    weight_appeal: float = 0.6
    """Per standard deviation of the job's own appeal (pay, benefits): what popularity features can learn."""
    weight_taste: float = 0.35
    """Per standard deviation of the user's own taste for the industry and kind of work: what history can learn, of the few
    users with a long one. Small, or most of the distance to the truth would be out of reach of any ranking."""
    weight_age: float = 0.12
    """Loss per unit of log(1 + days since posting)."""

    bad_rows: float = 0.0
    """Share of impressions that are damaged, 0 to 0.2; see `damage.py` for the kinds. The truth table keeps clean rows only."""
    part_requests: int = 40_000
    """Requests per Parquet file, at least 1."""
    block_requests: int = 4_096
    """Requests drawn at once, at least 1: bounds memory. Values do not depend on it, only the size of row groups does."""

    def __post_init__(self) -> None:
        check(self.impressions >= 100, "impressions", self.impressions, "of at least 100")
        check(self.seed >= 0, "seed", self.seed, "of at least 0")
        check(2 <= self.days <= 365, "days", self.days, "between 2 and 365")
        check(_is_date(self.start), "start", self.start, "such as 2026-01-05")
        for knob in ("jobs", "users", "regions"):
            check(getattr(self, knob) >= 0, knob, getattr(self, knob), "of at least 0")
        check(self.occupations == 0 or self.occupations >= 2, "occupations", self.occupations, "of 0 or at least 2")
        check(1 <= self.page_low <= self.page_high, "page_low", self.page_low, "between 1 and page_high")
        check(self.page_high <= 40, "page_high", self.page_high, "up to 40")
        check(self.page_high <= self.candidates <= 200, "candidates", self.candidates, "between page_high and 200")
        check(self.requests_per_session >= 1, "requests_per_session", self.requests_per_session, "of at least 1")
        for knob in _SHARES:
            check(0 <= getattr(self, knob) <= 1, knob, getattr(self, knob), "between 0 and 1")
        check(
            self.policy_known + self.policy_explore <= 0.9,
            "policy_explore",
            self.policy_explore,
            "that leaves room for lexical search",
        )
        check(0 <= self.activity_sigma <= 3, "activity_sigma", self.activity_sigma, "between 0 and 3")
        check(0 <= self.examination_decay <= 3, "examination_decay", self.examination_decay, "between 0 and 3")
        check(0.005 <= self.ctr <= 0.5, "ctr", self.ctr, "between 0.005 and 0.5")
        check(self.click_delay_s > 0, "click_delay_s", self.click_delay_s, "above 0")
        check(0 <= self.bad_rows <= 0.2, "bad_rows", self.bad_rows, "between 0 and 0.2")
        check(self.part_requests >= 1, "part_requests", self.part_requests, "of at least 1")
        check(self.block_requests >= 1, "block_requests", self.block_requests, "of at least 1")

    @property
    def num_jobs(self) -> int:
        """Job adverts, derived where not given; never so few that a page could not be filled on any day."""
        enough = 3 * self.page_high * (30 + self.days) // 30
        return self.jobs or max(enough, round(6_000 * (self.impressions / 200_000) ** 0.75))

    @property
    def num_users(self) -> int:
        """Job seekers, derived where not given."""
        return self.users or max(20, round(8_000 * (self.impressions / 200_000) ** 0.9))

    @property
    def num_occupations(self) -> int:
        """Occupations, derived where not given."""
        return self.occupations or min(150, max(12, self.num_jobs // 45))

    @property
    def num_regions(self) -> int:
        """States, derived where not given."""
        return self.regions or min(50, max(3, self.num_jobs // 400))


def _is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


_SHARES = (
    "randomised_share", "tie_share", "drift", "side_intent", "profile_missing", "home_search", "same_words",
    "abbreviation_share", "typo_share", "vague_share", "empty_share", "title_noise", "occupation_missing", "occupation_wrong",
    "coordinates_missing",
    "policy_known", "policy_explore",
)  # fmt: skip

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"impressions": 1_000, "days": 14},
    "demo": {"impressions": 200_000},
    "quality": {"impressions": 1_200_000},
    "large": {"impressions": 10_000_000},
}
"""Named sizes for the command line: `tiny` for tests, `demo` for a laptop in seconds, `quality` for figures worth quoting,
`large` for measuring speed and memory."""
