"""How the pipelines stand in a backend's web page: boxes, nodes, width, the form's parameters. Counted on what is compiled."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipelines import backend_inputs, compiling, graph, knobs, steps

ALL = steps.parts_of("training")


class Shape(NamedTuple):
    """What the page shows of a pipeline before a box is opened.

    Boxes are tasks of the root: steps, importers and nested pipelines. Nodes are boxes and their output artifacts. Layers are
    those of the longest path from the top, as in the page's layout (dagre); the widest one says how far one must scroll.
    """

    boxes: int
    nodes: int
    layers: int
    widest: int
    parameters: int
    settings: int


def shape(spec: dict[str, Any]) -> Shape:
    tasks = {task.name: task.spec for task in graph.tasks(spec) if not task.within}
    layer: dict[str, int] = {}

    def of(task: str) -> int:
        """An artifact stands a layer below its task, a task one below the lowest of what it takes."""
        if task not in layer:
            inputs = tasks[task].get("inputs", {})
            artifacts = {a["taskOutputArtifact"]["producerTask"] for a in inputs.get("artifacts", {}).values()}
            values = [p["taskOutputParameter"] for p in inputs.get("parameters", {}).values() if "taskOutputParameter" in p]
            above = [of(one) + 2 for one in artifacts] + [of(one["producerTask"]) + 1 for one in values]
            layer[task] = max(above, default=0)
        return layer[task]

    nodes = []
    for name, task in tasks.items():
        made = spec["components"][task["componentRef"]["name"]].get("outputDefinitions", {}).get("artifacts", {})
        nodes += [of(name), *[of(name) + 1] * len(made)]
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    return Shape(
        boxes=len(tasks),
        nodes=len(nodes),
        layers=max(nodes) + 1,
        widest=max(nodes.count(one) for one in nodes),
        parameters=len(parameters),
        settings=sum(name.startswith("settings_") for name in parameters),
    )


def compiled(name: str, parts: frozenset[str], folder: Path) -> dict[str, Any]:
    return graph.document(compiling.prepared(name, folder, parts=parts))


@pytest.mark.parametrize(
    ("name", "parts", "most"),
    [
        ("training", steps.parts("training"), Shape(boxes=10, nodes=32, layers=13, widest=7, parameters=28, settings=12)),
        ("training", ALL, Shape(boxes=18, nodes=50, layers=14, widest=8, parameters=31, settings=14)),
        ("training", frozenset(), Shape(boxes=9, nodes=28, layers=13, widest=6, parameters=26, settings=10)),
        ("batch", steps.parts("batch"), Shape(boxes=8, nodes=17, layers=8, widest=5, parameters=18, settings=7)),
        ("experiment", steps.parts("experiment"), Shape(boxes=2, nodes=6, layers=2, widest=4, parameters=12, settings=2)),
    ],
)
def test_a_pipeline_is_taken_in_at_a_glance(name: str, parts: frozenset[str], most: Shape, tmp_path: Path) -> None:
    found = shape(compiled(name, parts, tmp_path))
    too_many = {one: (value, limit) for one, value, limit in zip(Shape._fields, found, most, strict=True) if value > limit}
    assert not too_many, f"{compiling.variant(name, parts)} has {found}; too much (found, at most): {too_many}"


@pytest.mark.parametrize("name", ["training", "batch", "experiment"])
@pytest.mark.parametrize("parts", [frozenset(), ALL])
def test_the_form_asks_for_what_is_needed_first(name: str, parts: frozenset[str], tmp_path: Path) -> None:
    """The page sorts parameters by name, required or not."""
    parameters = compiled(name, parts & steps.parts_of(name), tmp_path)["root"]["inputDefinitions"]["parameters"]
    given = [one for one in sorted(parameters) if not one.startswith("settings_")]
    assert given + sorted(set(parameters) - set(given)) == sorted(parameters), "settings are not last"
    needed = [one for one in given if not parameters[one].get("isOptional")]
    before = given[: given.index(needed[-1]) + 1]
    loose = [one for one in before if one not in needed]
    assert needed and not loose, f"{needed} are needed; the form begins with {before}"
    assert all(parameters[one]["parameterType"] == "STRUCT" for one in set(parameters) - set(given))


def test_nothing_is_an_output_that_no_step_and_no_reader_uses() -> None:
    """Reports, metrics and models are for readers; anything else must have a consumer."""
    for name in compiling.WIRED:
        spec = graph.document(compiling.yaml_path(name))
        used = set()
        for task in graph.tasks(spec):
            for one in task.spec.get("inputs", {}).get("artifacts", {}).values():
                if made := one.get("taskOutputArtifact"):
                    used.add((task.within, made["producerTask"], made["outputArtifactKey"]))
        holders = {(): spec["root"]}
        holders |= {(t.name,): spec["components"][f"comp-{t.component}"] for t in graph.tasks(spec) if t.kind == "dag"}
        for within, holder in holders.items():
            for one in holder["dag"].get("outputs", {}).get("artifacts", {}).values():
                used |= {(within, s["producerSubtask"], s["outputArtifactKey"]) for s in one["artifactSelectors"]}
        loose = {}
        for task in graph.tasks(spec):
            outputs = spec["components"][f"comp-{task.component}"].get("outputDefinitions", {}).get("artifacts", {})
            for output, about in outputs.items():
                kind = about["artifactType"]["schemaTitle"].removeprefix("system.")
                if (task.within, task.name, output) not in used and kind in ("Dataset", "Artifact"):
                    loose[f"{task.shown}.{output}"] = kind
        # The candidates' state is that of the log: batch hands it back, training has the state of its own features.
        assert loose.keys() <= {"candidate_features.state"}, loose


@pytest.mark.parametrize("name", ["training", "batch", "experiment"])
def test_the_description_holds_parameters_to_copy(name: str) -> None:
    path = compiling.yaml_path(name)
    about = graph.document(path)["pipelineInfo"]["description"]
    given = json.loads(about[about.index("{") : about.rindex("}") + 1])
    backend_inputs.check_arguments(path, given)
    tables = {one.removeprefix("settings_"): values for one, values in given.items() if one.startswith("settings_")}
    for table, values in tables.items():
        knobs.check(table, values)
    assert tables and given.keys() & {"ranker_epochs", "recommend_top_k", "experiment_days"}
