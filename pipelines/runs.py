"""Runs on a backend: start one, follow it, say why it failed, end it."""

import re
import sys
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from tritower.errors import JobFailed, LaunchError

from pipelines import backend_inputs, diagnosis, executor_logs, experiments, versions
from pipelines.api import Api, Refused, Unanswered

PATIENCE_S = 600.0
"""How long a backend may be away while a run is followed: an upgrade or a drained node takes minutes."""
EACH_RUN = "{{workflow.uid}}"
"""A text in a parameter in whose place each run gets its own id (KFP's API and its scheduler replace it, as Argo would)."""
_LATE_S = 10.0
_LOG_BYTES = 1 << 20
_POD = re.compile(r"(.+)-system-(?:container-impl|container-driver|dag-driver|importer)-(\d+)$")


def submit(
    api: Api,
    version: versions.Version,
    arguments: Mapping[str, Any],
    *,
    experiment: str,
    name: str,
    about: str = "",
    service_account: str = "",
) -> str:
    """Start a run of a published version; returns its id.

    Args:
        arguments: pipeline parameters.
        experiment: its name; made if there is none.
        name: of the run, cut at 255 characters as `about` is.
        about: the run's description.
        service_account: for the run's pods; the backend's default if empty.

    Raises:
        ConfigError: the version has no such parameter, or an argument does not have its type.
    """
    backend_inputs.check(version.spec, arguments, where=f"{version.pipeline} {version.name}")
    body = {
        "display_name": experiments.cut(name),
        "description": experiments.cut(about),
        "experiment_id": experiments.made(api, experiment),
        "pipeline_version_reference": version.reference,
        "runtime_config": {"parameters": dict(arguments)},
        "service_account": service_account,
    }
    return str(api.post("runs", body={key: value for key, value in body.items() if value})["run_id"])


def wait(
    api: Api,
    run_id: str,
    *,
    poll_s: float = 10.0,
    patience_s: float = PATIENCE_S,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> dict[str, Any]:
    """Follow a run until it has ended; returns it as the API gives it.

    The client's own waiting knows no CANCELED, takes FAILED for an answer and ends with the first request that fails. A failed
    run's steps have their states some seconds after the run has its own (KFP 2.17): they are waited for, not for ever.

    Args:
        poll_s: seconds between two looks.
        patience_s: seconds for which the backend may not answer.
        say: gets a line when the backend stops answering, and one when it is back.

    Raises:
        LaunchError: the backend refuses, or has not answered for too long.
    """
    away_since = ended = None
    while True:
        try:
            run = get(api, run_id)
        except Unanswered as error:
            now = time.monotonic()
            if away_since is None:
                away_since = now
                say(f"{error.problem}; asking again for up to {_minutes(patience_s)}")
            if now - away_since >= patience_s:
                raise LaunchError(
                    f"{error.problem}; no answer for {_minutes(patience_s)}",
                    where=api.where,
                    remedy=f"The run goes on by itself: `python -m pipelines diagnose {run_id}` tells what became of it.",
                ) from error
        else:
            if away_since is not None:
                say(f"the backend answers again after {time.monotonic() - away_since:.0f} s")
            away_since = None
            if has_ended(run):
                ended = ended or time.monotonic()
                is_told = diagnosis.state(run) != "FAILED" or bool(diagnosis.parts(run, "FAILED"))
                if is_told or time.monotonic() - ended >= _LATE_S:
                    return run
        time.sleep(min(poll_s, 1.0) if ended else poll_s)


def has_ended(run: Mapping[str, Any]) -> bool:
    """Whether nothing more will come of a run."""
    return diagnosis.state(run) in diagnosis.ENDED


def check(api: Api, run: Mapping[str, Any]) -> str:
    """The state of a run.

    Raises:
        JobFailed: it ended without success; names the step, its error and the command that shows its log.
    """
    failed = failure(api, run)
    if failed:
        raise failed
    return diagnosis.state(run)


def failure(api: Api, run: Mapping[str, Any]) -> JobFailed | None:
    """Why a run ended without success; None while it runs and when it succeeded."""
    if diagnosis.state(run) not in ("FAILED", "CANCELED", "TERMINATED"):
        return None
    whole = with_pipeline(api, run)
    return diagnosis.failure(whole, namespace=api.pods_in, log_of=lambda part: log(api, whole, part))


def diagnose(api: Api, run_id: str) -> list[str]:
    """Where a run is, in lines.

    Raises:
        JobFailed: the run ended without success, as in `check`.
    """
    run = get(api, run_id)
    check(api, run)
    return diagnosis.progress(with_pipeline(api, run), namespace=api.pods_in)


def terminate(api: Api, run_id: str, *, poll_s: float = 2.0, patience_s: float = PATIENCE_S) -> str:
    """End a run and wait until it has ended; what came of it, in a line.

    The backend ends the run's workflow: the running step gets SIGTERM and has under a second. Finished steps stay in the cache.

    Raises:
        LaunchError: the backend cannot end it, or it has not ended in time.
    """
    run = get(api, run_id)
    if has_ended(run):
        return f"run {run_id} had ended before: {diagnosis.state(run)}"
    if run.get("state") != "CANCELING":
        try:
            api.post("runs", run_id, verb="terminate")
        except Unanswered as error:
            raise _stuck(f"the backend could not end the run: {error.problem}", run_id) from error
        except Refused:
            run = get(api, run_id)  # it may have ended in between, or somebody else may be ending it
            if run.get("state") != "CANCELING" and not has_ended(run):
                raise
    end = time.monotonic() + patience_s
    while not has_ended(run):
        if time.monotonic() > end:
            raise _stuck(f"the run is still {run.get('state')} after {_minutes(patience_s)}", run_id)
        time.sleep(poll_s)
        run = get(api, run_id)
    return f"run {run_id} has ended: {diagnosis.state(run)}. Finished steps stay in the cache."


def get(api: Api, run_id: str) -> dict[str, Any]:
    """A run as the API gives it, with its tasks.

    Raises:
        LaunchError: there is no such run, or the backend does not answer or refuses.
    """
    return api.get("runs", run_id)


def log(api: Api, run: Mapping[str, Any], part: diagnosis.Part) -> str:
    """The end of a pod's log, from the API or from what the launcher kept in the store; empty where neither has it."""
    return log_of_pod(api, str(run["run_id"]), part.pod) or executor_logs.read(run, part.task)


def with_pipeline(api: Api, run: Mapping[str, Any]) -> dict[str, Any]:
    """The run with its compiled pipeline: a run of a published version only names it."""
    reference = run.get("pipeline_version_reference")
    if run.get("pipeline_spec") or not reference:
        return dict(run)
    spec = versions.specification(api, reference)
    return {**run, "pipeline_spec": spec} if spec else dict(run)


def log_of_pod(api: Api, run_id: str, pod: str) -> str:
    """The log of a pod's container `main`, as far as the API can still read it: from the pod, or archived under its node."""
    return next((log for name in (pod, _node(pod)) if name and (log := _log(api, run_id, name))), "")


def _node(pod: str) -> str:
    """The id of a pod's node in its Workflow: the pod's name without that of the template."""
    found = _POD.match(pod)
    return f"{found[1]}-{found[2]}" if found else ""


def _log(api: Api, run_id: str, pod: str) -> str:
    path = f"/apis/v1alpha1/runs/{urllib.parse.quote(run_id, safe='')}/nodes/{urllib.parse.quote(pod, safe='')}/log"
    end = b""
    try:
        with api.opened("GET", path) as response:
            for chunk in response.stream(1 << 16):
                end = (end + chunk)[-_LOG_BYTES:]
    except LaunchError:
        return ""
    text = end.decode("utf-8", errors="replace")
    # KFP 2.17 says 200 before it looks for the log, then writes its error; a UI in between answers with a page.
    return "" if text.lstrip().startswith(('{"error_message"', "<")) else text


def _stuck(problem: str, run_id: str) -> LaunchError:
    """The error about a run that does not end."""
    remedy = (
        "If its workflow is gone (`kubectl get workflows`; deleting a schedule takes its run along), nothing of it runs any"
        f" more and the backend will never know: `kfp run archive {run_id}` puts it away. Else try again."
    )
    return LaunchError(problem, where=f"run {run_id}", remedy=remedy)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:g} s"
