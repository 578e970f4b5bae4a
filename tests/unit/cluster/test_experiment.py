"""What the trials of recorded Experiments say, where Katib's own word is another; values by hand from the recordings."""

import json
from pathlib import Path
from typing import Any

import pytest
from tritower.cluster.config import ClusterConfig
from tritower.cluster.experiment import Experiments
from tritower.cluster.state import Seen
from tritower.errors import JobFailed
from tritower.searches import Search

RECORDINGS = Path(__file__).parents[2] / "data" / "recordings"
PARAMETERS = ({"name": "learning_rate", "parameterType": "double", "feasibleSpace": {"min": "0.001", "max": "0.1"}},)
CONFIG = ClusterConfig(namespace="rec", image="x")


def kind(**changes: Any) -> Experiments:
    return Experiments(Search(**{"parameters": PARAMETERS, "trials": 3, "max_failed": 9} | changes))


def seen(name: str) -> Seen:
    """The last look at a recorded Experiment: a line has what changed."""
    objects: dict[tuple[str, str], dict[str, Any]] = {}
    events = []
    for text in (RECORDINGS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if line.get("kind") == "Event" and "reason" in line["object"]:
            events.insert(0, line["object"])
        if line.get("kind") not in ("Experiment", "Trial"):
            continue
        key = (line["kind"], line["name"])
        if line["verb"] == "DELETED" and line["kind"] == "Experiment":
            break
        if line["verb"] == "DELETED":
            objects.pop(key, None)
            continue
        whole = objects.setdefault(key, {"metadata": {}, "spec": {}})
        for field, value in line["object"].items():
            whole[field] = whole[field] | value if field in ("metadata", "spec") else value
    (job,) = (one for (kind_of, _), one in objects.items() if kind_of == "Experiment")
    return Seen(job=job, parts=[one for (kind_of, _), one in objects.items() if kind_of == "Trial"], events=events)


def test_the_figures_of_a_search() -> None:
    found = kind().trials(seen("kat-ok"))
    assert [one.state for one in found] == ["complete"] * 3
    best = seen("kat-ok").job["status"]["currentOptimalTrial"]["observation"]["metrics"][0]["max"]
    assert max(one.value or 0 for one in found) == float(best)
    assert {one.params["learning_rate"] for one in found} >= {"0.09457441878011753", "0.025251543444084198"}
    assert all(one.seconds and one.seconds > 0 for one in found) and kind().verdict(seen("kat-ok")) is None


@pytest.mark.parametrize(
    ("name", "states", "why"),
    [
        ("kat-nan", ["fail"] * 2, "no finite auc"),
        ("kat-no-metric", ["fail"] * 2, "reported no auc"),
        ("kat-fail-nolimit", ["fail"] * 3, "Trial has failed"),
        ("kat-nan-some", ["complete"], ""),  # .5, nan, inf: as a search here, what is no number is left out
    ],
)
def test_katibs_success_is_no_verdict(name: str, states: list[str], why: str) -> None:
    look = seen(name)
    assert [one.state for one in kind().trials(look)] == states
    verdict = kind().verdict(look)
    assert (verdict is None) == (not why)
    if verdict:
        assert why in verdict.problem and f"{len(states)} of {len(states)} trials failed" in verdict.problem


def test_a_value_that_is_no_number_is_never_the_best() -> None:
    found = kind().trials(seen("kat-nan-some"))
    assert [one.value for one in found] == [0.5]
    assert kind(goal="minimize").trials(seen("kat-nan"))[0].value is None


def test_a_trial_that_was_deleted_is_named_and_one_that_is_new_is_not() -> None:
    look = seen("kat-trial-deleted")
    (trouble,) = [one for one in kind().troubles(look, CONFIG) if one.key[0] == "deleted"]
    assert trouble.key[1] in look.job["status"]["runningTrialList"] and trouble.limit_s == CONFIG.patience_s
    whole = seen("kat-ok")
    whole.job["status"].pop("succeededTrialList")  # the Experiment has not counted them yet
    assert not [one for one in kind().troubles(whole, CONFIG) if one.key[0] == "deleted"]


def test_an_event_of_the_suggestion_counts_and_one_of_the_experiment_does_not() -> None:
    """`suggestions.kubeflow.org "kat-ok" already exists` is a passing ReconcileError of an Experiment that is well."""
    (trouble,) = kind().troubles(seen("kat-setting-wrong"), CONFIG)
    assert isinstance(trouble.error, JobFailed) and 'parsing "many": invalid syntax' in trouble.error.problem
    assert any(one["reason"] == "ReconcileError" for one in seen("kat-ok").events)
    assert not list(kind().troubles(seen("kat-ok"), CONFIG))


def test_more_failures_than_allowed_are_the_end_whatever_katib_counts() -> None:
    (trouble,) = kind(max_failed=1).troubles(seen("kat-nan"), CONFIG)
    assert trouble.limit_s == 0.0 and "2 of 2 trials failed" in trouble.error.problem
    stopped = seen("kat-ok")
    for one in stopped.parts[1:]:
        one["status"]["conditions"].insert(0, {"type": "EarlyStopped", "status": "True"})
    assert [one.state for one in kind().trials(stopped)].count("pruned") == 2
    assert kind(max_failed=0).verdict(stopped) is None


def pod(trial: str = "", *, phase: str = "Running", placed: bool = True) -> dict[str, Any]:
    labels = {"katib.kubeflow.org/trial": trial} if trial else {"katib.kubeflow.org/suggestion": "x"}
    conditions = [] if placed else [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
    spec = {"containers": [{"name": "pytorch"}]}
    return {"metadata": {"name": f"{trial}-{phase}", "labels": labels}, "spec": spec,
            "status": {"phase": phase, "conditions": conditions}}  # fmt: skip


def test_which_pods_count() -> None:
    over = {"metadata": {"name": "a"}, "status": {"conditions": [{"type": "Failed", "status": "True"}]}}
    waiting, runs, dead = pod("b", phase="Pending", placed=False), pod("c"), pod("a", phase="Failed")
    look = Seen(job={}, parts=[over], pods=[dead, waiting, runs, pod()])
    assert kind().watched(look) == [runs]  # the one without a node waits for the other's
    look.pods = [dead, waiting, pod()]
    assert kind().watched(look) == [waiting]
    look.pods = [dead, pod()]
    assert kind().watched(look) == []  # a trial is waited for
    pulling = pod(phase="Pending")
    look.pods = [dead, pulling]
    assert kind().watched(look) == [pulling]
