"""The registry of steps: everything that is compiled is in it, as it says, and nothing else needs to know a step."""

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tritower.cluster.config import ClusterConfig
from tritower.config import from_dict
from tritower.errors import ConfigError

from pipelines import __main__ as command_line
from pipelines import compiling, graph, knobs, names, running, steps

ALL = steps.parts_of("training")
VARIANTS = {
    "training": steps.parts("training"),
    "training-bundle-champion-deploy-tune": ALL,
    "training-without-baselines": steps.parts("training", lacking=["baselines"]),
    "batch": steps.parts("batch"),
    "experiment": steps.parts("experiment"),
    "experiment-simulate": steps.parts_of("experiment"),
    "experiment-without-plan": frozenset(),
}


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[steps.Step], Path]:
    """Pipeline, its steps by the registry, and where it is compiled."""
    name, parts = request.param.split("-")[0], VARIANTS[request.param]
    path = compiling.prepared(name, tmp_path_factory.mktemp("compiled"), parts=parts)
    assert path.stem == request.param
    compiling.check_importers(path)
    return name, steps.of(name, parts), path


def documents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    document, platform = yaml.safe_load_all(path.read_text())
    return document, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def compiled_steps(document: dict[str, Any]) -> dict[str, graph.Task]:
    """Name shown -> task, importers left out."""
    return {task.shown: task for task in graph.steps(document) if task.kind == "step"}


def test_every_compiled_step_is_registered_with_its_room(variant: tuple[str, list[steps.Step], Path]) -> None:
    _, expected, path = variant
    document, _ = documents(path)
    found = compiled_steps(document)
    assert found.keys() == {step.name for step in expected}
    for step in expected:
        task = found[step.name]
        assert (task.name, task.within) == (step.name.replace("_", "-"), (step.within,) if step.within else ())
        label = document["components"][f"comp-{task.component}"]["executorLabel"]
        code = document["deploymentSpec"]["executors"][label]["container"]["command"][-1]
        assert code == f"from tritower.{step.room}.component import {step.component}\n"


def test_knobs_of_every_table_are_a_parameter_and_reach_the_steps(variant: tuple[str, list[steps.Step], Path]) -> None:
    name, expected, path = variant
    document, _ = documents(path)
    parameters = document["root"]["inputDefinitions"]["parameters"]
    tables = {step.knobs for step in expected} - {""} | {steps.CLUSTER.knobs for step in expected if step.launched}
    assert {parameter for parameter in parameters if parameter.startswith("settings_")} == {
        names.settings(one) for one in tables
    }
    for step in expected:
        taken = compiled_steps(document)[step.name].parameters.get("config")
        if not step.knobs:
            assert taken is None
        elif step.name != "ranker" or "tune" not in {step.name for step in expected}:
            assert taken == names.settings(step.knobs)
        if step.config:
            assert step.config in parameters[names.settings(step.knobs)]["description"]
            assert hasattr(importlib.import_module(f"tritower.{step.room}.config"), step.config)
        assert parameters.get(names.settings(step.knobs), {}).get("defaultValue", {}) == step.preset.get(name, {})


def test_what_can_be_a_job_on_the_cluster_is_told_where_and_how(variant: tuple[str, list[steps.Step], Path]) -> None:
    """A step that takes a launcher is registered so, gets it and its settings, and the store's keys for its heartbeat."""
    _, expected, path = variant
    document, platform = documents(path)
    found = compiled_steps(document)
    takes = {
        step.name
        for step in expected
        if "launcher" in document["components"][f"comp-{found[step.name].component}"]["inputDefinitions"].get("parameters", {})
    }
    assert takes == {step.name for step in expected if step.launched}
    assert takes == {step.name for step in expected} & {"finetune", "embed", "champion_embed", "tune", "ranker"}
    for step in takes:
        given = found[step].parameters
        assert (given["launcher"], given["cluster"]) == ("launcher", names.settings("cluster"))
        assert document["components"][f"comp-{found[step].component}"]["executorLabel"] in platform
    parameters = document["root"]["inputDefinitions"]["parameters"]
    assert parameters.get("launcher", {}).get("defaultValue", "local") == "local"
    assert ("launcher" in parameters, "settings_cluster" in parameters) == (bool(takes), bool(takes))


def test_steps_that_use_the_store_by_themselves_get_its_keys(variant: tuple[str, list[steps.Step], Path]) -> None:
    _, expected, path = variant
    document, platform = documents(path)
    found = compiled_steps(document)
    labels = {name: document["components"][f"comp-{task.component}"]["executorLabel"] for name, task in found.items()}
    assert platform.keys() == {labels[step.name] for step in expected if step.opens_store or step.resumes}


def test_a_bundle_gets_the_usual_baseline_where_there_is_one(tmp_path: Path) -> None:
    """The model that `serve` takes, too. Without a bundle it is no output: a node that nobody reads."""

    def given(*lacking: str) -> tuple[dict[str, Any], dict[str, Any]]:
        parts = steps.parts("training", having=["bundle"], lacking=lacking)
        document, _ = documents(compiling.prepared("training", tmp_path, parts=parts))
        return document, compiled_steps(document)["bundle"].spec["inputs"]["artifacts"]

    document, inputs = given()
    assert inputs["baseline"]["taskOutputArtifact"] == {"outputArtifactKey": "baseline_model", "producerTask": "baselines"}
    (selector,) = document["components"]["comp-baselines"]["dag"]["outputs"]["artifacts"]["baseline_model"]["artifactSelectors"]
    assert selector == {"outputArtifactKey": "baseline_model", "producerSubtask": "baseline"}
    assert document["components"]["comp-bundle"]["inputDefinitions"]["artifacts"]["baseline"]["isOptional"]
    assert "baseline" not in given("baselines")[1]
    plain, _ = documents(compiling.yaml_path("training"))
    assert "baseline_model" not in plain["components"]["comp-baselines"]["outputDefinitions"]["artifacts"]


def test_the_best_knobs_reach_the_ranker_and_the_champions_scores_the_evaluation(tmp_path: Path) -> None:
    document, _ = documents(compiling.prepared("training", tmp_path, parts=ALL))
    found = compiled_steps(document)
    best = found["ranker"].spec["inputs"]["parameters"]["config"]["taskOutputParameter"]
    assert best == {"outputParameterKey": "ranker_settings", "producerTask": "tune"}
    assert found["tune"].spec["inputs"]["parameters"]["fixed"] == {"componentInputParameter": "settings_ranker"}
    scores = found["evaluation"].spec["inputs"]["artifacts"]["scores_champion"]["taskOutputArtifact"]["producerTask"]
    assert document["root"]["dag"]["tasks"][scores]["taskInfo"]["name"] == "champion"
    needed = {name for name, one in document["root"]["inputDefinitions"]["parameters"].items() if not one.get("isOptional")}
    assert needed == {"data_jobs", "data_impressions"}


def test_the_gates_answer_is_an_output_of_the_pipeline() -> None:
    document, _ = documents(compiling.yaml_path("training"))
    assert document["root"]["dag"]["outputs"]["parameters"] == {
        name: {"valueFromParameter": {"outputParameterKey": name, "producerSubtask": "evaluation"}}
        for name in ("gate", "gate_reason")
    }


def test_a_step_is_named_where_it_is_registered_and_wired_and_nowhere_else() -> None:
    """What a new step touches: an entry, and a line of wiring."""
    named: dict[str, set[str]] = {name: set() for name in steps.STEPS}
    for path in Path(steps.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in named:
                named[node.value].add(path.stem)
    in_show = {"baseline", "baseline_cos", "baseline_full", "champion", "score"}  # rankers of metrics.json, and a column
    # A verb of the command line and a parameter, too; the room that generates logs.
    elsewhere = {"champion": {"upkeep", "running", "on_backend"}, "simulate": {"demo"}}
    for name, places in named.items():
        # What outputs were called is a matter of history: the table of it names the steps of that day.
        allowed = (
            {"steps", "names", "nested", "serving", *compiling.WIRED}  # `make serve` takes what steps left in a run's folder
            | ({"show"} if name in in_show else set())
            | elsewhere.get(name, set())
        )
        wired = {"nested"} if steps.STEPS[name].within else set(steps.STEPS[name].pipelines)
        assert {"steps", *wired} <= places <= allowed


def test_entries_agree_with_each_other() -> None:
    for step in steps.STEPS.values():
        assert step.part in {"", *steps.PARTS} and set(step.pipelines) <= compiling.WIRED.keys()
        first = steps.configs()[step.knobs] if step.knobs else step
        assert (first.room, first.config) == (step.room, step.config)
        for values in step.preset.values():
            knobs.check(step.knobs, values)


@pytest.mark.parametrize(
    ("pipeline", "having", "lacking", "message"),
    [
        ("batch", ["tune"], [], "the pipeline batch has no part 'tune'"),
        ("training", ["rivals"], [], "Its parts: baselines, bundle, champion, deploy, tune"),
        ("training", ["baselines"], ["baselines"], "asked for and left out"),
    ],
)
def test_parts_that_are_not_there(pipeline: str, having: list[str], lacking: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        steps.parts(pipeline, having, lacking)


def test_a_part_comes_with_what_it_needs(tmp_path: Path) -> None:
    parts = steps.parts("training", having=["deploy"])
    assert parts == {"baselines", "bundle", "deploy"}
    document = graph.document(compiling.prepared("training", tmp_path, parts=parts))
    tasks = document["root"]["dag"]["tasks"]
    given = tasks["deploy"]["inputs"]["parameters"]
    assert given["gate"]["taskOutputParameter"] == {"outputParameterKey": "gate", "producerTask": "evaluation"}
    assert given["bundle"]["taskOutputParameter"] == {"outputParameterKey": "bundle_at", "producerTask": "bundle"}
    assert "evaluation" in tasks["bundle"]["dependentTasks"] and not tasks["deploy"]["cachingOptions"]
    assert "bundle" not in graph.document(compiling.yaml_path("training"))["root"]["dag"]["tasks"]


def test_knobs_of_a_part_need_the_part() -> None:
    with pytest.raises(ConfigError, match=r"no step 'tune'.*--with tune"):
        running.arguments("training", {}, "", ["tune.trials=2"], version="v")
    values = running.arguments("training", {}, "quick", ["tune.trials=2"], parts=ALL, version="v")
    assert values["settings_tune"] == {"trials": "2"} and values["settings_baseline"] == {"search_trials": 0, "rounds": 50}
    values = running.arguments("training", {}, "quick", [], parts=steps.parts("training", lacking=["baselines"]), version="v")
    assert "settings_baseline" not in values and values["settings_evaluation"]["min_randomised_requests"] == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--with", "champion"], "needs a champion's ranker"),
        (["--champion-model", "m"], "needs a champion's encoder (in --model-encoder)"),
        (["--model", "m"], "needs a champion's encoder (in --model-encoder)"),
        (["--pipeline", "batch", "--with", "champion"], "the pipeline batch has no part 'champion'"),
        (["--pipeline", "batch"], "needs a champion's ranker (in --model-ranker)"),
        (["--set", "ranker_config.epochs=1"], "Did you mean 'ranker'?"),
        (["--set", "settings_ranker.epochs=1"], "Did you mean 'ranker'?"),
        (["--launcher", "pytorchjob"], "this machine starts no pytorchjob (in --launcher pytorchjob). Leave it out, or"),
        (["--launcher", "pytorchjob", "--pipeline", "batch", "--champion", "c"], "a run on this machine starts no pytorchjob"),
        (["--set", "cluster.nodes=2"], "Add --launcher pytorchjob, or leave the setting out."),
    ],
)
def test_wrong_command_lines(more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["run", "--local", "--jobs", "j", "--impressions", "i", *more]) == 1
    assert message in capsys.readouterr().err


def test_the_launcher_and_its_settings_are_parameters_of_a_pipeline_that_starts_jobs() -> None:
    settings = ["cluster.nodes=2", 'cluster.environment={"NCCL_DEBUG": "WARN"}']
    values = running.arguments("training", {}, "", settings, launcher="pytorchjob", version="v")
    assert values["launcher"] == "pytorchjob"
    config = from_dict(ClusterConfig, values["settings_cluster"])
    assert (config.nodes, config.environment) == (2, {"NCCL_DEBUG": "WARN"})
    # What a version of before the launcher does not know is not sent to it.
    assert running.arguments("training", {}, "", [], version="v").keys() == {"data_version", "engine"}
    assert running.arguments("batch", {}, "", [], launcher="pytorchjob", version="v")["launcher"] == "pytorchjob"
    assert running.arguments("experiment", {}, "", [], version="v") == {"data_version": "v"}
    with pytest.raises(ConfigError, match=r"the pipeline experiment has no engine to choose \(in --engine spark\)"):
        running.arguments("experiment", {}, "", [], engine="spark", version="v")


def test_a_search_is_not_submitted_with_a_launcher_that_runs_none() -> None:
    searching = steps.parts("training", having=["tune"])
    for launcher in ("pytorchjob", "katib"):
        assert (
            running.arguments("training", {}, "", [], parts=searching, launcher=launcher, version="v")["launcher"] == launcher
        )
    with pytest.raises(ConfigError, match="no search runs in TrainJobs"):
        running.arguments("training", {}, "", [], parts=searching, launcher="trainjob", version="v")
    assert running.arguments("training", {}, "", [], launcher="trainjob", version="v")["launcher"] == "trainjob"


def test_a_variant_is_written_where_one_says(tmp_path: Path) -> None:
    arguments = ["compile", "--with", "tune", "--without", "baselines", "--out", str(tmp_path)]
    assert command_line.main(arguments) == 0
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.yaml")} == {
        "kfp/training-tune-without-baselines.yaml",
        "vertex/training-tune-without-baselines.yaml",
    }
    for path in tmp_path.rglob("*.yaml"):
        document = next(yaml.safe_load_all(path.read_text()))
        assert document["pipelineInfo"]["name"] == "training"
        assert "evaluation" in compiled_steps(document) and "baseline" not in compiled_steps(document)
