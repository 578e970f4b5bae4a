import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kfp.dsl import Dataset
from tritower import __version__, storage
from tritower.properties import describe, hand_on, of
from tritower.storage import manifest
from tritower.storage.keeping import ARTIFACTS


def artifact(**metadata: object) -> SimpleNamespace:
    return SimpleNamespace(metadata=metadata)


def test_figures_the_data_the_base_model_and_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITOWER_IMAGE", "0.1.0-abc1234")
    model = artifact(framework="torch")
    features, embeddings = (
        artifact(data_version="2026-11-26", rows=60.0),
        artifact(data_version="older", base_model="mini", texts=9.0),
    )
    describe(model, {"auc": 0.75, "rows": features.metadata.get("rows")}, features, None, embeddings)
    assert model.metadata == {
        "framework": "torch",
        "auc": 0.75,
        "rows": 60.0,
        "data_version": "2026-11-26",
        "base_model": "mini",
        "code_version": __version__,
        "image_tag": "0.1.0-abc1234",
    }


def test_what_a_backend_cannot_store_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITOWER_IMAGE", raising=False)
    dataset = artifact()
    describe(dataset, {"rows": None, "auc": float("nan"), "base_model": None, "texts": 0}, artifact(data_version=None))
    assert dataset.metadata == {"texts": 0, "code_version": __version__, "image_tag": ""}


def described(folder: Path, **metadata: Any) -> Dataset:
    """A folder as a step writes it, and its artifact."""
    with storage.atomic_directory(folder) as out:
        (out / "rows").write_text("1 2 3")
    return Dataset(uri=str(folder), metadata=metadata)


def test_a_location_tells_what_its_artifact_does_and_the_data_stays_whole(tmp_path: Path) -> None:
    features = described(tmp_path / "features", data_version="v1", rows=60, base_model="mini", auc=0.7)
    assert of(str(tmp_path / "features")) == of("") == of(str(tmp_path / "nowhere")) == {}
    assert hand_on(features, features.path) == str(tmp_path / "features")
    known = of(f"{tmp_path}/features/")
    assert known == {"data_version": "v1", "rows": 60, "base_model": "mini"}
    manifest.check(tmp_path / "features")
    assert manifest.read(tmp_path / "features").keys() == {"rows"}
    model = artifact()
    describe(model, {"rows": known.get("rows")}, of(""), known)
    assert (model.metadata["data_version"], model.metadata["base_model"], model.metadata["rows"]) == ("v1", "mini", 60)
    hand_on(described(tmp_path / "features", rows=3), str(tmp_path / "features"))
    assert of(str(tmp_path / "features")) == {"rows": 3}


def test_in_a_store_only_the_manifest_is_read_and_written(s3: str, tmp_path: Path) -> None:
    features = described(tmp_path / "features", data_version="v1", rows=60)
    storage.upload_tree(features.path, f"{s3}/features")
    features.uri = f"{s3}/features"
    assert hand_on(features, features.uri) == features.uri and of(features.uri) == {"data_version": "v1", "rows": 60}
    copy = storage.fetch(features.uri, tmp_path / "copy")
    assert of(str(copy)) == of(features.uri), "the notes go with the data"


def test_a_path_that_stands_for_a_location_is_handed_on_as_that_location(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = described(tmp_path / "scratch", rows=1)
    monkeypatch.setenv(ARTIFACTS, json.dumps({str(tmp_path / "scratch"): "s3://bucket/run/made"}))
    assert hand_on(made, made.path) == "s3://bucket/run/made" and of(made.path) == {"rows": 1}


@pytest.mark.parametrize("harm", ["", "{", "[]"])
def test_a_damaged_manifest_tells_nothing_and_is_left_to_the_check(tmp_path: Path, harm: str) -> None:
    made = described(tmp_path / "made", rows=1)
    (tmp_path / "made" / storage.MARK).write_text(harm)
    assert of(made.path) == {}
    hand_on(made, made.path)
    assert (tmp_path / "made" / storage.MARK).read_text() == harm
