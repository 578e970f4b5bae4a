"""A Katib trial: its values, the run made of the template, the collector put into its pods, what it reports."""

import copy
import json
import math
import random
import re
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import kinds
from tests.support.apiserver.containers import Container

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]
COLLECTOR = "metrics-logger-and-collector"
_METRIC = re.compile(r"([\w|-]+)\s*=\s*([+-]?\d*(?:\.\d+)?(?:[Ee][+-]?\d+)?)")
UNAVAILABLE = "unavailable"
_SEEN_S = 3.0
"""A main container that ends before is not found by the collector."""


def values(experiment: Object, number: int) -> list[Object]:
    """The assignments of an experiment's trial: drawn at random whatever the algorithm, the same for a name and a number."""
    draw = random.Random(f"{experiment['metadata']['name']}/{number}")
    return [{"name": one["name"], "value": _value(one, draw)} for one in experiment["spec"]["parameters"]]


def _value(parameter: Object, draw: random.Random) -> str:
    space, type_ = parameter["feasibleSpace"], parameter["parameterType"]
    if type_ in ("categorical", "discrete"):
        return str(draw.choice(space["list"]))
    low, high = float(space["min"]), float(space["max"])
    if space.get("distribution") in ("logUniform", "logNormal"):
        value = math.exp(draw.uniform(math.log(low), math.log(high)))
    else:
        value = draw.uniform(low, high)
    if "step" in space:
        value = low + round((value - low) / float(space["step"])) * float(space["step"])
    return str(round(value)) if type_ == "int" else repr(min(max(value, low), high))


def run_of(experiment: Object, name: str, assignments: list[Object]) -> Object:
    """The template with the trial's values in the places of their names."""
    template = experiment["spec"]["trialTemplate"]
    by_name = {one["name"]: one["value"] for one in assignments}
    text = json.dumps(template["trialSpec"])
    for one in template.get("trialParameters", []):
        value = name if one["reference"] == "${trialSpec.Name}" else by_name.get(one["reference"], "")
        text = text.replace(f"${{trialParameters.{one['name']}}}", value)
    run = json.loads(text)
    return dict(run) | {
        "metadata": (run.get("metadata") or {}) | {"name": name, "namespace": experiment["metadata"]["namespace"]}
    }


def injected(cluster: "Cluster", namespace: str, pod: Object) -> Object:
    """A pod as Katib's webhook changes it: of a trial's run it gets labels, the primary one a volume and the collector too."""
    trial = _trial_of(cluster, namespace, pod)
    if trial is None:
        return pod
    pod = copy.deepcopy(pod)
    meta, spec = pod["metadata"], trial["spec"]
    labels = {"katib.kubeflow.org/trial": trial["metadata"]["name"]}
    meta["labels"] = (meta.get("labels") or {}) | trial["metadata"]["labels"] | labels
    path = {"fieldPath": "metadata.labels['katib.kubeflow.org/trial']"}
    for container in pod["spec"]["containers"]:
        if container["name"] == spec["primaryContainerName"]:
            container.setdefault("env", []).append({"name": "KATIB_TRIAL_NAME", "valueFrom": {"fieldRef": path}})
    if any(meta["labels"].get(key) != value for key, value in spec.get("primaryPodLabels", {}).items()):
        return pod
    folder = _path(trial).rpartition("/")[0] or "/var/log/katib"
    mount = {"name": "metrics-volume", "mountPath": folder}
    pod["spec"].setdefault("volumes", []).append({"name": "metrics-volume", "emptyDir": {}})
    for container in pod["spec"]["containers"]:
        if container["name"] == spec["primaryContainerName"]:
            container.setdefault("volumeMounts", []).append(mount)
    collector = {"name": COLLECTOR, "image": "ghcr.io/kubeflow/katib/file-metrics-collector:v0.19.0", "volumeMounts": [mount]}
    pod["spec"]["containers"].append(collector | {"args": ["-t", trial["metadata"]["name"], "-path", _path(trial)]})
    return pod


class Collector(Container):
    """The sidecar that waits for the main container: it ends with 0 after it, with 255 where that failed or ended at once."""

    def __init__(self, *arguments: Any, main: Container, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._main = main

    def step(self, policy: str) -> None:
        if "terminated" in self.state:
            return
        self.state = self._main.state if "running" in self._main.state else self.state
        if "terminated" in self._main.state and self._main.attempts:
            attempt = self._main.attempts[-1]
            seen = (attempt.ended or 0.0) - attempt.started > _SEEN_S / self._cluster.speed
            code = 0 if seen and attempt.exit_code == 0 else 255
            ended = self._main.state["terminated"]
            self.state = {"terminated": ended | {"exitCode": code, "reason": "Error" if code else "Completed"}}


def reported(cluster: "Cluster", trial: Object) -> list[Object]:
    """The observation of a trial's metrics; of one that was never reported everything is unavailable.

    A value that is no number (nan, inf) counts for nothing; as the last one it leaves out `latest`.
    """
    objective = trial["spec"]["objective"]
    names = [objective["objectiveMetricName"], *objective.get("additionalMetricNames", [])]
    found: dict[str, list[str]] = {name: [] for name in names}
    for name, value in _lines(cluster, trial):
        if name in found:
            found[name].append(value)
    return [{"name": name} | _summary(told) for name, told in found.items()]


def _summary(told: list[str]) -> Object:
    if not told:
        return {"latest": UNAVAILABLE, "max": UNAVAILABLE, "min": UNAVAILABLE}
    numbers = [value for value in told if value]
    most = (
        {"max": max(numbers, key=float), "min": min(numbers, key=float)}
        if numbers
        else {"max": UNAVAILABLE, "min": UNAVAILABLE}
    )
    return ({"latest": told[-1]} if told[-1] else {}) | most


def _lines(cluster: "Cluster", trial: Object) -> list[tuple[str, str]]:
    """(name, value) in order, from the file that the collector is told of, or from what the container printed."""
    wanted = trial["spec"].get("primaryPodLabels", {})
    for pod in cluster.store.all(kinds.POD, trial["metadata"]["namespace"]):
        labels = pod["metadata"].get("labels") or {}
        is_own = labels.get("katib.kubeflow.org/trial") == trial["metadata"]["name"]
        runner = cluster.kubelet.runner(pod["metadata"]["uid"])
        if not is_own or runner is None or any(labels.get(key) != value for key, value in wanted.items()):
            continue
        container = runner.container(trial["spec"]["primaryContainerName"])
        if not container.attempts:
            return []
        text = b"".join(line for _, line in container.attempts[-1].lines).decode(errors="replace")
        if path := _path(trial):
            file = runner.home / "volumes" / "metrics-volume" / path.rpartition("/")[2]
            text = file.read_text(encoding="utf-8") if file.exists() else ""
        return _parsed(text)
    return []


def _parsed(text: str) -> list[tuple[str, str]]:
    found = []
    for line in text.splitlines():
        if line.startswith("{"):
            found += [(key, _METRIC.sub(r"\2", f"x={value}").strip()) for key, value in json.loads(line).items()]
        else:
            found += _METRIC.findall(line)
    return found


def _path(trial: Object) -> str:
    return str((trial["spec"].get("metricsCollector", {}).get("source") or {}).get("fileSystemPath", {}).get("path", ""))


def _trial_of(cluster: "Cluster", namespace: str, pod: Object) -> Object | None:
    for reference in pod["metadata"].get("ownerReferences") or []:
        job = cluster.store.get(kinds.PYTORCHJOB, namespace, reference["name"]) if reference["kind"] == "PyTorchJob" else None
        for owner in (job or {"metadata": {}})["metadata"].get("ownerReferences") or []:
            if owner["kind"] == "Trial":
                return cluster.store.get(kinds.TRIAL, namespace, owner["name"])
    return None
