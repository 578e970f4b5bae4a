"""A Katib Experiment (kubeflow.org/v1beta1) whose trials are PyTorchJobs."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tritower.cluster import pods, pytorchjob
from tritower.cluster.config import ClusterConfig
from tritower.jobs import Job
from tritower.searches import Search

GROUP, VERSION, PLURAL, KIND = "kubeflow.org", "v1beta1", "experiments", "Experiment"
TRIALS = "trials"
METRICS = "/var/log/katib/metrics.log"
"""The collector's folder; it follows the file that a trial appends `name=value` lines to."""
INJECTION = "katib.kubeflow.org/metrics-collector-injection"
"""Label of a namespace in which Katib adds its collector to pods; its value is `enabled`."""
TRIAL_NAME = "KATIB_TRIAL_NAME"
"""Variable that Katib adds to the pods of a trial."""
FIGURES = "trials"
"""Folder in a search's home with the figures of each trial, under the trial's name."""


def manifest(
    job: Job, search: Search, config: ClusterConfig, *, name: str, run: str = "", agent: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The custom resource.

    Without `maxFailedTrialCount` an Experiment whose trials have all failed ends as Succeeded; with n the n-th failure ends it.
    Trials of several pods are not stopped early: the collector stops the master alone, and the workers then fail the trial.

    Args:
        job: the trial, without --config, --metrics-file and what it throws away.
        search: the space and the budget.
        config: where and how a trial runs.
        name: of at most 40 characters.
        run: the pipeline's run, for a label.
        agent: options of the agent of each trial.
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
        "parallelTrialCount": min(search.parallel, search.trials),
        "maxFailedTrialCount": min(search.max_failed + 1, search.trials),
        "resumePolicy": "Never",
        "parameters": [dict(one) for one in search.parameters],
        "metricsCollectorSpec": {
            "collector": {"kind": "File"},
            "source": {"fileSystemPath": {"kind": "File", "format": "TEXT", "path": METRICS}},
        },
        "trialTemplate": _trial(job, search, config, name, agent),
    }
    if search.early_stopping and (config.nodes or job.nodes) == 1:
        spec["earlyStopping"] = {"algorithmName": "medianstop", "algorithmSettings": _settings(search.early_stopping)}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": pods.metadata(name, spec, job, config, run=run),
        "spec": spec,
    }


def _trial(job: Job, search: Search, config: ClusterConfig, name: str, agent: tuple[str, ...]) -> dict[str, Any]:
    """One attempt each: the collector follows one process, so a second attempt is a new trial."""
    names = [str(one["name"]) for one in search.parameters]
    # A value arrives as text between the quotes of JSON; the trial converts it to the knob's type.
    knobs = dict(search.fixed) | {one: f"${{trialParameters.{_camel(one)}}}" for one in names}
    arguments = (*job.arguments, f"--metrics-file={METRICS}", f"--config={json.dumps(knobs)}")
    own = (f"--trial={METRICS}", *(f"--throw-away={option}" for option in search.thrown_away))
    limit = f"--limit-s={search.trial_timeout_s:g}"  # by the trial's own clock: activeDeadlineSeconds is no timer
    trial = pytorchjob.manifest(
        replace(job, arguments=arguments),
        replace(config, restarts=0, queue=""),
        name=name,
        agent=(*agent, *own, limit),
        restart=False,
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
