"""Old names of parameters and outputs lead to the new ones, and the new ones are there."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tritower.errors import ConfigError

from pipelines import backend_inputs, compiling, graph, names, steps

README = Path(names.__file__).parent / "README.md"


def document(pipeline: str) -> dict:
    return next(yaml.safe_load_all(compiling.yaml_path(pipeline).read_text()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A pipeline with all of its parts, compiled once."""
    folder = tmp_path_factory.mktemp("whole")
    return functools.cache(lambda name: compiling.compile_one(folder / f"{name}.yaml", name, steps.parts_of(name)))


@pytest.mark.parametrize(
    ("pipeline", "old", "new"),
    [
        *((pipeline, *renamed) for pipeline, table in names.PARAMETERS.items() for renamed in table.items()),
        ("training", "ranker_config", "settings_ranker"),
        ("batch", "recommend_config", "settings_recommend"),
    ],
)
def test_an_old_parameter_is_refused_with_its_new_name(pipeline: str, old: str, new: str, whole: Callable[[str], Path]) -> None:
    path = whole(pipeline)
    assert new in graph.document(path)["root"]["inputDefinitions"]["parameters"]
    with pytest.raises(ConfigError, match=rf"has no parameter '{old}' \(in {pipeline}.yaml\). It is called '{new}' now"):
        backend_inputs.check_arguments(path, {old: {} if old.endswith("_config") else "s3://b/x"})


def test_a_parameter_that_never_was_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no parameter 'clicks'.*Its parameters: data_impressions, data_jobs, "):
        backend_inputs.check_arguments(compiling.yaml_path("training"), {"clicks": "s3://b/x"})
    with pytest.raises(ConfigError, match=r"no parameter 'tune_config'.*Its parameters:"):
        backend_inputs.check_arguments(compiling.yaml_path("training"), {"tune_config": {}})


def test_new_outputs_are_there_and_old_ones_are_not(whole: Callable[[str], Path]) -> None:
    components = graph.document(whole("training"))["components"]
    for step, renamed in names.OUTPUTS.items():
        outputs = components[f"comp-{step}"]["outputDefinitions"]
        there = outputs.get("artifacts", {}).keys() | outputs.get("parameters", {}).keys()
        assert {new.rpartition(" ")[2] for new in renamed.values()} <= there
        assert not (renamed.keys() - {"metrics", "report"}) & there
    for pipeline, renamed in names.RESULTS.items():
        outputs = document(pipeline)["root"]["outputDefinitions"]["artifacts"].keys()
        assert set(renamed.values()) <= outputs and not renamed.keys() & outputs


def test_the_readme_has_the_table() -> None:
    assert "\n".join(names.page()) in README.read_text()
