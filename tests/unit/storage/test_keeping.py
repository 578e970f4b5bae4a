"""What a step keeps for its next attempt: where, how long, and what happens where the store is away. A real S3 server."""

import json
import logging
import sys
from pathlib import Path

import pytest
from tritower import storage
from tritower.errors import CredentialsError, StorageError
from tritower.storage import keeping, staging

from tests.support.faults import Fault, proxy


@pytest.mark.parametrize(
    ("artifact", "wanted"),
    [
        ("minio://bucket/v2/run/ranker/model", "minio://bucket/v2/run/ranker/.model.checkpoint"),
        ("gs://bucket/run/model/", "gs://bucket/run/.model.checkpoint"),
        ("/run/ranker/model", "/run/ranker/.model.checkpoint"),
        (Path("model"), ".model.checkpoint"),
    ],
)
def test_the_place_by_hand(artifact: str | Path, wanted: str):
    assert storage.beside(artifact) == wanted


def test_it_goes_when_the_step_ends_well_and_stays_when_it_fails(s3: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    (tmp_path / "file").write_text("half of the work")
    with pytest.raises(ZeroDivisionError), storage.kept(f"{s3}/model") as place:
        storage.upload(tmp_path / "file", f"{place}/half")
        1 / 0  # noqa: B018
    assert f"{place}/half".endswith(storage.names(place)[-1])
    with storage.kept(f"{s3}/model") as again:
        assert again == place and storage.fetch(f"{again}/half", tmp_path / "copy").read_text() == "half of the work"
    assert storage.names(place) == [] and f"removed the checkpoints at {place}" in caplog.text


def test_a_place_of_the_users_own_is_never_removed(s3: str, tmp_path: Path):
    (tmp_path / "file").write_text("theirs")
    storage.upload(tmp_path / "file", f"{s3}/own/file")
    with storage.kept(f"{s3}/model", f"{s3}/own") as place:
        assert place == f"{s3}/own"
    assert len(storage.names(f"{s3}/own")) == 1


@pytest.mark.parametrize("uri", ["minio://bucket/run/model", "s3://bucket/run/model", "oci://registry/model"])
def test_without_the_stores_keys_there_is_one_warning_and_the_work_is_done(
    uri: str, bare: None, caplog: pytest.LogCaptureFixture
):
    with storage.kept(uri) as place:
        assert place == ""
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING and "a retry begins from nothing" in warning.message


def test_a_store_that_says_no_is_no_failure(s3: str, caplog: pytest.LogCaptureFixture):
    with storage.kept("s3://nobodys-bucket/run/model") as place:
        assert place == ""
    assert "the bucket does not exist" in caplog.text


def test_a_store_that_was_away_is_asked_again(
    s3: str, endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(keeping, "_PAUSES_S", (0.01, 0.01))
    monkeypatch.setenv("TRITOWER_S3_RETRIES", "0")
    (tmp_path / "file").write_text("kept")
    storage.upload(tmp_path / "file", f"{s3}/file")
    with proxy(endpoint) as between:
        monkeypatch.setenv("TRITOWER_S3_ENDPOINT", between.url)
        between.faults.append(Fault("status", times=2))
        assert len(storage.patiently(lambda: storage.names(s3)) or []) == 1
        assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
        between.faults.append(Fault("status", times=50))
        assert storage.patiently(lambda: storage.names(s3)) is None
    (warning,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert "no checkpoint can be read, the work begins from nothing" in warning.message


def test_refused_keys_are_not_asked_again(caplog: pytest.LogCaptureFixture):
    asked = []

    def refuse() -> None:
        asked.append(1)
        raise CredentialsError("the store refuses the credentials", where="s3://bucket")

    assert storage.patiently(refuse) is None and len(asked) == 1


def test_a_checkpoint_that_cannot_be_written_is_a_warning(caplog: pytest.LogCaptureFixture):
    def fail() -> None:
        raise StorageError("the store does not answer", where="s3://bucket")

    assert not storage.tried(fail, "the checkpoint of step 3")
    assert "the checkpoint of step 3 is not kept" in caplog.text
    assert storage.tried(lambda: None, "nothing")


def test_a_step_whose_artifacts_are_staged_keeps_beside_their_real_locations(s3: str, tmp_path: Path):
    """`run --local --root s3://...`: the step sees scratch paths; another scratch folder must lead to the same place."""
    code = (
        "import json, sys; from pathlib import Path; from tritower import storage\n"
        "given = json.loads(sys.argv[2]); outputs = given['outputs']\n"
        "path = outputs['artifacts']['model']['artifacts'][0]['uri']; Path(path).parent.mkdir(exist_ok=True)\n"
        "with storage.kept(path) as place: Path(path).write_text(place)\n"
        "Path(outputs['outputFile']).write_text(json.dumps({'artifacts': outputs['artifacts']}))\n"
    )
    model = {"artifacts": [{"name": "model", "uri": f"{s3}/task/model", "metadata": {}}]}
    given = {"outputs": {"artifacts": {"model": model}, "outputFile": f"{s3}/task/executor_output.json"}}
    staging.run([sys.executable, "-c", code, "--executor_input", json.dumps(given)])
    assert storage.fetch(f"{s3}/task/model", tmp_path / "model").read_text() == f"{s3}/task/.model.checkpoint"
