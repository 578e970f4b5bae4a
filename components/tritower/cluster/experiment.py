"""Experiments as the launcher sees them, and what their trials say: pure functions of the API server's objects.

Katib's word is no verdict. An Experiment whose trials were used up has succeeded, good trials or none; a trial that reported
`nan` has succeeded; one that was deleted by hand is waited for as long as the Experiment lives; and why no trial is made stands
in the events of its Suggestion alone. So the trials are looked at one by one.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from tritower.cluster import katib, pytorchjob, state
from tritower.cluster.config import ClusterConfig
from tritower.cluster.kind import Kind, Resource, Right
from tritower.cluster.state import Object, Seen, Trouble
from tritower.errors import JobFailed, TritowerError
from tritower.jobs import Job
from tritower.searches import Search, Trial

_OF = "katib.kubeflow.org/experiment"
_TRIAL = "katib.kubeflow.org/trial"
_TRIALS = Resource(katib.GROUP, katib.VERSION, katib.TRIALS, "Trial")
_ENDS = ("EarlyStopped", "Succeeded", "Failed", "MetricsUnavailable", "Killed")
_LISTS = ("pendingTrialList", "runningTrialList", "succeededTrialList", "failedTrialList", "metricsUnavailableTrialList")


class Experiments(Kind):
    """Experiments of Katib (0.19) whose trials are PyTorchJobs.

    Args:
        search: what they search.
    """

    resource = Resource(katib.GROUP, katib.VERSION, katib.PLURAL, katib.KIND)
    operator = "Katib"
    look = "kubectl get pods -A -l katib.kubeflow.org/component=controller"
    install = 'kubectl apply -k "github.com/kubeflow/katib.git/manifests/v1beta1/installs/katib-standalone?ref=v0.19.0"'
    rights: tuple[Right, ...] = ((katib.GROUP, katib.TRIALS, ("list",)),)
    unmade = pytorchjob.PyTorchJobs.unmade

    def __init__(self, search: Search) -> None:
        self.search = search

    def manifest(self, job: Job, config: ClusterConfig, *, name: str, run: str, agent: tuple[str, ...]) -> dict[str, Any]:
        """See `katib.manifest`; the outputs of the job are the search's, no trial writes them."""
        return katib.manifest(replace(job, outputs={}), self.search, config, name=name, run=run, agent=agent)

    def size(self, job: Job, config: ClusterConfig) -> str:
        """The budget."""
        search = self.search
        return f"{search.trials} trials by {search.algorithm}, {search.parallel} at the same time"

    def wanted(self, job: Job, config: ClusterConfig) -> int:
        """One of those that count now: there is none while a trial is waited for."""
        return 1

    def selector(self, name: str) -> str:
        """The trials, their pods, and the pod that suggests."""
        return f"{_OF}={name}"

    def own(self, pods: list[dict[str, Any]], job: Object) -> list[dict[str, Any]]:
        """The pods of its trials are those of PyTorchJobs, whose names no other Experiment has."""
        made = job["metadata"]["creationTimestamp"]
        return [pod for pod in pods if pod["metadata"]["creationTimestamp"] >= made]

    def parts(self, name: str) -> list[tuple[Resource, str]]:
        """Its trials."""
        return [(_TRIALS, self.selector(name))]

    def telling(self, seen: Seen) -> tuple[str, ...]:
        """Experiment and Suggestion have one name; a trial has that of its PyTorchJob."""
        return tuple(_name(one) for one in seen.parts if not ending(one))

    def logged(self, seen: Seen) -> Mapping[str, Object]:
        """None: a line says how each trial ended."""
        return {}

    def watched(self, seen: Seen) -> list[dict[str, Any]]:
        """Those of trials that go on; where one runs, those without a node wait for its. Without any, the Suggestion's."""
        over = {_name(one) for one in seen.parts if ending(one)}
        living = [pod for pod in seen.pods if _label(pod, _TRIAL) not in over and not state.terminated(pod)]
        trials = [pod for pod in living if _label(pod, _TRIAL)]
        if any(state.phase(pod) == "Running" for pod in trials):
            return [pod for pod in trials if not state.condition(pod, "PodScheduled", "False")]
        return trials or [pod for pod in living if state.phase(pod) != "Running"]

    def told(self, seen: Seen, wanted: int) -> list[str]:
        """How many trials there are, and how each that has ended did."""
        found = self.trials(seen)
        states = [one.state for one in found]
        counts = ", ".join(f"{states.count(word)} {word}" for word in dict.fromkeys(sorted(states)))
        return [f"{len(found)} of {self.search.trials} trials: {counts or 'none yet'}", *map(_line, _over(found))]

    def verdict(self, seen: Seen) -> TritowerError | None:
        """Katib's `Succeeded` is a failure where no trial has a finite figure, or too many have none."""
        found = self.trials(seen)
        failed = sum(one.state == "fail" for one in found)
        return self.failure(seen) if failed == len(found) or failed > self.search.max_failed else None

    def troubles(self, seen: Seen, config: ClusterConfig) -> Iterator[Trouble]:
        """More failures than allowed, by our count; trials that were deleted; what keeps Katib from making one."""
        failed = [one for one in self.trials(seen) if one.state == "fail"]
        if len(failed) > self.search.max_failed:
            yield Trouble(("failed", ""), self.failure(seen), 0.0)
        there = {one["metadata"]["name"] for one in seen.parts}
        for name in sorted(_listed(seen.job) - there):
            problem = "the trial was deleted, and Katib waits for it for ever"
            yield state.trouble(("deleted", name), problem, f"trial {name}", "Start the step again.", config.patience_s)
        for event in seen.events:
            if event["involvedObject"].get("kind") == "Suggestion" and event.get("reason") == "ReconcileError":
                remedy = "Correct algorithm, algorithm_settings or space."
                problem = f"Katib makes no trial: {event.get('message', '')}"
                yield state.trouble(("suggestion", ""), problem, "its Suggestion", remedy, config.patience_s)
                return

    def failure(self, seen: Seen) -> TritowerError:
        """Why the search failed: how many trials did, and the reason of the last one."""
        found = self.trials(seen)
        failed = [one for one in found if one.state == "fail"]
        if not failed:
            return JobFailed(str(state.condition(seen.job, "Failed").get("message", "")) or "it failed", where=_name(seen.job))
        last = max(
            failed, key=lambda one: (str(_ordered(seen)[one.number].get("status", {}).get("completionTime")), one.number)
        )
        why = self.reason(seen, last)
        counted = f"{len(failed)} of {len(found)} trials failed"
        return JobFailed(f"{counted}; trial {last.number}: {why.problem}", where=why.where, remedy=why.remedy)

    def trials(self, seen: Seen) -> list[Trial]:
        """Its trials, in the order in which they were made, without the figures along the way."""
        return [_trial(number, one, self.search) for number, one in enumerate(_ordered(seen))]

    def name_of(self, seen: Seen, trial: Trial) -> str:
        """What Katib calls it."""
        return _name(_ordered(seen)[trial.number])

    def trial_of(self, pod: Object) -> str:
        """The name of the trial that a pod is of."""
        return _label(pod, _TRIAL)

    def reason(self, seen: Seen, trial: Trial) -> TritowerError:
        """Why a trial failed."""
        one = _ordered(seen)[trial.number]
        name, metric = _name(one), self.search.metric
        if state.condition(one, "Succeeded"):
            return JobFailed(f"it reported no finite {metric}", where=f"trial {name}", remedy="Its training diverged.")
        if state.condition(one, "MetricsUnavailable"):
            remedy = f"Is `metric` the name it reports? Katib's collector reads {katib.METRICS}."
            return JobFailed(f"it reported no {metric}", where=f"trial {name}", remedy=remedy)
        return state.failure(one, [pod for pod in seen.pods if _label(pod, _TRIAL) == name])


def ending(trial: Object) -> str:
    """How Katib says that a trial ended; an empty text while it goes on."""
    return next((word for word in _ENDS if state.condition(trial, word)), "")


def _ordered(seen: Seen) -> list[dict[str, Any]]:
    """The trials of this Experiment; one that had its name left others."""
    uid = seen.job["metadata"]["uid"]
    own = [one for one in seen.parts if any(owner["uid"] == uid for owner in one["metadata"].get("ownerReferences", []))]
    return sorted(own, key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]))


def _trial(number: int, item: Object, search: Search) -> Trial:
    end = ending(item)
    value = _value(item, search) if end == "Succeeded" else None
    word: Any = "running" if not end else "pruned" if end == "EarlyStopped" else "fail" if value is None else "complete"
    params = {str(one["name"]): str(one["value"]) for one in item["spec"].get("parameterAssignments", [])}
    times = [item.get("status", {}).get(name) for name in ("startTime", "completionTime")]
    seconds = (_time(times[1]) - _time(times[0])).total_seconds() if end and all(times) else None
    return Trial(number=number, state=word, value=value, params=params, seconds=seconds)


def _value(item: Object, search: Search) -> float | None:
    """The best of a trial's figures; None where it is no number."""
    metrics = (item.get("status", {}).get("observation") or {}).get("metrics", [])
    for one in metrics:
        if one["name"] == search.metric:
            try:
                value = float(one.get(search.goal[:3], ""))
            except ValueError:
                return None
            return value if math.isfinite(value) else None
    return None


def _over(trials: Iterable[Trial]) -> list[Trial]:
    return [one for one in trials if one.state != "running"]


def _line(trial: Trial) -> str:
    value = "-" if trial.value is None else f"{trial.value:.5f}"
    return f"trial {trial.number} {trial.state}: {value} with {dict(trial.params)}"


def _listed(experiment: Object) -> set[str]:
    status = experiment.get("status", {})
    return {str(name) for one in _LISTS for name in status.get(one, [])}


def _label(pod: Object, label: str) -> str:
    return str(pod["metadata"].get("labels", {}).get(label, ""))


def _name(item: Object) -> str:
    return str(item["metadata"]["name"])


def _time(text: Any) -> datetime:
    return datetime.fromisoformat(str(text))
