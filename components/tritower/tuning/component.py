"""KFP interface of the search on one machine."""

from typing import Any

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Output

from tritower._build import component


@component("train")
def tune(
    features: Input[Dataset],
    embeddings: Input[Dataset],
    best: Output[Artifact],
    report: Output[HTML],
    metrics: Output[Metrics],
    config: dict[str, Any] = {},
    fixed: dict[str, Any] = {},
) -> dict[str, Any]:
    """Search the ranker's knobs with Optuna in this step; the output is the best config for the ranker.

    Args:
        features: Output of the features step.
        embeddings: Output of the embed step.
        best: The best knobs and every trial, as JSON.
        report: History, parallel coordinates and the trials.
        metrics: Best metric, the defaults' metric, numbers of trials.
        config: Knobs of TuningConfig.
        fixed: Knobs of the ranker that every trial has, and the best config keeps; those of `config["fixed"]` come before them.
    """
    from tritower.config import from_dict
    from tritower.storage import write_json
    from tritower.tuning import step
    from tritower.tuning.config import TuningConfig

    knobs = from_dict(TuningConfig, {**config, "fixed": {**fixed, **(config.get("fixed") or {})}}, where="tune_config")
    numbers = step.run(features=features.path, embeddings=embeddings.path, best=best.path, report=report.path, config=knobs)
    for name, value in numbers.items():
        metrics.log_metric(name, value)
    write_json(metrics.path, numbers)
    return step.knobs(best.path)
