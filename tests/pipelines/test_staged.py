"""A pipeline whose root is in an object store: a real S3 server, real subprocesses, a toy pipeline."""

from pathlib import Path

import pytest
from tritower import storage
from tritower.errors import StepError

from pipelines import local, staged
from tests.support import chain, toy


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.compiled(tmp_path_factory.mktemp("toy"))


def ran(outcome: local.Outcome) -> list[tuple[str, str]]:
    return [(step.name, step.status) for step in outcome.steps]


def test_artifacts_go_through_the_store_alone(pipeline: Path, s3: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    outcome = local.run(pipeline, {"text": "ab"}, root=root, store=s3)
    assert ran(outcome) == [("double", "done"), ("checked", "done")]
    assert outcome.steps[0].numbers == {"letters": 4}
    (place,) = outcome.outputs.values()
    assert place.startswith(f"{s3}/toy-") and place.endswith("/check/copy")
    assert storage.fetch(place, tmp_path / "copy").read_text() == "abab"
    assert {name.rsplit("/", 2)[-2:][0] + "/" + name.rsplit("/", 1)[-1] for name in storage.list_files(s3)} == {
        "double/doubled", "double/executor_output.json", "check/copy", "check/executor_output.json",
    }  # fmt: skip
    # Here are the words about artifacts, not the artifacts.
    assert {path.name for path in (root / "artifacts").rglob("*") if path.is_file()} == {"executor_output.json"}
    assert "send outputs: 4 bytes" in (root / "logs" / "double.log").read_text()


def test_what_is_imported_may_be_in_the_store_or_on_this_machine(s3: str, tmp_path: Path) -> None:
    """Our pipelines import nothing; one of the user's may."""
    pipeline, used = chain.compiled(tmp_path), tmp_path / "used"
    used.mkdir()
    (used / "weights").write_text("heavy")
    storage.upload_tree(used, f"{s3}/used")
    for model in (f"{s3}/used", str(used)):
        outcome = local.run(
            pipeline, {"model": model, "config": {"word": "ab"}}, root=tmp_path / "root", store=f"{s3}/runs", as_backend=True
        )
        (place,) = outcome.outputs.values()
        assert storage.fetch(place, tmp_path / "copy").read_text() == "abheavy"
        (tmp_path / "copy").unlink()


def test_the_cache_knows_what_the_store_has_lost(pipeline: Path, s3: str, tmp_path: Path) -> None:
    first = local.run(pipeline, {"text": "ab"}, root=tmp_path, store=s3)
    second = local.run(pipeline, {"text": "ab"}, root=tmp_path, store=s3)
    assert ran(second) == [("double", "cached"), ("checked", "cached")]
    assert second.outputs == first.outputs
    (place,) = second.outputs.values()
    storage.filesystem(place)[0].delete_file(place.removeprefix("s3://"))
    third = local.run(pipeline, {"text": "ab"}, root=tmp_path, store=s3)
    assert ran(third) == [("double", "cached"), ("checked", "done")]
    assert storage.fetch(*third.outputs.values(), tmp_path / "copy").read_text() == "abab"


def test_a_failed_step_leaves_nothing_in_the_store(pipeline: Path, s3: str, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"^checked: DataError: the text is too long \(in abcabc\)"):
        local.run(pipeline, {"text": "abc", "limit": 3}, root=tmp_path, store=s3)
    assert {name.rsplit("/", 2)[1] for name in storage.list_files(s3)} == {"double"}


def test_a_store_that_is_not_there_is_named_by_the_step(
    pipeline: Path, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StepError, match=r"^double: StorageError: the bucket does not exist \(in s3://none/runs/toy-"):
        local.run(pipeline, {"text": "abc"}, root=tmp_path / "a", store="s3://none/runs")
    monkeypatch.setenv("TRITOWER_S3_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("TRITOWER_S3_RETRIES", "0")
    with pytest.raises(StepError, match=r"^double: StorageError: the store does not answer"):
        local.run(pipeline, {"text": "abc"}, root=tmp_path / "b", store=s3)


def test_each_root_has_a_folder_of_its_own() -> None:
    one, two = (staged.folder(root, Path("build")) for root in ("s3://b/x-y", "s3://b/x/y"))
    assert one != two and one.parent == Path("build") and "/" not in one.name
