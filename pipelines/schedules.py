"""Schedules on a backend (its API calls them recurring runs): make one in place of another, without ending a run.

A schedule cannot be changed, so another of the same name takes its place. Deleting a schedule deletes its run that is under
way, pods and all, and leaves that run RUNNING for ever. So the old one is disabled, and deleted once it has no open run.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tritower.errors import ConfigError, LaunchError

from pipelines import backend_inputs, diagnosis, experiments, versions
from pipelines.api import Api, Refused

_ON, _OFF = "ENABLED", "DISABLED"


class Scheduled(NamedTuple):
    """Ids of the new schedule, of older ones of its name that were deleted, and of those that wait for a run to end."""

    made: str
    deleted: list[str]
    waiting: list[str]


def schedule(
    api: Api,
    version: versions.Version,
    arguments: Mapping[str, Any],
    *,
    experiment: str,
    name: str,
    cron: str,
    about: str = "",
    service_account: str = "",
) -> Scheduled:
    """Run a published version by the clock; a schedule of the same name in the experiment is replaced.

    The old one is disabled before the new one is made, so that no tick of the clock starts two runs; should the backend refuse
    the new one, or the call be interrupted, the old one is enabled again. The backend looks at its schedules every 30 s: a tick
    that it has not looked at when the old one is disabled starts no run.

    Args:
        arguments: pipeline parameters, the same for every run; `runs.EACH_RUN` in a text stands for the run's id.
        cron: six fields, seconds first.

    Raises:
        ConfigError: the cron text does not have six fields, or an argument does not fit the version.
    """
    check_cron(cron)
    backend_inputs.check(version.spec, arguments, where=f"{version.pipeline} {version.name}")
    experiment_id = experiments.made(api, experiment)
    old = [one for one in _all(api, experiment_id) if one.get("display_name") == name]
    running = [_id(one) for one in old if one.get("status") == _ON]
    body = {
        "display_name": experiments.cut(name),
        "description": experiments.cut(about),
        "experiment_id": experiment_id,
        "pipeline_version_reference": version.reference,
        "runtime_config": {"parameters": dict(arguments)},
        "trigger": {"cron_schedule": {"cron": cron}},
        "mode": "ENABLE",
        "max_concurrency": "1",
        "no_catchup": True,
        "service_account": service_account,
    }
    with _disabled(api, running):
        made = _id(api.post("recurringruns", body={key: value for key, value in body.items() if value}))
    deleted, waiting = _cleared(api, experiment_id, [_id(one) for one in old])
    return Scheduled(made, deleted, waiting)


def lines(api: Api, experiment: str) -> list[str]:
    """A line for each schedule of an experiment; those that were replaced and whose last run has ended are deleted.

    Replaced is a disabled schedule with an enabled one of its name made later: one that somebody paused is left alone.
    """
    experiment_id = experiments.find(api, experiment)
    found = list(_all(api, experiment_id)) if experiment_id else []
    newest: dict[str, str] = {}
    for one in found:
        if one.get("status") == _ON:
            newest[one["display_name"]] = max(_made_at(one), newest.get(one["display_name"], ""))
    replaced = [_id(one) for one in found if one.get("status") == _OFF and _made_at(one) <= newest.get(one["display_name"], "")]
    deleted, waiting = _cleared(api, experiment_id, replaced)
    told = dict.fromkeys(deleted, "replaced; its last run has ended: deleted")
    told |= dict.fromkeys(waiting, "replaced; deleted once its last run has ended")
    return [_line(one, told.get(_id(one), str(one.get("status")).lower())) for one in found]


def check_cron(cron: str) -> None:
    """Raise ConfigError unless the text has the six fields that the backend's scheduler reads (seconds first)."""
    if len(cron.split()) != 6 or not re.fullmatch(r"[\w*?/,\- #]+", cron):
        raise ConfigError(
            f"{cron!r} does not have six fields",
            where="--cron",
            remedy="Write second, minute, hour, day, month, weekday: '0 30 3 * * *' is half past three every day.",
        )


@contextlib.contextmanager
def _disabled(api: Api, schedules: list[str]) -> Iterator[None]:
    """Disable them before the block; where it fails or is interrupted, enable them again."""
    try:
        for one in schedules:
            api.post("recurringruns", one, verb="disable")
        yield
    except BaseException:
        try:
            for one in schedules:
                api.post("recurringruns", one, verb="enable")
        except LaunchError as error:
            raise LaunchError(
                f"no schedule was made, and the old one ({', '.join(schedules)}) may be disabled: {error.problem}",
                where=api.where,
                remedy=f"Schedule again, or `kfp recurring-run enable {schedules[0]}`.",
            ) from error
        raise


def _cleared(api: Api, experiment_id: str, schedules: list[str]) -> tuple[list[str], list[str]]:
    """Delete those that have no open run; the ids of the deleted, and of the others."""
    deleted, waiting = [], []
    for one in schedules:
        if _has_open_run(api, experiment_id, one):
            waiting.append(one)
            continue
        try:
            # Since KFP 2.17 ORPHAN spares a run that began a moment ago and is not listed yet; older ones do not know it.
            api.delete("recurringruns", one, propagation_policy="ORPHAN")
        except Refused as error:
            if error.status != 404:  # somebody else deleted it
                raise
        deleted.append(one)
    return deleted, waiting


def _has_open_run(api: Api, experiment_id: str, schedule_id: str) -> bool:
    runs = api.listed("runs", key="runs", equal={"recurring_run_id": schedule_id}, experiment_id=experiment_id)
    return any(run.get("recurring_run_id") == schedule_id and diagnosis.state(run) not in diagnosis.ENDED for run in runs)


def _all(api: Api, experiment_id: str) -> Iterator[dict[str, Any]]:
    return api.listed("recurringruns", key="recurringRuns", experiment_id=experiment_id)


def _line(schedule: Mapping[str, Any], state: str) -> str:
    words = (_id(schedule), state, schedule["display_name"], _cron(schedule), schedule.get("description", ""))
    return "  ".join(str(word) for word in words if word)


def _id(schedule: Mapping[str, Any]) -> str:
    return str(schedule["recurring_run_id"])


def _made_at(schedule: Mapping[str, Any]) -> str:
    """RFC 3339 in UTC: sorts as text."""
    return str(schedule.get("created_at") or "")


def _cron(schedule: Mapping[str, Any]) -> str:
    trigger = schedule.get("trigger") or {}
    return str((trigger.get("cron_schedule") or {}).get("cron") or "")
