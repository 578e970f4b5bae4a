"""What a job, its pods and its events say, whatever its kind: pure functions of the API server's objects.

A condition is no history: a PyTorchJob may never say Running, or go on saying it while a worker waits for its image, and a
TrainJob says nothing until its end; a message names neither pod nor exit code; and a status stays empty for ever where a pod
cannot be made. So the pods are what counts, and the events of the job where pods are missing.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tritower import processes
from tritower.cluster.config import ClusterConfig
from tritower.errors import JobFailed, TritowerError

Object = Mapping[str, Any]
_FINAL = ("ConfigError", "DataError", "SchemaError", "QualityError", "ArtifactError", "CredentialsError", "NonFiniteLossError")
"""Errors of ours that a second attempt would meet again."""
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull")
_WRONG_IMAGE = ("InvalidImageName",)
_SETTINGS = ("CreateContainerConfigError", "CreateContainerError")
_MAIN = "kubectl.kubernetes.io/default-container"


@dataclass(frozen=True)
class Trouble:
    """Something is wrong with a job, and may pass."""

    key: tuple[str, str]
    """What kind of trouble, and whose."""

    error: TritowerError
    """What the job then ends with."""

    limit_s: float
    """Seconds after which it counts as the end."""

    told: bool = True
    """Whether it is worth a warning as soon as it begins."""


@dataclass
class Seen:
    """What one look at a job showed."""

    job: dict[str, Any] = field(default_factory=dict)
    """The custom resource."""

    pods: list[dict[str, Any]] = field(default_factory=list)
    """Its pods."""

    events: list[dict[str, Any]] = field(default_factory=list)
    """What tells of it, the latest first; looked at while pods are missing."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    """Further resources of its kind, such as the trials of an Experiment."""


def main(pod: Object) -> str:
    """The name of a pod's main container, by kubectl's own rule: what the annotation says, else the first."""
    said = pod["metadata"].get("annotations", {}).get(_MAIN)
    return str(said or pod["spec"]["containers"][0]["name"])


def phase(pod: Object) -> str:
    """A pod's phase; one that nobody has looked at yet is pending."""
    return str(pod.get("status", {}).get("phase", "Pending"))


def summary(pods: Sequence[Object], wanted: int) -> str:
    """The pods in words, such as `1 of 2 running`."""
    wanted = max(wanted, len(pods))
    phases = [phase(pod) for pod in pods]
    counts = {phase: phases.count(phase) for phase in sorted(set(phases))}
    return ", ".join(f"{count} of {wanted} {phase.lower()}" for phase, count in counts.items()) or f"0 of {wanted} made"


def running(pods: Sequence[Object], wanted: int) -> bool:
    """Whether every pod's container has been started once."""
    return len(pods) >= wanted and all(_started(pod) for pod in pods)


def troubles(pods: Sequence[Object], config: ClusterConfig, largest: Mapping[str, str]) -> Iterator[Trouble]:
    """What is wrong with the pods of a job that has not ended.

    Args:
        pods: of the job.
        config: for the limits.
        largest: resource -> the node that has most of it, in words.
    """
    for pod in pods:
        name, status = str(pod["metadata"]["name"]), pod.get("status", {})
        where, waiting = f"pod {name}", _waiting(pod)
        reason, said = str(waiting.get("reason", "")), str(waiting.get("message", "")) or str(waiting.get("reason", ""))
        if reason in (*_IMAGE, *_WRONG_IMAGE):
            limit_s = 0.0 if reason in _WRONG_IMAGE else config.patience_s
            remedy = "Check the image's name, whether it is there, and image_pull_secrets."
            yield trouble(("image", name), f"the image cannot be pulled: {said}", where, remedy, limit_s)
        elif reason in _SETTINGS:
            remedy = "Make what it names, such as the Secret, in the job's namespace."
            yield trouble(("settings", name), f"the container cannot be made: {said}", where, remedy, config.patience_s)
        unplaced = condition(pod, "PodScheduled", "False")
        if unplaced and unplaced.get("reason") == "Unschedulable":
            yield _unplaced(str(unplaced.get("message", "")), name, config, largest)
        yield from _deaths(pod, config)
        if str(status.get("reason", "")) == "Evicted":
            problem, remedy = f"the pod was evicted: {status.get('message', '')}", "Ask for what it uses: memory, disk."
            yield trouble(("evicted", name), problem, where, remedy, config.patience_s)


def _unplaced(message: str, name: str, config: ClusterConfig, largest: Mapping[str, str]) -> Trouble:
    resource = re.search(r"Insufficient ([\w./-]+)", message)
    most = largest.get(resource[1].rstrip("."), "") if resource else ""
    problem = f"no node takes the pod: {message.split('. no new claims')[0].split('. preemption')[0]}"
    remedy = "Ask for no more than a node has" + (f" ({most})" if most else "") + ", or add nodes."
    return trouble(("unplaced", name), problem, f"pod {name}", remedy, config.start_timeout_s)


def trouble(key: tuple[str, str], problem: str, where: str, remedy: str, limit_s: float) -> Trouble:
    """A trouble that ends in `JobFailed`."""
    return Trouble(key, JobFailed(problem, where=where, remedy=remedy), limit_s)


def _deaths(pod: Object, config: ClusterConfig) -> Iterator[Trouble]:
    name = str(pod["metadata"]["name"])
    for state in terminated(pod):
        word = reported(state)
        if state.get("reason") == "OOMKilled":
            yield trouble(("memory", name), out_of_memory(pod), f"pod {name}", "Raise memory.", 0.0)
        elif state.get("reason") in ("StartError", "ContainerCannotRun"):
            problem = f"the container cannot be started: {state.get('message', '')}"
            yield trouble(("start", name), problem, f"pod {name}", "Is it one of tritower's images?", 0.0)
        elif word and word["kind"] in _FINAL and not word["foreign"]:
            yield Trouble(("final", name), processes.error_of(word), 0.0)
    count = restarts(pod)
    if count > config.restarts:
        problem = f"it failed {count} time(s): {death(pod)}"
        yield trouble(("restarts", name), problem, f"pod {name}", "Look at its log, or raise restarts.", 0.0)


def unmade(events: Sequence[Object], reasons: Sequence[str], config: ClusterConfig) -> Iterator[Trouble]:
    """Why a pod is missing, by the last of the events with one of the reasons."""
    for event in events:
        said = str(event.get("message", ""))
        if event.get("reason") in reasons and "object is being deleted" not in said:
            remedy = "Raise the quota, or ask for less." if "exceeded quota" in said else ""
            remedy = remedy or (
                "Make the account." if "serviceaccount" in said else "Correct the settings of the cluster that it names."
            )
            yield trouble(
                ("refused", ""),
                f"a pod cannot be made: {said.removeprefix('Error creating: ')}",
                "the job",
                remedy,
                config.patience_s,
            )
            return


def failure(job: Object, pods: Sequence[Object]) -> TritowerError:
    """Why a job failed: what its processes reported, else how its pods ended, else what its condition says."""
    words = [
        {**word, "where": word["where"] or f"pod {pod['metadata']['name']}"}
        for pod in pods
        for state in terminated(pod)[:1]
        if (word := reported(state))
    ]
    first = processes.first(words)
    if first:
        return processes.error_of(first)
    said = str(condition(job, "Failed").get("message", "")) or "the job failed"
    for pod in pods:
        if any(state.get("exitCode") for state in terminated(pod)) or phase(pod) == "Failed":
            return JobFailed(
                f"{said.rstrip('.')}: {death(pod)}", where=f"pod {pod['metadata']['name']}", remedy="Look at its log."
            )
    return JobFailed(said, where=f"job {job['metadata']['name']}", remedy="Look at the pods' logs.")


def death(pod: Object) -> str:
    """How a pod's container ended, in words."""
    status = pod.get("status", {})
    if status.get("reason"):
        return f"{status['reason']}: {status.get('message', '')}".rstrip(": ")
    for state in terminated(pod):
        if state.get("reason") == "OOMKilled":
            return out_of_memory(pod)
        if state.get("exitCode"):
            word, said = reported(state), str(state.get("message", ""))
            why = str(processes.error_of(word)) if word else said.strip()[-300:]
            return f"exit code {state['exitCode']}" + (f", {why}" if why else "")
    return "the pod was deleted" if pod["metadata"].get("deletionTimestamp") else "no exit code"


def out_of_memory(pod: Object) -> str:
    """The words for a container that the kernel killed, with its limit."""
    limits = [one.get("resources", {}).get("limits", {}) for one in pod["spec"]["containers"] if one["name"] == main(pod)]
    return f"memory ran out (OOMKilled, limit {limits[0].get('memory', 'of the node')})"


def terminated(pod: Object) -> list[Mapping[str, Any]]:
    """How the container ended, the last time first."""
    status = _container(pod)
    states = [status.get(name, {}).get("terminated") for name in ("state", "lastState")]
    return [state for state in states if state]


def reported(state: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the agent left as termination message."""
    try:
        word = json.loads(state.get("message", ""))
        return (
            word
            if isinstance(word, dict) and {"kind", "problem", "where", "remedy", "foreign", "signal", "time"} <= word.keys()
            else None
        )
    except ValueError:
        return None


def restarts(pod: Object) -> int:
    """How often the container was started again."""
    return int(_container(pod).get("restartCount", 0))


def _started(pod: Object) -> bool:
    return bool(terminated(pod)) or "running" in _container(pod).get("state", {})


def _waiting(pod: Object) -> Mapping[str, Any]:
    """Why a container waits, the operator's init container included."""
    status = pod.get("status", {})
    all_of_them = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    bad = (*_IMAGE, *_WRONG_IMAGE, *_SETTINGS)
    found = (one.get("state", {}).get("waiting", {}) for one in all_of_them)
    return next((one for one in found if one.get("reason") in bad), {})


def _container(pod: Object) -> Mapping[str, Any]:
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return next((one for one in statuses if one["name"] == main(pod)), {})


def condition(thing: Object, kind: str, status: str = "True") -> Mapping[str, Any]:
    """The condition of this type and status; an empty one where there is none."""
    conditions = thing.get("status", {}).get("conditions", []) or []
    return next((one for one in conditions if one["type"] == kind and one["status"] == status), {})
