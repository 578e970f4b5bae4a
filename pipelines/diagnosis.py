"""Why a run on a Kubeflow Pipelines backend failed: which step, which pod, what its log says.

A backend (KFP 2.17) does not tell. `error` is empty in the run and in all of its tasks; a terminated run is FAILED as well. The
tasks are the nodes of an Argo workflow: every executor is called `executor`, and no pod's name stands anywhere. What is there
is enough. A node's id ends in the FNV-1a hash of its full name, such as `workflow(0).root(0).embed(0).executor(0)`; every node
lists its children's ids; a pod's name is made of the workflow's name, the template's and that hash. So full names are tried
from the root downwards.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tritower.errors import JobFailed, TritowerError

from pipelines import graph

ENDED = ("SUCCEEDED", "FAILED", "TERMINATED", "CANCELED", "SKIPPED")
_ROOT, _EXECUTOR, _DRIVER = "root", "executor", "-driver"
_ATTEMPT = re.compile(r"\((\d+)\)$")
_MOST_ATTEMPTS, _MOST_CHARACTERS = 20, 2000
_TRACEBACK = "Traceback (most recent call last):"
_ERROR = re.compile(r"^ERROR (\w+): (.+)$")
_PART = re.compile(r"^  (where|remedy): (.+)$")
_EXCEPTION = re.compile(r"^(?:\w+\.)*(\w+)(?::|$)")
_GLOG = re.compile(r"^[EF]\d{4} [\d:.]+\s+\d+ [\w.-]+:\d+\] ")
_KILLED = "signal: killed"
_OUT_OF_MEMORY = (
    "killed, most likely for want of memory (`kubectl describe pod` says OOMKilled); raise the step's memory limit"
    " or give it less data"
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A pod of a run: of a step's executor, of the driver that prepares it, or of an importer.

    `task` is its name in the compiled pipeline, `step` the one to show. `pod` is empty where it cannot be known.
    """

    task: str
    step: str
    kind: str
    pod: str = ""

    def __str__(self) -> str:
        if self.kind == "step":
            return self.step
        return f"the driver of {self.step}" if self.kind == "driver" else f"the importer {self.step}"


def state(run: Mapping[str, Any]) -> str:
    """A run's state as the API gives it (PENDING, RUNNING, SUCCEEDED, FAILED...), or "TERMINATED" for a FAILED that somebody
    asked for."""
    found = str(run.get("state") or "PENDING")
    history = [entry.get("state") for entry in run.get("state_history") or []]
    return "TERMINATED" if found == "FAILED" and "CANCELING" in history else found


def failure(run: Mapping[str, Any], *, namespace: str, log_of: Callable[[Part], str]) -> JobFailed | None:
    """Why a run ended without success; None while it runs and when it succeeded.

    Args:
        run: the run as the API gives it.
        namespace: of its pods.
        log_of: the end of a pod's log; empty where it is not to be had.
    """
    run_id, found = str(run.get("run_id")), state(run)
    if found not in ("FAILED", "CANCELED", "TERMINATED"):
        return None
    failed = parts(run, "FAILED")
    if found != "FAILED":
        at = f" at {', '.join(str(part) for part in failed)}" if failed else ""
        remedy = "Submit it again: finished steps come from the cache."
        return JobFailed(f"the run was terminated{at}; no step failed by itself", where=f"run {run_id}", remedy=remedy)
    if not failed:
        pods = f"kubectl get pods --namespace {namespace} --selector pipeline/runid={run_id}"
        problem = (run.get("error") or {}).get("message") or "the backend marks no step as failed"
        return JobFailed(f"the run ended FAILED: {problem}", where=f"run {run_id}", remedy=f"Its pods: {pods}")
    words = [f"{part}: {last_word(log_of(part)).rstrip('. ') or 'its log is not to be had here'}" for part in failed]
    logs = "; ".join(_command("logs", part, run_id, namespace) for part in failed)
    return JobFailed(f"the run ended FAILED: {'; '.join(words)}", where=f"run {run_id}", remedy=f"The whole log: {logs}")


def progress(run: Mapping[str, Any], *, namespace: str) -> list[str]:
    """Where a run is, in lines: its state, its open steps, and how many pods wait for a node or an image."""
    run_id = str(run.get("run_id"))
    lines = [f"run {run_id}: {state(run)}"]
    if state(run) in ENDED:
        return lines
    if open_parts := parts(run, "RUNNING", "PENDING"):
        lines.append(f"at {', '.join(str(part) for part in open_parts)}")
    tasks = (run.get("run_details") or {}).get("task_details") or []
    if waiting := sum(task.get("state") == "PENDING" for task in tasks):
        why = f"kubectl describe pods --namespace {namespace} --selector pipeline/runid={run_id}"
        lines.append(f"waiting for a pod to start: {waiting}; what for: {why}")
    return lines


def _command(verb: str, part: Part, run_id: str, namespace: str) -> str:
    """A kubectl command line about a pod, or about all of the run's where its name is not known."""
    which = part.pod or f"--selector pipeline/runid={run_id}"
    return f"kubectl {verb} --namespace {namespace} {which}" + (" --container main" if verb == "logs" else "")


def parts(run: Mapping[str, Any], *states: str) -> list[Part]:
    """The pods of a run that are in one of these states, in the order of their tasks' names.

    Args:
        run: the run as the API's `/apis/v2beta1/runs/{run_id}` gives it.
        states: of tasks, such as FAILED; none for every state.
    """
    tasks = (run.get("run_details") or {}).get("task_details") or []
    ids = {child["pod_name"] for task in tasks for child in task.get("child_tasks") or [] if child.get("pod_name")}
    names = {_plain(task.get("display_name") or "") for task in tasks} - {""}
    workflow = max((name for name in names if ids and all(one.startswith(f"{name}-") for one in ids)), key=len, default="")
    of_states = [task for task in tasks if not states or task.get("state") in states]
    wanted = {_plain(task.get("display_name") or "") for task in of_states} - {workflow, ""}
    steps = _steps(run)
    found = {}
    for path in _leaves(workflow, wanted, {one.rpartition("-")[2] for one in ids}):
        part = _part(path, steps, workflow)
        if part:
            found[part.task, part.kind] = part
    for part in [] if found else _by_name(wanted, tasks, steps):
        found[part.task, part.kind] = part
    return [found[key] for key in sorted(found)]


def last_word(log: str) -> str:
    """What a pod's log says of its failure: the step's own error (`tritower.logs.lines`), the error of a traceback that follows
    or stands alone, else the launcher's or driver's own.

    What follows the first line of an exception's text is left out: it may come from data. So may control characters; a question
    mark stands for each.
    """
    lines = ["".join(one if one.isprintable() else "?" for one in line.rstrip()) for line in log.split("\n") if line.strip()]
    if any(_KILLED in line for line in lines[-20:]):
        return _OUT_OF_MEMORY
    starts = [number for number, line in enumerate(lines) if line == _TRACEBACK or _ERROR.match(line)]
    start = starts[-1] if starts else -1
    # The launcher repeats a step's failure as "exit status 1"; what else it says comes first: the step itself was well.
    own = [line for line in lines[start + 1 :] if _GLOG.match(line) and (start < 0 or "exit status" not in line)]
    if own:
        return _GLOG.sub("", own[-1])[:_MOST_CHARACTERS]
    if start >= 0 and (match := _ERROR.match(lines[start])):
        parts = {one[1]: one[2] for one in map(_PART.match, lines[start + 1 : start + 3]) if one}
        return f"{match[1]}: {TritowerError(match[2], **parts)}"[:_MOST_CHARACTERS]
    for line in lines[start + 1 :] if start >= 0 else []:
        if not line.startswith(" ") and (match := _EXCEPTION.match(line)):
            return line[match.start(1) :][:_MOST_CHARACTERS]
    return lines[-1].strip()[:_MOST_CHARACTERS] if lines else ""


def node_hash(name: str) -> str:
    """The last part of Argo's id of a node: the 32-bit FNV-1a hash of the node's full name."""
    value = 0x811C9DC5
    for byte in name.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return str(value)


def _leaves(workflow: str, names: Iterable[str], hashes: set[str]) -> list[str]:
    """Full names of the nodes that end in one of these names and have no such node below them; the last attempt of each."""
    leaves, names = [], sorted(names)
    open_names = [workflow] if workflow else []
    while open_names:
        name = open_names.pop()
        attempts = [] if _ATTEMPT.search(name) else [f"{name}({number})" for number in range(_MOST_ATTEMPTS)]
        made = [attempt for attempt in attempts if node_hash(attempt) in hashes][-1:]
        below = made or [child for child in (f"{name}.{part}" for part in names) if node_hash(child) in hashes]
        open_names.extend(below)
        if not below and _plain(name) != workflow:
            leaves.append(name)
    return leaves


def _part(path: str, steps: Mapping[str, tuple[str, str]], workflow: str) -> Part | None:
    """The pod behind the full name of a node; None for a node that only holds others."""
    *above, last = [_plain(name) for name in path.split(".")]
    if last == _EXECUTOR:
        task, kind = above[-1], "step"
    elif last.endswith(_DRIVER):
        task, kind = last.removesuffix(_DRIVER), "driver"
    else:
        task, kind = last, steps.get(last, ("", "dag"))[1]
    shown, built_as = steps.get(task, (task, "dag" if task == _ROOT else "step"))
    if kind == "dag" or (kind == "step" and last != _EXECUTOR):
        return Part(task=task, step=shown, kind="step") if kind == "step" else None
    template = {"step": "system-container-impl", "importer": "system-importer"}.get(kind)
    template = template or ("system-dag-driver" if built_as == "dag" else "system-container-driver")
    return Part(task=task, step=shown, kind=kind, pod=f"{workflow}-{template}-{node_hash(path)}")


def _by_name(names: Iterable[str], tasks: Iterable[Mapping[str, Any]], steps: Mapping[str, tuple[str, str]]) -> Iterator[Part]:
    """The parts by their tasks' names alone, for a backend that lists no children; pods as far as it names them."""
    pods = {_plain(task.get("display_name") or ""): task.get("pod_name") or "" for task in tasks}
    unknown = "dag" if steps else "step"
    for name in sorted(set(names) - {_ROOT, _EXECUTOR}):
        task, is_driver = name.removesuffix(_DRIVER), name.endswith(_DRIVER)
        shown, kind = steps.get(task, (task, unknown))
        if is_driver or kind != "dag":
            yield Part(task=task, step=shown, kind="driver" if is_driver else kind, pod=pods[name])


def _steps(run: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Task name -> (name to show; step, importer or dag), from the run's own compiled pipeline."""
    given = run.get("pipeline_spec") or {}
    spec = given.get("pipeline_spec", given)
    return {task.name: (task.shown, task.kind) for task in graph.tasks(spec)}


def _plain(name: str) -> str:
    """A node's name without the number of the attempt."""
    return _ATTEMPT.sub("", name)
