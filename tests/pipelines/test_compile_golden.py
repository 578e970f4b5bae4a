"""Compiling: deterministic, equal to what is committed, and possible with nothing but the core installed."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from tritower.errors import ArtifactError

from pipelines import compiling, graph

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "spacy", "pandas", "pyarrow", "numpy", "numba", "duckdb", "xgboost", "scikit-learn", "minio"}


def test_a_changed_yaml_is_refused(tmp_path: Path) -> None:
    path = next(path for path in compiling.compile_all(tmp_path) if path.stem == "training")
    text = path.read_text()
    path.write_text(text.replace("sdkVersion: kfp-", "sdkVersion: kfp-9").replace("tritower/base:", "registry.example/x/base:"))
    compiling.check_all(tmp_path)
    path.write_text(text.replace("enableCache: true", "enableCache: false", 1))
    with pytest.raises(ArtifactError, match="make compile"):
        compiling.check_all(tmp_path)


@pytest.mark.parametrize("path", sorted(compiling.COMPILED.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_no_step_installs_anything_and_vertex_gets_one_document(path: Path) -> None:
    document, *platform = yaml.safe_load_all(path.read_text())
    executors = document["deploymentSpec"]["executors"].values()
    for executor in (executor for executor in executors if "importer" not in executor):
        assert "pip install" not in " ".join(executor["container"]["command"])
        assert executor["container"]["image"].startswith("tritower/")
        assert not executor["container"]["image"].endswith(":latest")
    assert (path.parent.name, len(platform)) in [("kfp", 1), ("vertex", 0)]


def test_only_steps_that_use_the_store_by_themselves_get_its_keys() -> None:
    _, platform = yaml.safe_load_all(compiling.yaml_path("training").read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    places = {"exec-ingest", "exec-evaluation", "exec-features", "exec-candidate-features", "exec-record"}
    assert executors.keys() == places | {"exec-finetune", "exec-embed", "exec-ranker"}  # these keep checkpoints there
    for executor in executors.values():
        (secret,) = executor["secretAsEnv"]
        assert secret["secretName"] == "tritower-store" and secret["optional"] is True
        assert {key["envVar"] for key in secret["keyToEnv"]} >= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_the_image_for_spark_is_chosen_when_compiling(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from pipelines import compiling, graph; compiling.compile_all(Path({str(tmp_path)!r}))"
    environment = os.environ | {"TRITOWER_ENGINE_IMAGE": "spark"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    document = next(yaml.safe_load_all((tmp_path / "kfp" / "training.yaml").read_text()))
    executors = document["deploymentSpec"]["executors"].items()
    in_spark = {name for name, executor in executors if executor["container"]["image"].startswith("tritower/spark:")}
    assert in_spark == {"exec-ingest", "exec-features", "exec-candidate-features"}


@pytest.mark.parametrize("name", ["training", "batch"])
def test_for_spark_the_steps_that_take_an_engine_change_their_image_and_nothing_else(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(compiling.yaml_path(name).read_text().replace("tritower/base:", "registry.example:5000/base/base:"))
    assert compiling.for_engine(path, "duckdb", tmp_path / "copy") == path
    copy = compiling.for_engine(path, "spark", tmp_path / "copy")
    before, after = (list(yaml.safe_load_all(one.read_text())) for one in (path, copy))
    images = {}
    for executor, spec in after[0]["deploymentSpec"]["executors"].items():
        kept = before[0]["deploymentSpec"]["executors"][executor].get("container", {})
        if "container" in spec and spec["container"]["image"] != kept["image"]:
            images[executor] = spec["container"]["image"]
            spec["container"]["image"] = kept["image"]
    tag = images["exec-ingest"].rpartition(":")[2]
    steps = ("ingest", "candidate-features", *(["features"] if name == "training" else []))
    assert images == {f"exec-{step}": f"registry.example:5000/base/spark:{tag}" for step in steps}
    assert before == after


@pytest.mark.parametrize("name", ["training", "batch"])
def test_engine_and_state_are_parameters_that_reach_the_steps(name: str) -> None:
    document = graph.document(compiling.yaml_path(name))
    parameters = document["root"]["inputDefinitions"]["parameters"]
    assert (parameters["engine"]["defaultValue"], parameters["data_state"]["defaultValue"]) == ("duckdb", "")
    taken = {
        parameter: {task.name for task in graph.steps(document) if task.parameters.get(taken_as) == parameter}
        for parameter, taken_as in (("engine", "engine"), ("data_state", "previous_state" if name == "training" else "state"))
    }
    rows = {"candidate-features", *(["features"] if name == "training" else [])}
    # In batch the pointer names the state where none is given.
    assert taken == {"engine": {"ingest"} | rows, "data_state": rows if name == "training" else {"resolve"}}
    if name == "batch":
        nested = document["root"]["dag"]["tasks"]["recommendations"]["inputs"]["parameters"]["data_state"]
        assert nested["taskOutputParameter"] == {"outputParameterKey": "state", "producerTask": "resolve"}


def core() -> Iterator[importlib.metadata.Distribution]:
    """What `pip install tritower` would install, by this environment's metadata: no extra, so nothing heavy."""
    todo, done = [("tritower", "")], set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        package = importlib.metadata.distribution(name)
        if name != "tritower":
            yield package
        for one in map(Requirement, package.requires or []):
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                todo += [(one.name, other) for other in ("", *one.extras)]


def test_compiling_in_an_environment_with_the_core_only(tmp_path: Path) -> None:
    """A fresh environment whose packages are links into this one, so that nothing is downloaded; it also holds the committed
    YAML to the source."""
    venv.create(tmp_path / "core")
    (site,) = (tmp_path / "core").glob("lib/python*/site-packages")
    for package in core():
        for file in package.files or []:
            here = Path(str(package.locate_file(file)))
            if ".." not in file.parts and here.is_file():
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                (site / file).unlink(missing_ok=True)
                (site / file).symlink_to(here)
    python, environment = tmp_path / "core/bin/python", os.environ | {"PYTHONPATH": str(ROOT / "components")}
    names = "import importlib.metadata as m; print(*(d.name.lower() for d in m.distributions()))"
    listed = subprocess.run([python, "-c", names], env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert "kfp" in listed and not set(listed) & HEAVY
    command = [python, "-m", "pipelines", "compile", "--check"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    """kfp takes the keys of a dict from a protobuf map, in an order that changes from process to process."""
    program = (
        "import sys; from pathlib import Path; from pipelines import compiling, graph; compiling.compile_all(Path(sys.argv[1]))"
    )
    texts = []
    for number in range(2):
        folder = tmp_path / str(number)
        subprocess.run([sys.executable, "-c", program, str(folder)], check=True, cwd=ROOT)
        texts.append({path.relative_to(folder): path.read_text() for path in sorted(folder.rglob("*.yaml"))})
    assert texts[0] == texts[1] and len(texts[0]) == 6
    (head,) = re.findall(r"settings_candidates: dict \[Default: (.+)\]\n", texts[0][Path("kfp/batch.yaml")])
    assert list(ast.literal_eval(head)) == sorted(ast.literal_eval(head))


@pytest.mark.parametrize("name", compiling.WIRED)
def test_a_step_is_imported_and_says_nothing_of_itself(name: str) -> None:
    """A backend writes what a step is into many fields of the run's Workflow, and loses sight of one beyond 1 MiB: training of
    92 KB of YAML, with sources and descriptions, came to 1.09 MB with names of 60 characters for its data."""
    document = next(yaml.safe_load_all(compiling.yaml_path(name).read_text()))
    for label, executor in document["deploymentSpec"]["executors"].items():
        *_, source = executor["container"]["command"]
        assert re.fullmatch(r"from tritower\.\w+\.component import \w+\n", source), label
    steps = [component for component in document["components"].values() if "executorLabel" in component]
    assert steps and "description" not in str(steps)
    assert compiling.yaml_path(name).stat().st_size < 70_000
