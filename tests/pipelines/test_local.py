"""Running a compiled pipeline for real, on a toy: progress, cache, failure."""

import sys
from pathlib import Path

import pytest
from tritower.errors import StepError

from pipelines import local
from tests.support import toy


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.compiled(tmp_path_factory.mktemp("toy"))


def ran(outcome: local.Outcome) -> list[tuple[str, str]]:
    return [(step.name, step.status) for step in outcome.steps]


def test_steps_outputs_numbers_and_logs(pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, str]] = []
    outcome = local.run(pipeline, {"text": "ab"}, root=tmp_path, report=lambda step: seen.append((step.name, step.status)))
    assert ran(outcome) == [("double", "done"), ("checked", "done")]
    assert seen == [("double", "running"), ("double", "done"), ("checked", "running"), ("checked", "done")]
    assert [Path(path).read_text() for path in outcome.outputs.values()] == ["abab"]
    assert outcome.steps[0].numbers == {"letters": 4}
    assert outcome.steps[0].seconds > 0
    assert [step.warnings for step in outcome.steps] == [["ab is short"], []]
    assert "doubling ab" in (tmp_path / "logs" / "double.log").read_text()
    assert "FAILURE" in (tmp_path / "logs" / "checked.log").read_text()
    assert capsys.readouterr().out == ""


def test_second_run_is_cached_and_a_changed_input_is_not(pipeline: Path, tmp_path: Path) -> None:
    first = local.run(pipeline, {"text": "ab"}, root=tmp_path)
    second = local.run(pipeline, {"text": "ab"}, root=tmp_path)
    assert ran(second) == [("double", "cached"), ("checked", "cached")]
    assert second.outputs == first.outputs
    assert second.steps[0].numbers == {"letters": 4}
    # Only the step whose parameter changed runs again.
    assert ran(local.run(pipeline, {"text": "ab", "limit": 11}, root=tmp_path)) == [("double", "cached"), ("checked", "done")]
    assert ran(local.run(pipeline, {"text": "a"}, root=tmp_path)) == [("double", "done"), ("checked", "done")]
    assert ran(local.run(pipeline, {"text": "ab"}, root=tmp_path, use_cache=False)) == [("double", "done"), ("checked", "done")]


def test_a_failed_step_is_named_with_its_error_and_log(pipeline: Path, tmp_path: Path) -> None:
    out = sys.stdout
    with pytest.raises(StepError) as caught:
        local.run(pipeline, {"text": "abc", "limit": 3}, root=tmp_path)
    message = str(caught.value)
    assert message.startswith("checked: DataError: the text is too long (in abcabc). Shorten it.")
    assert str(tmp_path / "logs" / "checked.log") in message
    assert sys.stdout is out
    # The step before it is kept; the failed one is not taken for done.
    second = local.run(pipeline, {"text": "abc", "limit": 6}, root=tmp_path)
    assert ran(second) == [("double", "cached"), ("checked", "done")]


def test_a_nested_pipeline_runs_as_if_its_steps_stood_there(tmp_path: Path) -> None:
    pipeline, root = toy.compiled(tmp_path, toy.outer), tmp_path / "root"
    assert local.tasks(pipeline) == {
        "judge": ("judge", "judge"),
        "double": ("double", "double"),
        "check": ("check", "checked"),
    }
    first = local.run(pipeline, {"text": "ab"}, root=root, as_backend=True)
    assert sorted(ran(first)) == [("checked", "done"), ("double", "done"), ("judge", "done")]
    assert [Path(path).read_text() for path in first.outputs.values()] == ["abab"]
    assert {step.name: step.numbers for step in first.steps}["double"] == {"letters": 4}
    again = local.run(pipeline, {"text": "ab", "limit": 11}, root=root, as_backend=True)
    assert sorted(ran(again)) == [("checked", "done"), ("double", "cached"), ("judge", "cached")]


def test_a_step_that_fails_in_a_nested_pipeline_ends_the_run(tmp_path: Path) -> None:
    pipeline = toy.compiled(tmp_path, toy.outer)
    seen: list[tuple[str, str]] = []
    with pytest.raises(StepError, match=r"^checked: DataError: the text is too long"):
        local.run(
            pipeline, {"text": "abc", "limit": 3}, root=tmp_path, report=lambda step: seen.append((step.name, step.status))
        )
    assert seen[-1] == ("checked", "failed")
