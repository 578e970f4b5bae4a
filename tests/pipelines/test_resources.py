"""What a step's pod is given: requests and limits, retries, a deadline, the store's keys; by flavour and size."""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl

from pipelines import compiling, steps

ALL = steps.parts_of("training")


def compiled(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Step -> (task, container, whether it gets the Secret) is what `tasks` makes of these documents."""
    first, *more = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return first, more[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if more else {}


def tasks(path: Path) -> Iterator[tuple[steps.Step, dict[str, Any], dict[str, Any], bool]]:
    """(step, task, container, whether it gets the Secret) for each step, in whatever nested pipeline it is."""
    document, platform = compiled(path)
    components, executors = document["components"], document["deploymentSpec"]["executors"]
    for dag in (document["root"], *components.values()):
        for task in dag.get("dag", {}).get("tasks", {}).values():
            label = components[task["componentRef"]["name"]].get("executorLabel", "")
            if "container" in executors.get(label, {}):
                step = steps.STEPS[task["taskInfo"]["name"].replace("-", "_")]
                yield step, task, executors[label]["container"], "secretAsEnv" in platform.get(label, {})


def gib(text: str) -> float:
    return float(text[:-2]) * {"Mi": 2**-10, "Gi": 1.0}[text[-2:]]


def cpus(text: str) -> float:
    return float(text.removesuffix("m")) / (1000 if text.endswith("m") else 1)


@pytest.fixture(scope="module", params=["training", "batch", "experiment"])
def kfp(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline for Kubeflow with all its parts."""
    name = request.param
    return compiling.compile_one(tmp_path_factory.mktemp("kfp") / f"{name}.yaml", name, steps.parts_of(name))


def test_every_step_fits_on_a_small_node_and_is_sure_of_something(kfp: Path) -> None:
    found = list(tasks(kfp))
    assert len(found) >= 3
    for step, _, container, _ in found:
        given = container["resources"]
        asked, most = (gib(given[f"resourceMemory{side}"]) for side in ("Request", "Limit"))
        assert 0.5 <= asked <= 2 and asked < most <= 12, step.name
        asked, most = (cpus(given[f"resourceCpu{side}"]) for side in ("Request", "Limit"))
        assert 0 < asked <= 0.5 and asked < most <= 4, step.name


def test_every_step_is_retried_until_its_deadline(kfp: Path) -> None:
    """The hour that is KFP's default would end a running attempt of a long training."""
    for step, task, _, _ in tasks(kfp):
        policy = task["retryPolicy"]
        assert policy["maxRetryCount"] == 2, step.name
        hours = int(policy["backoffMaxDuration"].removesuffix("s")) / 3600
        assert hours == (24 if step.is_heavy else 6), step.name


def test_steps_that_resume_or_read_locations_get_the_stores_keys(kfp: Path) -> None:
    for step, _, _, has_keys in tasks(kfp):
        assert has_keys == (step.opens_store or step.resumes), step.name


def test_a_step_resumes_where_its_component_hands_on_its_artifacts_location(kfp: Path) -> None:
    for step, *_ in tasks(kfp):
        component = getattr(importlib.import_module(f"tritower.{step.room}.component"), step.component)
        assert step.resumes == ("artifact_uri" in inspect.getsource(component.python_func)), step.name


def test_vertex_retries_errors_as_well_so_that_only_kept_work_is_tried_again(tmp_path: Path) -> None:
    path = compiling.compile_one(tmp_path / "training.yaml", "training", ALL, "vertex")
    for step, task, container, has_keys in tasks(path):
        assert ("retryPolicy" in task) == step.resumes and not has_keys, step.name
        if step.resumes:
            assert task["retryPolicy"]["maxRetryCount"] == 1 and task["retryPolicy"]["backoffMaxDuration"] == "3600s"
        assert "resources" not in container


@pytest.mark.parametrize("flavour", ["kfp", "vertex"])
def test_a_larger_size_changes_resources_and_deadlines_and_nothing_else(flavour: Any, tmp_path: Path) -> None:
    small, medium = (
        compiling.compile_one(tmp_path / f"{size}.yaml", "training", steps.parts("training"), flavour, size)
        for size in ("small", "medium")
    )
    for (step, task, one, _), (_, other_task, other, _) in zip(tasks(small), tasks(medium), strict=True):
        larger = other.pop("resources")
        assert cpus(larger["resourceCpuLimit"]) > 4 and larger != one.pop("resources", None), step.name
        assert one == other
        task.pop("retryPolicy", None), other_task.pop("retryPolicy", None)
        assert task == other_task


def test_a_size_is_written_beside_the_kept_pipelines(tmp_path: Path) -> None:
    (path, _) = compiling.compile_variant("batch", frozenset(), tmp_path, "medium")
    assert path == tmp_path / "kfp" / "batch-medium.yaml" and path.exists()


def test_launched_steps_hand_on_all_that_their_pod_is_given_and_have_it_themselves(kfp: Path) -> None:
    document, _ = compiled(kfp)
    for step, task, _, _ in tasks(kfp):
        component = document["components"][task["componentRef"]["name"]]
        passed = {one["field"]: one["applyToTask"] for one in component.get("taskConfigPassthroughs", ())}
        fields = [one.name for one in dsl.TaskConfigField] if step.launched else []
        assert passed == dict.fromkeys(fields, True), step.name
        types = {one["parameterType"] for one in component["inputDefinitions"].get("parameters", {}).values()}
        assert ("TASK_CONFIG" in types) == step.launched


def test_vertex_is_told_nothing_of_it(tmp_path: Path) -> None:
    text = compiling.compile_one(tmp_path / "v.yaml", "training", ALL, flavour="vertex").read_text(encoding="utf-8")
    assert "TASK_CONFIG" not in text and "Passthrough" not in text
