"""How a run on a backend stands, for people and for a webhook: its state and since when, its verdict or what it is at."""

import datetime as dt
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tritower.errors import JobFailed, LaunchError, TritowerError

from pipelines import diagnosis, experiments, runs
from pipelines.api import Api

_HANDED_BACK = "ExecutorOutput: "
_WORDS = ("gate", "claim")
"""Outputs that are a pipeline's verdict; why is `<word>_reason`."""
_VERDICT = tuple(f"{word}{end}" for word in _WORDS for end in ("", "_reason"))
_RUN_ID = re.compile(r"/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/")


def status(api: Api, experiment: str, *, most: int) -> list[str]:
    """A line for each of an experiment's newest runs: id, state and since when, name, verdict or open steps."""
    found = experiments.find(api, experiment)
    newest = _newest(api, found) if found else iter(())
    return [line(api, run) for run in itertools.islice(newest, most)]


def line(api: Api, run: Mapping[str, Any]) -> str:
    """How a run stands: its id, state and since when, name; its verdict once it succeeded, the steps at work before."""
    state = diagnosis.state(run)
    words = [str(run["run_id"]), f"{state} since {_since(run)}", str(run.get("display_name") or "")]
    if state == "SUCCEEDED":
        words.append(": ".join(_said(verdict(api, run))))
    elif state not in diagnosis.ENDED:
        at = diagnosis.parts(runs.with_pipeline(api, runs.get(api, str(run["run_id"]))), "RUNNING", "PENDING")
        words.append(f"at {', '.join(str(part) for part in at)}" if at else "")
    return "  ".join(word for word in words if word)


def verdict(api: Api, run: Mapping[str, Any]) -> dict[str, str]:
    """`gate`, `gate_reason` and `auc` of a training, `claim` and `claim_reason` of an experiment, as far as they can be known.

    The API has no values of parameters. The launcher prints what a step hands back at the end of its pod's log; where that step
    came from the cache, or its pod's log is gone, nothing is known here. The states of tasks do not count: a backend may leave
    the root and the last step RUNNING for ever when the run has succeeded (KFP 2.17).
    """
    whole = runs.with_pipeline(api, run)
    sources = _sources(whole)
    task = next((sources[word][0] for word in _WORDS if word in sources), "")
    for part in diagnosis.parts(whole) if task else []:
        if part.task == task and part.kind == "step":
            output = handed_back(runs.log_of_pod(api, str(run["run_id"]), part.pod))
            return _told(output, {name: key for name, (source, key) in sources.items() if source == task})
    return {}


def of_location(location: str) -> str:
    """The id of the run that wrote an artifact, as its location says; empty where it is no run's."""
    found = _RUN_ID.search(location)
    return found[1] if found else ""


def outcome(api: Api, run: Mapping[str, Any], failed: JobFailed | None) -> dict[str, Any]:
    """What there is to tell others of a run: its id, name, state, times, verdict or error."""
    told = verdict(api, run) if failed is None else {}
    times = {"created_at": run.get("created_at", ""), "finished_at": run.get("finished_at", "")}
    known = {"run_id": run["run_id"], "name": run.get("display_name", ""), "state": diagnosis.state(run)}
    known |= {**times, **told} | ({"error": str(failed)} if failed else {})
    result = str(failed) if failed else next(iter(_said(told)), "")
    return {"text": f"{known['name']}: {known['state']}" + (f", {result}" if result else ""), **known}


def handed_back(log_text: str) -> dict[str, Any]:
    """What a step handed back (an executor output), from the log of its pod; empty where it is not there."""
    start = log_text.rfind(_HANDED_BACK)
    if start < 0:
        return {}
    try:
        found, _ = json.JSONDecoder().raw_decode(log_text, start + len(_HANDED_BACK))
    except ValueError:
        return {}
    return dict(found)


def _newest(api: Api, experiment: str) -> Iterator[dict[str, Any]]:
    listed = api.listed("runs", key="runs", experiment_id=experiment, sort_by="created_at desc", page_size="20")
    return (run for run in listed if run.get("storage_state") != "ARCHIVED")


def _sources(run: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The verdict's outputs of a pipeline -> the task that hands each back, and its name there."""
    given = run.get("pipeline_spec") or {}
    dag = given.get("pipeline_spec", given).get("root", {}).get("dag", {})
    found = {}
    for name, one in dag.get("outputs", {}).get("parameters", {}).items():
        source = one.get("valueFromParameter", {})
        if name in _VERDICT and "producerSubtask" in source:
            found[name] = (str(source["producerSubtask"]), str(source["outputParameterKey"]))
    return found


def _told(output: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, str]:
    given = output.get("parameterValues") or {}
    told = {name: str(given[key]) for name, key in keys.items() if given.get(key)}
    for listed in (output.get("artifacts") or {}).values():
        for artifact in listed.get("artifacts", []):
            value = (artifact.get("metadata") or {}).get("auc")
            told |= {"auc": f"{value:.4f}"} if isinstance(value, float) else {}
    return told


def _since(run: Mapping[str, Any]) -> str:
    """When the run came into its state, in UTC."""
    history = run.get("state_history") or []
    times = [entry.get("update_time") for entry in history if entry.get("state") == run.get("state")]
    when = run.get("finished_at") if diagnosis.state(run) in diagnosis.ENDED else (times or [None])[-1]
    text = str(when or run.get("created_at") or "")
    try:
        return f"{dt.datetime.fromisoformat(text).astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return text or "?"


def ended(api: Api, run: Mapping[str, Any]) -> str:
    """How a run ended that did not fail: its state, and its verdict where it has one."""
    return ": ".join([diagnosis.state(run), *_said(verdict(api, run))])


def _said(told: Mapping[str, str]) -> list[str]:
    """The verdict in a word and why, as far as they are known."""
    return [told[name] for name in _VERDICT if told.get(name)]


def of_model(api: Api, location: str) -> str:
    """A model's location in words: the run that made it, its verdict and AUC where the backend still knows them."""
    run_id = of_location(location)
    if not run_id:
        return location
    try:
        told = verdict(api, runs.get(api, run_id))
    except LaunchError:  # a run of another backend, or one that was deleted
        told = {}
    words = [f"run {run_id}", f"AUC {told['auc']}" if "auc" in told else "", f"gate {told['gate']}" if "gate" in told else ""]
    return ", ".join(word for word in words if word)


def of_champion(root: str) -> str:
    """The model that a pointer names at each run, in words; with the one that it names now where it can be read from here."""
    from tritower.champion import kept

    named = f"the champion of {root}"
    try:
        champion = kept.read(root).champion
    except (TritowerError, ModuleNotFoundError):  # a machine without the store's keys, or without what reads stores
        return named
    if not champion:
        return named
    return f"{named}, now run {champion.run or '?'}" + (f", AUC {champion.auc:.4f}" if champion.auc is not None else "")
