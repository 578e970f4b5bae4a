"""The executor input of a backend, in local runs: what a step gets, what it may hand back, and what fails as it fails there."""

import inspect
import json
import math
import typing
from pathlib import Path
from typing import Any, Optional

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kfp import compiler, dsl
from kfp.dsl import Artifact, Dataset, Input, Output
from tritower import storage
from tritower._build import component
from tritower.champion.component import record
from tritower.errors import ArtifactError, ConfigError, StepError
from tritower.evaluation.component import evaluation
from tritower.features.component import features

from pipelines import backend_inputs, compiling, local
from tests.support import chain, toy


@dsl.component(base_image="tritower/base:0", install_kfp_package=False)
def made(data: Output[Dataset], none: bool = False, nan: bool = False) -> dict:
    from pathlib import Path

    Path(data.path).mkdir()
    (Path(data.path) / "part").write_text("some")
    data.metadata.update(rows=3, share=0.5, is_whole=True, names=["a", 1], counts={"a": 1}, word="x")
    if none:
        data.metadata["lost"] = None
    if nan:
        data.metadata["loss"] = {"last": [float("nan")]}
    return {"rows": 3}


@dsl.component(base_image="tritower/base:0", install_kfp_package=False)
def seen(data: Input[Dataset], shown: Output[Artifact], other: Input[Dataset] = None, knobs: dict = {}) -> None:  # noqa: B006
    import json
    from pathlib import Path

    facts = {"class": type(data).__name__, "name": data.name, "metadata": data.metadata, "knobs": knobs}
    facts |= {"files": [path.name for path in Path(data.path).glob("[!.]*")], "other": other.name if other else "none"}
    Path(shown.path).write_text(json.dumps(facts))


@dsl.component(base_image="tritower/base:0", install_kfp_package=False)
def seen_optional(
    data: Input[Dataset],
    shown: Output[Artifact],
    other: Optional[Input[Dataset]] = None,  # noqa: UP045
) -> None:
    from pathlib import Path

    Path(shown.path).write_text("seen" if other is None else other.name)


@dsl.pipeline(name="good")
def good(none: bool = False, nan: bool = False, knobs: dict = {}) -> Artifact:  # noqa: B006
    data = made(none=none, nan=nan).outputs["data"]
    alone = seen(data=data, knobs=knobs)
    return seen(data=data, other=alone.outputs["shown"], knobs=knobs).outputs["shown"]


@dsl.pipeline(name="optional")
def optional() -> Artifact:
    data = made().outputs["data"]
    return seen_optional(data=data, other=data).outputs["shown"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    for pipeline in (good, optional):
        compiler.Compiler().compile(pipeline, str(folder / f"{pipeline.name}.yaml"))
    return folder


def facts(outcome: local.Outcome, place: Path) -> dict[str, Any]:
    (uri,) = outcome.outputs.values()
    found: dict[str, Any] = storage.read_json(storage.fetch(uri, place))
    return found


def test_a_step_gets_what_a_backend_hands_over(compiled: Path, tmp_path: Path) -> None:
    outcome = local.run(compiled / "good.yaml", {"knobs": {"a": 1}}, root=tmp_path, as_backend=True)
    assert [step.status for step in outcome.steps] == ["done"] * 3
    got = facts(outcome, tmp_path / "got")
    session = got["metadata"].pop("store_session_info")
    assert json.loads(session)["Provider"] == "minio"
    assert got == {
        "class": "Dataset",
        "name": "1",
        "metadata": {
            "rows": 3.0, "share": 0.5, "is_whole": 1.0, "names": {"list": ["a", 1.0]}, "counts": {"struct": {"a": 1.0}},
            "word": "x", "display_name": "data",
        },
        "knobs": {"a": 1},
        "files": ["part"],
        "other": "2",
    }  # fmt: skip
    # Without the mode kfp.local keeps names and types.
    plain = facts(local.run(compiled / "good.yaml", {}, root=tmp_path / "plain"), tmp_path / "plain_got")
    assert (plain["name"], plain["metadata"]["is_whole"], plain["metadata"]["names"]) == ("data", True, ["a", 1])
    assert "executor-logs" not in "".join(path.read_text() for path in tmp_path.rglob("executor_output.json"))


def test_an_optional_artifact_fails_as_on_a_backend(compiled: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"^seen_optional: .*TypeError: Cannot instantiate typing\.Union"):
        local.run(compiled / "optional.yaml", {}, root=tmp_path / "as", as_backend=True)
    # No ordinary local run shows it.
    outcome = local.run(compiled / "optional.yaml", {}, root=tmp_path / "plain")
    assert [step.status for step in outcome.steps] == ["done", "done"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"none": True}, r"cannot store None \(in metadata 'lost' of the output 'data'\)"), ({"nan": True}, r"metadata 'loss'")],
)
def test_metadata_that_the_store_refuses_fail_the_step(
    compiled: Path, tmp_path: Path, arguments: dict[str, bool], message: str
) -> None:
    with pytest.raises(StepError, match=r"^made: ArtifactError: .*" + message):
        local.run(compiled / "good.yaml", arguments, root=tmp_path, as_backend=True)


@pytest.mark.parametrize("as_backend", [False, True])
def test_a_dict_given_as_text_is_refused_before_anything_runs(compiled: Path, tmp_path: Path, as_backend: bool) -> None:
    with pytest.raises(ConfigError, match=r"parameter 'knobs' is to be a dict, not str \(in good\.yaml\)"):
        local.run(compiled / "good.yaml", {"knobs": '{"a": 1}'}, root=tmp_path / "root", as_backend=as_backend)
    assert not (tmp_path / "root").exists()


def test_artifacts_come_from_an_object_store(compiled: Path, s3: str, tmp_path: Path) -> None:
    outcome = local.run(compiled / "good.yaml", {}, root=tmp_path, store=s3, as_backend=True)
    got = facts(outcome, tmp_path / "got")
    assert (got["name"], got["files"], got["metadata"]["rows"]) == ("1", ["part"], 3.0)
    assert not [name for name in storage.list_files(s3) if "executor-logs" in name]


def test_the_mode_ends_with_the_run(compiled: Path, tmp_path: Path) -> None:
    from kfp.local.subprocess_task_handler import SubprocessTaskHandler

    before = SubprocessTaskHandler.run
    with pytest.raises(StepError):
        local.run(compiled / "optional.yaml", {}, root=tmp_path, as_backend=True)
    assert SubprocessTaskHandler.run is before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
def test_what_the_store_gives_back_has_no_whole_numbers_and_equal_values(value: Any) -> None:
    back = backend_inputs.stored(value)

    def leaves(part: Any) -> list[Any]:
        if isinstance(part, dict):
            return [leaf for item in part.values() for leaf in leaves(item)]
        return [leaf for item in part for leaf in leaves(item)] if isinstance(part, list) else [part]

    assert leaves(back) == leaves(value)
    assert not [leaf for leaf in leaves(back) if isinstance(leaf, int) and not isinstance(leaf, bool)]
    wrapper = {dict: "struct", list: "list"}.get(type(value))
    assert wrapper is None or list(back) == [wrapper]


@pytest.mark.parametrize("value", [None, math.inf, [1, -math.inf], {"a": {"b": math.nan}}])
def test_an_output_with_such_metadata_is_refused(value: Any) -> None:
    output = {"artifacts": {"x": {"artifacts": [{"metadata": {"key": value}}]}}}
    with pytest.raises(ArtifactError, match="metadata 'key' of the output 'x'"):
        backend_inputs.check_output(output, {})
    # A null inside a list or mapping is stored.
    backend_inputs.check_output({"artifacts": {"x": {"artifacts": [{"metadata": {"key": [None, {"a": None}]}}]}}}, {})


@pytest.mark.parametrize(
    ("kind", "good_values", "bad_values"),
    [
        ("STRUCT", [{}, {"a": 1}], ['{"a": 1}', [], 1]),
        ("LIST", [[], [1]], ["[1]", {}]),
        ("STRING", ["", "{}"], [1, {}, None]),
        ("BOOLEAN", [True], ["true", 1]),
        ("NUMBER_INTEGER", [1, 1.0], ["1", True]),
    ],
)
def test_an_output_parameter_has_its_declared_type(kind: str, good_values: list[Any], bad_values: list[Any]) -> None:
    declared = {"outputDefinitions": {"parameters": {"Output": {"parameterType": kind}}}}
    for value in good_values:
        backend_inputs.check_output({"parameterValues": {"Output": value}}, declared)
    for value in bad_values:
        with pytest.raises(ArtifactError, match="output parameter 'Output' is to be"):
            backend_inputs.check_output({"parameterValues": {"Output": value}}, declared)


def test_no_component_may_have_an_optional_artifact() -> None:
    def old(model: Output[Dataset], encoder: Optional[Input[Dataset]] = None) -> None: ...  # noqa: UP045
    def new(model: Output[Dataset], encoder: Input[Dataset] | None = None) -> None: ...

    for function in (old, new):
        with pytest.raises(ConfigError, match=rf"\(in {function.__name__}\.encoder\)"):
            component("base")(function)


@pytest.mark.parametrize(
    ("made_component", "names"),
    [(record, {"encoder", "metrics"}), (features, {"entities", "candidates"}), (evaluation, {"scores_baseline_full"})],
)
def test_optional_artifacts_are_optional_to_the_compiler_and_to_a_plain_call(made_component: Any, names: set[str]) -> None:
    spec = made_component.component_spec
    assert {name for name, given in spec.inputs.items() if given.is_artifact_list is False and given.optional} >= names
    parameters = inspect.signature(made_component.python_func).parameters
    for name in names:
        assert parameters[name].default is None
        assert typing.get_origin(parameters[name].annotation) is typing.Annotated


def test_importers_have_no_display_names(tmp_path: Path) -> None:
    path = chain.compiled(tmp_path)
    compiling.check_importers(path)
    documents = list(yaml.safe_load_all(path.read_text()))
    importers = [name for name in documents[0]["root"]["dag"]["tasks"] if name.startswith("importer")]
    assert importers == ["importer"]
    for name in importers:
        documents[0]["root"]["dag"]["tasks"][name]["taskInfo"]["name"] = "encoder"
        (tmp_path / path.name).write_text(yaml.safe_dump_all(documents))
        with pytest.raises(ArtifactError, match=f"the importer '{name}' has the display name 'encoder'"):
            compiling.check_importers(tmp_path / path.name)
        documents[0]["root"]["dag"]["tasks"][name]["taskInfo"]["name"] = name


def test_steps_with_display_names_are_no_importers(tmp_path: Path) -> None:
    compiling.check_importers(toy.compiled(tmp_path))
