"""The `tune` component as a plain call, with KFP's own artifacts and a real child process."""

import json
import sys
from pathlib import Path

import yaml
from kfp import compiler, dsl
from tritower.tuning.component import tune

TRAINER = Path(__file__).parents[1] / "support" / "trainer.py"


def test_returns_a_config_for_the_tuned_step(tmp_path):
    config = {  # as KFP sends it: numbers as floats
        "trials": 3.0,
        "space": [{"name": "rate", "kind": "double", "low": 0.001, "high": 0.1, "log": True}],
        "fixed": {"width": "128,64"},
        "command": [sys.executable, str(TRAINER), "--model={model}", "--metrics={metrics}", "--config={config}"],
    }
    outputs = {
        "best": dsl.Artifact(uri=str(tmp_path / "best.json"), metadata={}),
        "report": dsl.HTML(uri=str(tmp_path / "report.html"), metadata={}),
        "metrics": dsl.Metrics(uri=str(tmp_path / "metrics.json"), metadata={}),
    }
    inputs = {name: dsl.Dataset(uri=str(tmp_path / name)) for name in ("features", "embeddings")}
    knobs = tune.python_func(**inputs, **outputs, config=config)
    assert knobs["width"] == "128,64" and 0.001 <= float(knobs["rate"]) <= 0.1
    assert json.loads((tmp_path / "best.json").read_text())["knobs"] == knobs
    assert outputs["metrics"].metadata["trials"] == 3
    assert all(Path(artifact.path).is_file() for artifact in outputs.values())


def test_kfp_passes_the_best_knobs_on_as_a_parameter(tmp_path):
    compiler.Compiler().compile(tune, str(tmp_path / "tune.yaml"))
    outputs = yaml.safe_load((tmp_path / "tune.yaml").read_text())["components"]["comp-tune"]["outputDefinitions"]
    assert outputs["parameters"] == {"Output": {"parameterType": "STRUCT"}}
