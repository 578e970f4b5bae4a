"""Katib's part (0.19): Experiments become Trials, Trials become PyTorchJobs, their metrics an optimum."""

import copy
import random
import time
from typing import TYPE_CHECKING, Any

from tests.support.apiserver import conditions, kinds, resources, trials
from tests.support.apiserver.pytorchjob import owner_of
from tests.support.apiserver.store import now, record

if TYPE_CHECKING:
    from tests.support.apiserver.cluster import Cluster

Object = dict[str, Any]

_SUGGESTION_S = 13.0
"""Until the pod that suggests is ready."""
_FINALIZER = {kinds.EXPERIMENT: "update-prometheus-metrics", kinds.TRIAL: "clean-metrics-in-db"}
_ENDS = ("Succeeded", "Failed", "MetricsUnavailable")
_LISTS = {"Pending": "pendingTrialList", "Running": "runningTrialList", "Succeeded": "succeededTrialList"}
_LISTS |= {"Failed": "failedTrialList", "MetricsUnavailable": "metricsUnavailableTrialList"}
_INTEGERS = ("n_startup_trials", "n_EI_candidates", "random_state")


class Operator:
    """Looks at all Experiments and Trials in turn."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster, self._store = cluster, cluster.store
        self._ready: dict[str, float] = {}

    def step(self) -> None:
        """Once through everything."""
        if "katib" in self._cluster.down:
            return
        for kind, finalizer in _FINALIZER.items():
            for item in self._store.all(kind):
                self._keep(kind, item, finalizer)
        for trial in self._store.all(kinds.TRIAL):
            if "deletionTimestamp" not in trial["metadata"]:
                self._follow(trial)
        for experiment in self._store.all(kinds.EXPERIMENT):
            if "deletionTimestamp" not in experiment["metadata"]:
                self._reconcile(experiment)

    def _keep(self, kind: kinds.Kind, item: Object, finalizer: str) -> None:
        """Put the finalizer on what is new, and take it off what is being deleted."""
        has = finalizer in item["metadata"].get("finalizers", [])
        if has == ("deletionTimestamp" not in item["metadata"]):
            return

        def change(one: Object) -> None:
            names = one["metadata"].setdefault("finalizers", [])
            names.remove(finalizer) if has else names.append(finalizer)

        self._store.edit(kind, item, change)

    def _reconcile(self, experiment: Object) -> None:
        status = copy.deepcopy(experiment.get("status") or {})
        if not status:
            self._begin(experiment)
            return
        own = self._trials(experiment)
        known = {name for field in _LISTS.values() for name in status.get(field, [])}
        if known - {one["metadata"]["name"] for one in own} or not self._suggests(experiment):
            # A Trial deleted by hand stays in its list, and nothing goes on any more.
            return
        self._count(status, own)
        self._judge(experiment, status)
        ended = conditions.has(status, "Succeeded") or conditions.has(status, "Failed")
        spec, active = experiment["spec"], status.get("trialsPending", 0) + status.get("trialsRunning", 0)
        wanted = min(spec["parallelTrialCount"] - active, spec.get("maxTrialCount", 10**6) - len(own))
        for number in range(len(own), len(own) + (0 if ended else max(0, wanted))):
            own.append(self._make(experiment, number))
        self._count(status, own)
        if own and not ended:
            conditions.put(status, "Running", "ExperimentRunning", "Experiment is running")
        self._store.edit(kinds.EXPERIMENT, experiment, lambda one: one.update(status=status))

    def _begin(self, experiment: Object) -> None:
        status: Object = {"currentOptimalTrial": {"observation": {}}, "startTime": now()}
        conditions.put(status, "Created", "ExperimentCreated", "Experiment is created")
        self._store.edit(kinds.EXPERIMENT, experiment, lambda one: one.update(status=status))
        spec = {"algorithm": experiment["spec"]["algorithm"], "requests": experiment["spec"]["parallelTrialCount"]}
        meta = {"name": experiment["metadata"]["name"], "ownerReferences": [owner_of(experiment)]}
        own: Object = {}
        conditions.put(own, "Created", "SuggestionCreated", "Suggestion is created")
        home = experiment["metadata"]["namespace"]
        self._store.create(kinds.SUGGESTION, home, {"metadata": meta, "spec": spec, "status": own})
        self._ready[experiment["metadata"]["uid"]] = time.monotonic() + _SUGGESTION_S / self._cluster.speed

    def _suggests(self, experiment: Object) -> bool:
        """The service that suggests is ready, and takes the settings."""
        if time.monotonic() < self._ready.get(experiment["metadata"]["uid"], 0.0):
            return False
        for one in experiment["spec"]["algorithm"].get("algorithmSettings", []):
            if one["name"] in _INTEGERS and not one["value"].isdigit():
                home, name = experiment["metadata"]["namespace"], experiment["metadata"]["name"]
                suggestion = self._store.get(kinds.SUGGESTION, home, name)
                why = f'Failed to create goptuna study and search space: strconv.Atoi: parsing "{one["value"]}": invalid syntax'
                message = f"rpc error: code = Internal desc = {why}"
                if suggestion:
                    record(self._store, suggestion, "ReconcileError", message, type_="Warning", source="suggestion-controller")
                self._ready[experiment["metadata"]["uid"]] = time.monotonic() + 5.0 / self._cluster.speed
                return False
        return True

    def _trials(self, experiment: Object) -> list[Object]:
        uid, home = experiment["metadata"]["uid"], experiment["metadata"]["namespace"]
        return [one for one in self._store.all(kinds.TRIAL, home) if one["metadata"]["ownerReferences"][0]["uid"] == uid]

    def _make(self, experiment: Object, number: int) -> Object:
        """A Trial."""
        spec, template = experiment["spec"], experiment["spec"]["trialTemplate"]
        assert template["trialSpec"]["kind"] == "PyTorchJob", "no other trials are played"
        draw = random.Random(f"{experiment['metadata']['uid']}/{number}")
        name = f"{experiment['metadata']['name']}-{''.join(draw.choices('bcdfghjklmnpqrstvwxz2456789', k=8))}"
        assignments = trials.values(experiment, number)
        own = {"objective": spec["objective"], "parameterAssignments": assignments, "retainRun": bool(template.get("retain"))}
        own |= {
            "runSpec": trials.run_of(experiment, name, assignments),
            "metricsCollector": spec.get("metricsCollectorSpec") or {},
        }
        for field in ("primaryContainerName", "primaryPodLabels", "successCondition", "failureCondition"):
            own |= {field: template[field]} if field in template else {}
        labels = {"katib.kubeflow.org/experiment": experiment["metadata"]["name"]}
        meta = {
            "name": name,
            "labels": labels,
            "ownerReferences": [owner_of(experiment)],
            "finalizers": [_FINALIZER[kinds.TRIAL]],
        }
        return self._store.create(kinds.TRIAL, experiment["metadata"]["namespace"], {"metadata": meta, "spec": own})

    def _count(self, status: Object, own: list[Object]) -> None:
        for state, field in _LISTS.items():
            names = [one["metadata"]["name"] for one in own if _state(one) == state]
            number = "trialMetricsUnavailable" if state == "MetricsUnavailable" else f"trials{state}"
            for key, value in ((field, names), (number, len(names))):
                status.pop(key, None)
                if value:
                    status[key] = value
        if own:
            status["trials"] = len(own)
        best = _best(own)
        if best:
            status["currentOptimalTrial"] = {
                "bestTrialName": best["metadata"]["name"],
                "observation": best["status"]["observation"],
                "parameterAssignments": best["spec"]["parameterAssignments"],
            }

    def _judge(self, experiment: Object, status: Object) -> None:
        spec = experiment["spec"]
        failed = status.get("trialsFailed", 0) + status.get("trialMetricsUnavailable", 0)
        end: tuple[str, str, str] | None = None
        if _reaches(spec["objective"], status["currentOptimalTrial"]):
            end = ("Succeeded", "ExperimentGoalReached", "Experiment has succeeded because Objective goal has reached")
        elif "maxFailedTrialCount" in spec and failed and failed >= spec["maxFailedTrialCount"]:
            end = ("Failed", "ExperimentFailed", "Experiment has failed because max failed count has reached")
        elif failed + status.get("trialsSucceeded", 0) >= spec.get("maxTrialCount", 10**6):
            end = ("Succeeded", "ExperimentMaxTrialsReached", "Experiment has succeeded because max trial count has reached")
        if end:
            conditions.put(status, *end)
            status.setdefault("completionTime", now())

    def _follow(self, trial: Object) -> None:
        """One step of a Trial: its run is made, runs, has ended."""
        status, meta = copy.deepcopy(trial.get("status") or {}), trial["metadata"]
        if _state(trial) in _ENDS:
            return
        name = meta["name"]
        job = self._store.get(kinds.PYTORCHJOB, meta["namespace"], name)
        if not status:
            conditions.put(status, "Created", "TrialCreated", "Trial is created")
            status["startTime"] = now()
        elif job is None and not conditions.has(status, "Running"):
            run = trial["spec"]["runSpec"]
            self._store.create(
                kinds.PYTORCHJOB,
                meta["namespace"],
                run | {"metadata": run["metadata"] | {"ownerReferences": [owner_of(trial)]}},
            )
            self._say(trial, "JobCreated", f"Job {name} has been created")
            conditions.put(status, "Running", "TrialRunning", "Trial is running")
        elif job:
            self._end(trial, job, status)
        self._store.edit(kinds.TRIAL, trial, lambda one: one.update(status=status))

    def _end(self, trial: Object, job: Object, status: Object) -> None:
        name = trial["metadata"]["name"]
        ended = next(
            (c for c in job.get("status", {}).get("conditions", []) if c["type"] in _ENDS and c["status"] == "True"), None
        )
        if ended is None:
            return
        if ended["type"] == "Failed":
            self._say(trial, "JobFailed", f"Job {name} has failed. {ended['message']} {ended['reason']}")
            end = ("Failed", "TrialFailed", "Trial has failed")
        else:
            metrics = trials.reported(self._cluster, trial)
            status["observation"] = {"metrics": metrics}
            if metrics[0].get("latest") == trials.UNAVAILABLE:
                self._say(trial, "MetricsUnavailable", f"Metrics are not available for Job {name}", type_="Warning")
                end = ("MetricsUnavailable", "MetricsUnavailable", "Metrics are not available")
            else:
                self._say(trial, "JobSucceeded", f"Job {name} has succeeded")
                end = ("Succeeded", "TrialSucceeded", "Trial has succeeded")
        status["completionTime"] = now()
        conditions.put(status, end[0], f"{end[1]}. Job reason: {ended['reason']}", f"{end[2]}. Job message: {ended['message']}")
        if not trial["spec"]["retainRun"]:
            resources.delete(self._cluster, kinds.PYTORCHJOB, trial["metadata"]["namespace"], name, {})
            self._say(trial, "JobDeleted", f"Job {name} has been deleted")

    def _say(self, trial: Object, reason: str, message: str, *, type_: str = "Normal") -> None:
        record(self._store, trial, reason, message, type_=type_, source="trial-controller")


def _state(trial: Object) -> str:
    status = trial.get("status") or {}
    return next((state for state in (*_ENDS, "Running") if conditions.has(status, state)), "Pending")


def _number(metrics: list[Object], strategy: Object) -> float | None:
    """The value of a metric by its strategy, None where it is no number."""
    text = next((one.get(strategy["value"], "") for one in metrics if one["name"] == strategy["name"]), "")
    return float(text) if text not in ("", trials.UNAVAILABLE) else None


def _best(own: list[Object]) -> Object | None:
    """The best of the trials that succeeded; the first where none has a number."""
    best, best_value = None, None
    for trial in own:
        if _state(trial) != "Succeeded":
            continue
        objective = trial["spec"]["objective"]
        value = _number(trial["status"]["observation"]["metrics"], objective["metricStrategies"][0])
        sign = 1 if objective["type"] == "maximize" else -1
        if best is None or (value is not None and (best_value is None or sign * value > sign * best_value)):
            best, best_value = trial, value
    return best


def _reaches(objective: Object, optimum: Object) -> bool:
    metrics = (optimum.get("observation") or {}).get("metrics") or []
    if "goal" not in objective or not metrics:
        return False
    value = _number(metrics, objective["metricStrategies"][0])
    if value is None:
        return False
    return value >= objective["goal"] if objective["type"] == "maximize" else value <= objective["goal"]
