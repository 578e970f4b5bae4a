"""The `evaluation` component as a plain call, with KFP's own artifacts."""

import json
from pathlib import Path

import pytest
from kfp import dsl
from tritower.evaluation.component import evaluation

from tests.support import evaluation_log


@pytest.fixture
def outputs(tmp_path):
    """The component's four output artifacts."""
    kinds = {"report": dsl.HTML, "metrics": dsl.Metrics, "roc": dsl.ClassificationMetrics, "summary": dsl.Markdown}
    return {name: kind(name=name, uri=str(tmp_path / name), metadata={}) for name, kind in kinds.items()}


def test_writes_a_file_at_every_output_and_returns_the_gates_word_and_reason(tmp_path, outputs):
    root = evaluation_log.write_log(tmp_path / "log", requests=600)
    names = {"scores": "model", "scores_baseline": "baseline", "scores_baseline_cos": "baseline_cos"}
    inputs = {name: dsl.Dataset(uri=str(root / folder)) for name, folder in names.items()}
    inputs |= {name: dsl.Dataset(uri=str(root / name)) for name in ("dataset", "features")}
    word, reason = evaluation.python_func(**inputs, **outputs, truth=str(root / "truth"), config={"bins": 10.0})
    assert word in ("pass", "hold")
    assert all(Path(artifact.path).is_file() for artifact in outputs.values())  # the local runner's cache asks for it
    document = json.loads(Path(outputs["metrics"].path).read_text())
    assert document["gate"]["word"] == word
    assert reason and document["gate"]["reasons"][0] == reason
    assert outputs["metrics"].metadata["auc"] == document["randomised"]["model"]["auc"]
    assert len(outputs["metrics"].metadata) <= 10  # a backend's page shows ten
    points = outputs["roc"].metadata["confidenceMetrics"]
    assert len(points) <= 50
    assert points[0]["falsePositiveRate"] == 0 and points[-1]["recall"] == 1


def test_signature_seen_by_kfp():
    spec = evaluation.component_spec
    assert (spec.outputs["gate"].type, spec.outputs["gate_reason"].type) == ("String", "String")
    rivals = {name for name, given in spec.inputs.items() if name.startswith("scores_") and given.optional}
    assert rivals == {"scores_baseline", "scores_baseline_cos", "scores_baseline_full", "scores_champion"}
    assert not spec.inputs["scores"].optional
