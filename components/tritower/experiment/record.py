"""A test's record: what was planned, and what was seen at each look. One small file, replaced as a whole.

    <root>/looks.json

A test that is analysed every day looks at the same exposures again and again. Without a record each run works all looks out
anew, and late rows could make a past look cross its bound after all: one more look than was planned. With one, a look is taken
once, by the first run that finds its day settled, and stays as it was seen. A run that is tried again finds its look taken and
says the same. What was planned holds from the first look on. A test that is not believed takes no look.
"""

import dataclasses
import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritower import storage
from tritower.config import from_dict, to_dict
from tritower.errors import ArtifactError, ConfigError, DataError
from tritower.experiment.config import AnalysisConfig
from tritower.experiment.ratio import Effect, Ratio
from tritower.experiment.sums import DAY_US

FILE = "looks.json"
FORMAT = 1
"""Version of the file's schema."""
_PLANNED = (
    "control", "treated", "treated_share", "unit", "experiment", "start", "planned_days", "look_days", "alpha",
    "click_window_h", "cap_quantile", "bot_impressions_per_day", "bot_click_through",
)  # fmt: skip
"""Knobs of `AnalysisConfig` that are part of the plan; the others may change at any time."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen at a look: the arms' ratios, with CUPED where there was a past, and their variances."""

    day: int
    """Days since the start."""
    control: float
    control_variance: float
    treated: float
    treated_variance: float
    bound: float | None = None
    """Standard errors that the effect had to be away from 0; None where the look brought nothing new."""
    uplift_pct: float = 0.0
    """The uplift, for readers."""
    run: str = ""
    """Id of the run that looked."""
    at: str = ""
    """When it did: ISO 8601, UTC."""

    @property
    def effect(self) -> Effect:
        """As `analysis` has it."""
        return Effect(Ratio(self.control, self.control_variance), Ratio(self.treated, self.treated_variance))


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a test's runs have left."""

    plan: dict[str, Any]
    """The knobs of `_PLANNED`."""
    start_us: int
    """First moment of the test: microseconds since 1970."""
    first_us: int
    """The first exposure with an arm that the first run saw."""
    start_at: str = ""
    """The start, for readers."""
    looks: tuple[Seen, ...] = ()
    """Those that were taken, by day."""
    format: int = FORMAT
    """Version of the schema."""


def file(root: str) -> str:
    """Location of the record under a root."""
    return f"{root.rstrip('/')}/{FILE}"


def read(root: str) -> tuple[Record | None, str]:
    """The record under a root, None where there is none, and the tag that `write` wants.

    Raises:
        ArtifactError: it is damaged, or of another version of tritower.
        StorageError: it cannot be read.
    """
    found = storage.read_small(file(root))
    if not found:
        return None, ""
    try:
        value = json.loads(found[0])
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ValueError(f"it is not of format {FORMAT}")
        return from_dict(Record, value, where=file(root)), found[1]
    except (ValueError, ConfigError) as error:
        raise ArtifactError(
            f"the record of the looks cannot be read: {error}",
            where=file(root),
            remedy="Read it with the version of tritower that wrote it, or bring back a copy: a new one forgets the looks.",
        ) from None


def write(root: str, record: Record, tag: str) -> bool:
    """Replace the record as a whole; False, and nothing is written, where another run was faster.

    Raises:
        StorageError: it cannot be written.
    """
    text = json.dumps(to_dict(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return storage.swap_small(file(root), text.encode(), tag=tag)


def resumed(config: AnalysisConfig, record: Record | None, *, where: str) -> AnalysisConfig:
    """The knobs to analyse with: the start is that of the record.

    Raises:
        ConfigError: something was planned otherwise, and a look was taken since.
    """
    if record is None:
        return config
    now = planned(config)
    changed = [name for name in _PLANNED if name in record.plan and record.plan[name] != now[name]]
    if changed and record.looks:
        name = changed[0]
        raise ConfigError(
            f"{name} is {now[name]!r}, and was {record.plan[name]!r} at the first look (day {record.looks[0].day})",
            where=where,
            remedy="A plan that changes after a look promises nothing: give what was planned, or a new root for a new test.",
        )
    return config if config.start else dataclasses.replace(config, start=_moment(record.start_us))


def begun(record: Record | None, config: AnalysisConfig, start_us: int, first_us: int, *, where: str) -> Record:
    """The record of a test that is analysed now; its plan may change until the first look.

    Args:
        record: what there was, None for nothing.
        config: the knobs, as the user gave them.
        start_us: the test's first moment, microseconds since 1970.
        first_us: the first exposure with an arm that the tables hold.
        where: the record, for errors.

    Raises:
        DataError: exposures that the first run saw are gone.
    """
    if record is None or not (record.looks or record.plan == planned(config)):
        return Record(plan=dict(planned(config)), start_us=start_us, first_us=first_us, start_at=_moment(start_us))
    if first_us >= record.first_us + DAY_US:
        raise DataError(
            f"the exposures begin at {_moment(first_us)}, and those of this test began at {_moment(record.first_us)}",
            where=where,
            remedy="Give all exposures since the start of the test: users' clicks add up from there.",
        )
    return record


def with_looks(record: Record, looks: Sequence[tuple[int, Effect, float | None]], *, run: str, now_us: int) -> Record:
    """The record with these looks (day, effect, bound) as well; those that it has stay as they are."""
    known = {seen.day for seen in record.looks}
    new = tuple(
        Seen(
            day=day, control=effect.control.value, control_variance=effect.control.variance, treated=effect.treated.value,
            treated_variance=effect.treated.variance, bound=bound, run=run, at=_moment(now_us),
            uplift_pct=round(100 * effect.relative, 3),
        )
        for day, effect, bound in looks
        if day not in known and effect.log_error < math.inf
    )  # fmt: skip
    return dataclasses.replace(record, looks=tuple(sorted((*record.looks, *new), key=lambda seen: seen.day)))


def planned(config: AnalysisConfig) -> Mapping[str, Any]:
    """The knobs that are part of the plan, as the file has them."""
    known = to_dict(config)
    return {name: known[name] for name in _PLANNED}


def _moment(ts_us: int) -> str:
    moment = dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=ts_us)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
