from types import SimpleNamespace

import pytest
from tritower import __version__
from tritower.properties import describe


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
