"""KFP interface of the search on one machine."""

from typing import Any, NamedTuple

from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Output

from tritower._build import component


@component("train")
def tune(
    features: Input[Dataset],
    embeddings: Input[Dataset],
    tune_trials: Output[Artifact],
    tune_report: Output[HTML],
    tune_metrics: Output[Metrics],
    ranker_epochs: int = 0,
    ranker_members: int = 0,
    config: dict[str, Any] = {},
    fixed: dict[str, Any] = {},
) -> NamedTuple("Found", [("ranker_settings", dict)]):  # type: ignore[valid-type]
    """Search the ranker's knobs with Optuna in this step; the parameter `ranker_settings` is the best config for the ranker.

    Args:
        features: Output of the features step.
        embeddings: Output of the embed step.
        tune_trials: The best knobs and every trial, as JSON.
        tune_report: History, parallel coordinates and the trials.
        tune_metrics: Best metric, the defaults' metric, numbers of trials.
        ranker_epochs: The ranker's epochs, unless they are searched or in `fixed`; 0 for its default.
        ranker_members: The ranker's members, likewise.
        config: Knobs of TuningConfig.
        fixed: Knobs of the ranker that every trial has, and the best config keeps; those of `config["fixed"]` come before them.
    """
    from tritower.config import from_dict
    from tritower.storage import write_json
    from tritower.tuning import step
    from tritower.tuning.config import TuningConfig

    plain = {"epochs": ranker_epochs, "members": ranker_members}
    knobs = step.with_plain(from_dict(TuningConfig, config, where="settings_tune"), fixed, plain)
    places = {"features": features.path, "embeddings": embeddings.path, "best": tune_trials.path, "report": tune_report.path}
    numbers = step.run(**places, config=knobs, artifact_uri=tune_trials.uri)
    for name, value in numbers.items():
        tune_metrics.log_metric(name, value)
    write_json(tune_metrics.path, numbers)
    return (step.knobs(tune_trials.path),)
