"""The `tune` component as a plain call, with KFP's own artifacts and real trials of the ranker."""

import json
from pathlib import Path

import yaml
from kfp import compiler, dsl
from tritower.tuning.component import tune

from tests.support.ranker_log import write_log


def test_returns_a_config_for_the_ranker(tmp_path):
    log = write_log(tmp_path, requests={"train": 100, "validation": 50})
    config = {  # as KFP sends it: numbers as floats
        "trials": 1.0,
        "space": [{"name": "learning_rate", "kind": "double", "low": 0.003, "high": 0.01, "log": True}],
        "fixed": {"epochs": 2.0, "batch_size": 64.0},
    }
    outputs = {
        "tune_trials": dsl.Artifact(uri=str(tmp_path / "best.json"), metadata={}),
        "tune_report": dsl.HTML(uri=str(tmp_path / "report.html"), metadata={}),
        "tune_metrics": dsl.Metrics(uri=str(tmp_path / "metrics.json"), metadata={}),
    }
    inputs = {"features": str(log.features), "embeddings": str(log.embeddings)}
    (knobs,) = tune.python_func(**inputs, **outputs, config=config)
    found = knobs.pop("learning_rate", None)  # no knob where the trial was no better than the default
    assert knobs == config["fixed"] and (found is None or 0.003 <= float(found) <= 0.01)
    knobs |= {"learning_rate": found} if found else {}
    assert json.loads((tmp_path / "best.json").read_text())["knobs"] == knobs
    assert outputs["tune_metrics"].metadata["trials"] == 1
    assert all(Path(artifact.path).is_file() for artifact in outputs.values())


def test_kfp_passes_the_best_knobs_on_as_a_parameter(tmp_path):
    compiler.Compiler().compile(tune, str(tmp_path / "tune.yaml"))
    outputs = yaml.safe_load((tmp_path / "tune.yaml").read_text())["components"]["comp-tune"]["outputDefinitions"]
    assert outputs["parameters"] == {"ranker_settings": {"parameterType": "STRUCT"}}
