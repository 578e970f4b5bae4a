"""The room's work on files: analyse a test, plan one."""

import dataclasses
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tritower import logs, storage
from tritower.errors import DataError
from tritower.experiment import analysis, history, off_policy, planning, served_log
from tritower.experiment import report as pages
from tritower.experiment.config import AnalysisConfig, LogConfig, PlanConfig
from tritower.experiment.ratio import Effect
from tritower.experiment.tables import Tables

logger = logging.getLogger(__name__)


def analyse(
    *,
    shown: str | Path,
    config: AnalysisConfig,
    events: str | Path = "",
    past: str | Path = "",
    report: str | Path = "",
    figures: str | Path = "",
) -> dict[str, Any]:
    """Read a test.

    Args:
        shown: location of the exposures: a Parquet or CSV file, or a folder of them; columns as `Tables.open` says.
        events: location of further events, for the guardrails.
        past: location of impressions from before the test; the exposures' own rows from then where empty.
        report: HTML file to write, if any.
        figures: JSON file to write, if any: everything that the report shows.

    Returns:
        The headline figures (`analysis.figures`) and `sentence`.

    Raises:
        SchemaError: a column is missing.
        DataError: no file, no such arm, no unit left.
    """
    with tempfile.TemporaryDirectory(prefix="tritower-experiment-") as scratch, logs.phase(logger, "analyse") as counts:
        given = {
            name: _files(place, Path(scratch) / name) for name, place in (("events", events), ("past", past)) if str(place)
        }
        with Tables.open(_files(shown, Path(scratch) / "shown"), config, **given) as tables:
            found, result = analysis.analyse(tables, config)
        counts["units"], counts["days"] = sum(found.units.values()), found.days
    logger.info("%s", result.sentence)
    if str(report):
        storage.write_text(report, pages.html(found, result, config))
    headline = dict(analysis.figures(found, result)) | {"sentence": result.sentence}
    if str(figures):
        storage.write_json(figures, headline | {"result": _plain(result), "left_out": found.left_out})
    return headline


def plan(*, log: str | Path, config: PlanConfig) -> dict[str, Any]:
    """How long a test must run, from what users did in a log.

    Args:
        log: location of raw impressions, Parquet or CSV: `ts`, the unit's column, `clicked`.
        config: what the test is to find.

    Returns:
        `users` in both arms, `days` (None where the log is too short), `found_by_day`: after each day of the log the smallest
        uplift that a test of all its users would find; with CUPED `users_cuped`, `days_cuped`, `cuped_saved`; `inflation` of
        the looks.

    Raises:
        SchemaError: a column is missing.
        DataError: the log has no click.
    """
    with tempfile.TemporaryDirectory(prefix="tritower-experiment-") as scratch, logs.phase(logger, "plan") as counts:
        by_day, saved = history.read(_files(log, Path(scratch) / "log"), config)
        counts["days"] = len(by_day)
    found = planning.plan(
        by_day, config.effect, alpha=config.alpha, power=config.power, looks=config.looks, share=config.traffic
    )
    drift = planning.drift(config.alpha, config.power, config.looks)
    known = [user for user in by_day if user.users > 1 and user.mean_V[0] > 0]
    better = planning.plan(
        by_day, config.effect, alpha=config.alpha, power=config.power, looks=config.looks, share=config.traffic, saved=saved
    )
    return {
        "users": found.users,
        "days": found.days,
        "users_cuped": better.users,
        "days_cuped": better.days,
        "cuped_saved": saved,
        "inflation": found.inflation,
        "found_by_day": [planning.found_with(user, max(2, int(user.users * config.traffic)), drift=drift) for user in known],
    }


def prefer(*, shown: str | Path, config: LogConfig, clicks: str | Path = "") -> tuple[str, served_log.Drafts]:
    """Which of two interleaved rankers users prefer.

    Args:
        shown: location of the lists; columns as `served_log` says, `team` among them.
        clicks: location of the clicks, where `shown` has none.

    Returns:
        A sentence, and the figures.

    Raises:
        SchemaError: a column is missing.
        DataError: no file, no interleaved list, no click.
    """
    with tempfile.TemporaryDirectory(prefix="tritower-experiment-") as scratch, logs.phase(logger, "interleaving") as counts:
        clicked = _files(clicks, Path(scratch) / "clicks") if str(clicks) else ()
        needed = {"team": "whose pick the job was, a or b"}
        with served_log.opened(_files(shown, Path(scratch) / "shown"), clicked, config, needed) as log:
            found = log.drafts()
        counts["lists"], counts["users"] = found.lists, found.users
    votes = found.preference
    span = (
        f"{votes.share_b:.1%} of {votes.users:,} votes are for b ({1 - config.alpha:.0%}: {votes.low:.1%} to {votes.high:.1%})"
    )
    if found.reasons:
        return f"Do not believe this: {'; '.join(found.reasons)}.", found
    if votes.low <= 0.5 <= votes.high:
        return f"No preference is sure: {span}.", found
    return (
        f"Users prefer {'b' if votes.share_b > 0.5 else 'a'}: {span}. This says nothing about by how much clicks change.",
        found,
    )


def estimate(*, shown: str | Path, scores: str | Path, config: LogConfig, clicks: str | Path = "") -> list[off_policy.Value]:
    """What a new ranker would have earned with the jobs that were shuffled: IPS, self-normalised, doubly robust.

    Args:
        shown: location of the lists: columns as `served_log` says, `position` and `propensity` among them.
        scores: location of the new ranker's scores: `request_id`, `job_id`, `score`.
        clicks: location of the clicks, where `shown` has none.

    Raises:
        SchemaError: a column is missing.
        DataError: no file, nothing shuffled, lists that are not whole, jobs without scores, too few rows that count.
    """
    with tempfile.TemporaryDirectory(prefix="tritower-experiment-") as scratch, logs.phase(logger, "off-policy") as counts:
        clicked = _files(clicks, Path(scratch) / "clicks") if str(clicks) else ()
        needed = {"position": "where the job was shown", "propensity": "how likely it came there"}
        with served_log.opened(_files(shown, Path(scratch) / "shown"), clicked, config, needed) as log:
            rows = log.rows(_files(scores, Path(scratch) / "scores"))
        counts["rows"] = len(rows.list_N)
    kinds: tuple[off_policy.Estimator, ...] = ("ips", "snips", "dr")
    return [off_policy.value(rows, kind, config.alpha) for kind in kinds]


def _files(place: str | Path, scratch: Path) -> Sequence[str]:
    """The files of a location, on this machine."""
    local = storage.local_path(place) if storage.is_local(place) else storage.fetch(place, scratch)
    if local.is_dir():
        files = sorted(path for path in local.rglob("*") if path.suffix.lower() in (".parquet", ".csv", ".tsv", ".gz"))
        files = [path for path in files if not any(part.startswith((".", "_")) for part in path.relative_to(local).parts)]
    else:
        files = [local] if local.is_file() else []
    if not files:
        raise DataError("there is no Parquet or CSV file", where=str(place), remedy="Give a file, or a folder that holds some.")
    return [str(path) for path in files]


def _plain(value: Any) -> Any:
    """For JSON: no infinity, no NaN."""
    if isinstance(value, Effect):
        return _plain({name: getattr(value, name) for name in ("relative", "log_error", "absolute", "error", "p")})
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
