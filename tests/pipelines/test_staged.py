"""A pipeline whose root is in an object store: a real S3 server, real subprocesses, a toy pipeline."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from tritower import storage
from tritower.errors import StepError

from pipelines import local, staged
from tests.pipelines import toy
from tests.unit.storage.conftest import s3_server

ROOT = "s3://pipelines/runs"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.compiled(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server(tmp_path / "server.log") as url:
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys).create_bucket(Bucket="pipelines")
        monkeypatch.setenv("TRITOWER_S3_ENDPOINT", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield url


def ran(outcome: local.Outcome) -> list[tuple[str, str]]:
    return [(step.name, step.status) for step in outcome.steps]


@pytest.mark.usefixtures("store")
def test_artifacts_go_through_the_store_alone(pipeline: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    outcome = local.run(pipeline, {"text": "ab"}, root=root, store=ROOT)
    assert ran(outcome) == [("double", "done"), ("checked", "done")]
    assert outcome.steps[0].numbers == {"letters": 4}
    (place,) = outcome.outputs.values()
    assert place.startswith(f"{ROOT}/toy-") and place.endswith("/check/copy")
    assert storage.fetch(place, tmp_path / "copy").read_text() == "abab"
    assert {name.rsplit("/", 2)[-2:][0] + "/" + name.rsplit("/", 1)[-1] for name in storage.list_files(ROOT)} == {
        "double/doubled", "double/executor_output.json", "check/copy", "check/executor_output.json",
    }  # fmt: skip
    # Here are the words about artifacts, not the artifacts.
    assert {path.name for path in (root / "artifacts").rglob("*") if path.is_file()} == {"executor_output.json"}
    assert "send outputs: 4 bytes" in (root / "logs" / "double.log").read_text()


@pytest.mark.usefixtures("store")
def test_the_cache_knows_what_the_store_has_lost(pipeline: Path, tmp_path: Path) -> None:
    first = local.run(pipeline, {"text": "ab"}, root=tmp_path, store=ROOT)
    second = local.run(pipeline, {"text": "ab"}, root=tmp_path, store=ROOT)
    assert ran(second) == [("double", "cached"), ("checked", "cached")]
    assert second.outputs == first.outputs
    (place,) = second.outputs.values()
    storage.filesystem(place)[0].delete_file(place.removeprefix("s3://"))
    third = local.run(pipeline, {"text": "ab"}, root=tmp_path, store=ROOT)
    assert ran(third) == [("double", "cached"), ("checked", "done")]
    assert storage.fetch(*third.outputs.values(), tmp_path / "copy").read_text() == "abab"


@pytest.mark.usefixtures("store")
def test_a_failed_step_leaves_nothing_in_the_store(pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"^checked: DataError: the text is too long \(in abcabc\)"):
        local.run(pipeline, {"text": "abc", "limit": 3}, root=tmp_path, store=ROOT)
    assert {name.rsplit("/", 2)[1] for name in storage.list_files(ROOT)} == {"double"}


def test_a_store_that_is_not_there_is_named_by_the_step(
    pipeline: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StepError, match=r"^double: StorageError: the bucket does not exist \(in s3://none/runs/toy-"):
        local.run(pipeline, {"text": "abc"}, root=tmp_path / "a", store="s3://none/runs")
    monkeypatch.setenv("TRITOWER_S3_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("TRITOWER_S3_RETRIES", "0")
    with pytest.raises(StepError, match=r"^double: StorageError: the store does not answer"):
        local.run(pipeline, {"text": "abc"}, root=tmp_path / "b", store=ROOT)


def test_each_root_has_a_folder_of_its_own() -> None:
    one, two = (staged.folder(root, Path("build")) for root in ("s3://b/x-y", "s3://b/x/y"))
    assert one != two and one.parent == Path("build") and "/" not in one.name
