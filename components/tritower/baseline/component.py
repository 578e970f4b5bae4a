"""KFP interface of the XGBoost baselines."""

from typing import Any

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from tritower._build import component


@component("base")
def baseline(
    features: Input[Dataset],
    embeddings: Input[Dataset],
    model: Output[Model],
    scores: Output[Dataset],
    metrics: Output[Metrics],
    variant: str = "standard",
    config: dict[str, Any] = {},
) -> None:
    """Train an XGBoost rival and score every split but the training one.

    Args:
        features: Output of the features step.
        embeddings: Output of the embed step.
        model: XGBoost model (UBJSON) with settings, trials and feature importances.
        scores: Probability of a click per row.
        metrics: Validation AUC, rounds and sizes.
        variant: standard, cosines or full.
        config: Knobs of BaselineConfig.
    """
    from tritower.baseline import step
    from tritower.baseline.config import BaselineConfig
    from tritower.config import from_dict
    from tritower.storage import write_json

    knobs = from_dict(BaselineConfig, {**config, "variant": variant}, where="baseline_config")
    numbers = step.run(features=features.path, embeddings=embeddings.path, model=model.path, scores=scores.path, config=knobs)
    for name, value in numbers.items():
        metrics.log_metric(name, value)
    write_json(metrics.path, numbers)
