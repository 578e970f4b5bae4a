"""A Katib Experiment (kubeflow.org/v1beta1) whose trials are PyTorchJobs."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tritower.cluster import pods, pytorchjob
from tritower.cluster.config import ClusterConfig
from tritower.config import check
from tritower.jobs import Job

GROUP, VERSION, PLURAL, KIND = "kubeflow.org", "v1beta1", "experiments", "Experiment"
METRICS = "/var/log/katib/metrics.log"
"""The collector's folder; it follows the file that a trial appends `name=value` lines to."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched, by the words of Katib; a local search has the same in its own config."""

    parameters: tuple[Mapping[str, Any], ...]
    """`spec.parameters`: name, parameterType, feasibleSpace with every value as text."""

    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Knobs that all trials share."""

    metric: str = "auc"
    """What a trial reports: letters, digits and underscores. Katib drops names with `@`, `.` or `/`."""

    goal: str = "maximize"
    """maximize or minimize."""

    trials: int = 20
    """Trials in all, 1 or more."""

    parallel: int = 1
    """Trials at the same time, 1 or more."""

    max_failed: int = 3
    """Failed trials after which the search has failed, 0 or more."""

    algorithm: str = "tpe"
    """tpe (as the local search), random, bayesianoptimization, cmaes, ..."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """The algorithm's settings by name."""

    early_stopping: Mapping[str, str] = field(default_factory=dict)
    """Settings of the median stopping rule, min_trials_required and start_step; empty = no early stopping."""

    def __post_init__(self) -> None:
        check(bool(self.parameters), "parameters", self.parameters, "with at least one parameter")
        check(bool(re.fullmatch(r"\w+", self.metric)), "metric", self.metric, "of letters, digits and underscores")
        check(self.goal in ("maximize", "minimize"), "goal", self.goal, "that is maximize or minimize")
        check(min(self.trials, self.parallel) >= 1, "trials", (self.trials, self.parallel), "of at least 1")


def manifest(job: Job, search: Search, config: ClusterConfig, *, name: str, run: str = "") -> dict[str, Any]:
    """The custom resource.

    Without `maxFailedTrialCount` an Experiment whose trials have all failed ends as Succeeded; with n the n-th failure ends it.

    Args:
        job: the trial, without --config and --metrics-file. What it writes is the trial's own and stays in its pod.
        search: the space and the budget.
        config: where and how a trial runs.
        name: of at most 40 characters.
        run: the pipeline's run, for a label.
    """
    assert len(name) <= 40, name
    spec = {
        "objective": {
            "type": search.goal,
            "objectiveMetricName": search.metric,
            "metricStrategies": [{"name": search.metric, "value": search.goal[:3]}],
        },
        "algorithm": {"algorithmName": search.algorithm, "algorithmSettings": _settings(search.settings)},
        "maxTrialCount": search.trials,
        "parallelTrialCount": search.parallel,
        "maxFailedTrialCount": search.max_failed + 1,
        "resumePolicy": "Never",
        "parameters": [dict(one) for one in search.parameters],
        "metricsCollectorSpec": {
            "collector": {"kind": "File"},
            "source": {"fileSystemPath": {"kind": "File", "format": "TEXT", "path": METRICS}},
        },
        "trialTemplate": _trial(job, search, config, name),
    }
    if search.early_stopping:
        spec["earlyStopping"] = {"algorithmName": "medianstop", "algorithmSettings": _settings(search.early_stopping)}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": pods.metadata(name, spec, job, config, run=run),
        "spec": spec,
    }


def _trial(job: Job, search: Search, config: ClusterConfig, name: str) -> dict[str, Any]:
    """One attempt each: the collector follows one process, so a second attempt is a new trial."""
    names = [str(one["name"]) for one in search.parameters]
    # A value arrives as text between the quotes of JSON; the trial converts it to the knob's type.
    knobs = dict(search.fixed) | {one: f"${{trialParameters.{_camel(one)}}}" for one in names}
    arguments = (*job.arguments, f"--metrics-file={METRICS}", f"--config={json.dumps(knobs)}")
    trial = pytorchjob.manifest(
        replace(job, arguments=arguments), replace(config, restarts=0, queue=""), name=name, agent=("--trial",), restart=False
    )["spec"]
    # A job that goes too early is made again.
    del trial["runPolicy"]["ttlSecondsAfterFinished"]
    container = trial["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    # The collector waits for its file in a loop, and misses a process that ends within its first seconds. Katib makes one shell
    # line of the master's command and adds to it: so it is one from the start, without `exec`.
    words = " ".join(shlex.quote(word) for word in container["command"])
    container |= {"command": ["sh", "-c"], "args": [f"touch {METRICS} && {words}; code=$?; sleep 3; test $code = 0"]}
    return {
        "retain": True,  # without it a failed trial's log goes with its pod
        "primaryContainerName": pytorchjob.CONTAINER,
        "primaryPodLabels": {"training.kubeflow.org/job-role": "master"},
        "successCondition": 'status.conditions.#(type=="Succeeded")#|#(status=="True")#',
        "failureCondition": 'status.conditions.#(type=="Failed")#|#(status=="True")#',
        "trialParameters": [{"name": _camel(one), "reference": one} for one in names],
        "trialSpec": {"apiVersion": f"{pytorchjob.GROUP}/{pytorchjob.VERSION}", "kind": pytorchjob.KIND, "spec": trial},
    }


def _settings(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
