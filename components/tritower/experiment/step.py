"""The room's work on files: analyse a test, plan one."""

import contextlib
import dataclasses
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tritower import logs, storage
from tritower.errors import DataError, StorageError
from tritower.experiment import analysis, history, off_policy, plan_report, planning, record, served_log
from tritower.experiment import report as pages
from tritower.experiment.analysis import CLAIMS, Result
from tritower.experiment.config import AnalysisConfig, LogConfig, PlanConfig, SimulateConfig
from tritower.experiment.ratio import Effect
from tritower.experiment.tables import Found, Tables

logger = logging.getLogger(__name__)
_TRIES = 5
_DATA = (".parquet", ".csv", ".tsv", ".gz")


def analyse(
    *,
    shown: str | Path,
    config: AnalysisConfig,
    events: str | Path = "",
    past: str | Path = "",
    report: str | Path = "",
    figures: str | Path = "",
    root: str = "",
    run: str = "",
    now_us: int | None = None,
) -> dict[str, Any]:
    """Read a test.

    Args:
        shown: location of the exposures: a Parquet or CSV file, or a folder of them; columns as `Tables.open` says.
        config: how it is read.
        events: location of further events, for the guardrails.
        past: location of impressions from before the test; the exposures' own rows from then where empty.
        report: HTML file to write, if any.
        figures: JSON file to write, if any: everything that the report shows.
        root: where the test's record is (`record.py`), which this run goes on from and adds its looks to; empty for none.
        run: id of the run, for the record.
        now_us: the time, microseconds since 1970; None for the clock's.

    Returns:
        The headline figures (`analysis.figures`), `sentence` and `claim`.

    Raises:
        SchemaError: a column is missing.
        DataError: no file, no such arm, no unit left, or exposures of the record's test are gone.
        ConfigError: what was planned changed after a look.
        ArtifactError: the record is damaged.
        StorageError: a place cannot be read or written.
    """
    now = time.time_ns() // 1000 if now_us is None else now_us
    places = {"exposures": shown, "events": events, "past": past}
    with _scratch() as scratch, _located(places), logs.phase(logger, "analyse") as counts:
        given = {name: _files(place, scratch / name) for name, place in (("events", events), ("past", past)) if str(place)}
        exposures = _files(shown, scratch / "shown")
        for _ in range(_TRIES):
            done = _looked(exposures, config, given, root=root, run=run, now_us=now)
            if done:
                break
        else:
            raise StorageError("other runs keep replacing the record", where=record.file(root), remedy="Run it again later.")
        found, result = done
        counts["units"], counts["days"] = sum(found.units.values()), found.days
    logger.info("%s", result.sentence)
    if str(report):
        storage.write_text(report, pages.html(found, result, config))
    headline = dict(analysis.figures(found, result)) | {"sentence": result.sentence, "claim": CLAIMS[result.decision]}
    if str(figures):
        storage.write_json(figures, _plain(headline | {"result": result, "left_out": found.left_out}))
    return headline


def _looked(
    exposures: Sequence[str],
    config: AnalysisConfig,
    given: Mapping[str, Sequence[str]],
    *,
    root: str,
    run: str,
    now_us: int,
) -> tuple[Found, Result] | None:
    """The analysis, its looks recorded; None where another run has recorded some meanwhile."""
    before, tag = record.read(root) if root else (None, "")
    used = record.resumed(config, before, where=record.file(root)) if root else config
    taken = {seen.day: seen.effect for seen in before.looks} if before else {}
    with Tables.open(exposures, used, **given) as tables:
        found, result = analysis.analyse(tables, used, taken=taken, now_us=now_us)
    if not root:
        return found, result
    after = record.begun(before, config, found.start_us, found.first_us, where=record.file(root))
    if not result.reasons:
        bounds = {look.day: look.bound for look in result.looks}
        looks = [(day, effect, bounds.get(day)) for day, effect in result.asked.items()]
        after = record.with_looks(after, looks, run=run, now_us=now_us)
    if after != before:
        if not record.write(root, after, tag):
            return None
        new = [seen.day for seen in after.looks if not before or seen.day not in taken]
        logger.info("record: %s", f"looked at day {', '.join(map(str, new))}" if new else "begun")
    return found, result


def plan(*, log: str | Path, config: PlanConfig, report: str | Path = "", figures: str | Path = "") -> dict[str, Any]:
    """How long a test must run, from what users did in a log.

    Args:
        log: location of raw impressions, Parquet or CSV: `ts`, the unit's column, `clicked`; `request_id` for the mailings.
        config: what the test is to find.
        report: HTML file to write, if any.
        figures: JSON file to write, if any: what is returned.

    Returns:
        `users` in both arms, `days` (None where the log is too short), `mailings` (lists shown to them in these days; None
        where days or requests are not known), `found_by_day` (after each day of the log the smallest uplift that a test of
        all its users would find); with CUPED `users_cuped`, `days_cuped`, `mailings_cuped`, `cuped_saved_pct`; `inflation`
        of the looks.

    Raises:
        SchemaError: a column is missing.
        DataError: the log has no click.
    """
    with _scratch() as scratch, _located({"log": log}), logs.phase(logger, "plan") as counts:
        past = history.read(_files(log, scratch / "log"), config)
        counts["days"] = len(past.by_day)
    given: dict[str, Any] = {
        "alpha": config.alpha, "power": config.power, "looks": config.looks, "share": config.traffic,
    }  # fmt: skip
    found = planning.plan(past.by_day, config.effect, **given)
    better = planning.plan(past.by_day, config.effect, saved=past.saved, **given)
    drift = planning.drift(config.alpha, config.power, config.looks)
    known = [user for user in past.by_day if user.users > 1 and user.mean_V[0] > 0]
    done = {
        "users": found.users,
        "days": found.days,
        "mailings": _mailings(found, past),
        "users_cuped": better.users,
        "days_cuped": better.days,
        "mailings_cuped": _mailings(better, past),
        "cuped_saved_pct": round(100 * past.saved, 1),
        "inflation": found.inflation,
        "log_days": len(past.by_day),
        "log_users": past.by_day[-1].users,
        "found_by_day": [planning.found_with(user, max(2, int(user.users * config.traffic)), drift=drift) for user in known],
    }
    sentence = plan_report.sentence(done, config)
    logger.info("%s", sentence)
    if str(report):
        storage.write_text(report, plan_report.html(done, config))
    if str(figures):
        storage.write_json(figures, _plain(done | {"sentence": sentence}))
    return done


def _mailings(found: planning.Plan, past: history.History) -> int | None:
    return round(found.users * past.lists_by_day[found.days - 1]) if found.days and past.lists_by_day else None


def numbers(found: Mapping[str, Any]) -> dict[str, float]:
    """What a backend's page shows of figures: finite numbers."""
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def simulate(*, out: str | Path, config: SimulateConfig) -> dict[str, Any]:
    """Write the tables of a test that never was: `shown.parquet`, `past.parquet` and `events.parquet`.

    Args:
        out: folder to write, as a whole.
        config: its size, its users, its faults.

    Returns:
        `users`, `days` and `rows` of exposures.
    """
    from tritower.experiment import simulated_log

    with logs.phase(logger, "simulate") as counts:
        played = simulated_log.write(
            Path(out), users=config.users, days=config.days, seed=config.seed, habits=config.habits, faults=config.faults,
            salt=config.salt,
        )  # fmt: skip
        counts["rows"] = int(played.impressions_UD.sum())
    return {"users": config.users, "days": config.days, "rows": counts["rows"]}


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tritower-experiment-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _located(places: Mapping[str, str | Path]) -> Iterator[None]:
    """Name the location of a table in errors about it: what reads tables knows only what they are for."""
    try:
        yield
    except DataError as error:
        if str(places.get(error.where, "")):
            raise type(error)(error.problem, where=f"{error.where}: {places[error.where]}", remedy=error.remedy) from error
        raise


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
    with _scratch() as scratch, logs.phase(logger, "interleaving") as counts:
        clicked = _files(clicks, scratch / "clicks") if str(clicks) else ()
        needed = {"team": "whose pick the job was, a or b"}
        with served_log.opened(_files(shown, scratch / "shown"), clicked, config, needed) as log:
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
    with _scratch() as scratch, logs.phase(logger, "off-policy") as counts:
        clicked = _files(clicks, scratch / "clicks") if str(clicks) else ()
        needed = {"position": "where the job was shown", "propensity": "how likely it came there"}
        with served_log.opened(_files(shown, scratch / "shown"), clicked, config, needed) as log:
            rows = log.rows(_files(scores, scratch / "scores"))
        counts["rows"] = len(rows.list_N)
    kinds: tuple[off_policy.Estimator, ...] = ("ips", "snips", "dr")
    return [off_policy.value(rows, kind, config.alpha) for kind in kinds]


def _files(place: str | Path, scratch: Path) -> Sequence[str]:
    """The files of a location: Parquet where it is, anything else on this machine."""
    if not str(place):
        raise DataError("no location is given", where="log", remedy="Give impressions, or a test's exposures.")
    if not storage.is_local(place):
        there = [file for file in storage.list_files(place) if file.lower().endswith(_DATA)]
        if there and all(file.lower().endswith(".parquet") for file in there):
            return there
    local = storage.local_path(place) if storage.is_local(place) else storage.fetch(place, scratch)
    if local.is_dir():
        files = sorted(path for path in local.rglob("*") if path.suffix.lower() in _DATA)
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
