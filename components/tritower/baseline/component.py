"""KFP interface of the XGBoost baselines."""

from typing import Any

from kfp.dsl import Dataset, Input, Model, Output

from tritower._build import component


@component("base")
def baseline(
    features: Input[Dataset],
    embeddings: Input[Dataset],
    baseline_model: Output[Model],
    baseline_scores: Output[Dataset],
    variant: str = "standard",
    config: dict[str, Any] = {},
) -> None:
    """Train an XGBoost rival and score every split but the training one.

    Args:
        features: Output of the features step.
        embeddings: Output of the embed step.
        baseline_model: XGBoost model (UBJSON) with settings, trials and feature importances. Its properties: validation AUC,
            rounds and sizes.
        baseline_scores: Probability of a click per row.
        variant: standard, cosines or full.
        config: Knobs of BaselineConfig.
    """
    from tritower.baseline import step
    from tritower.baseline.config import BaselineConfig
    from tritower.config import from_dict
    from tritower.properties import describe

    knobs = from_dict(BaselineConfig, {**config, "variant": variant}, where="settings_baseline")
    places = {"features": features.path, "embeddings": embeddings.path}
    numbers = step.run(**places, model=baseline_model.path, scores=baseline_scores.path, config=knobs)
    describe(baseline_model, {"auc": numbers["validation_auc"], **numbers}, features, embeddings)
    describe(baseline_scores, {"auc": numbers["validation_auc"]}, features, embeddings)
