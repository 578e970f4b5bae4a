"""KFP interface of the search."""

from typing import Any, NamedTuple

from kfp.dsl import HTML, Artifact, Metrics, Output, TaskConfig

from tritower._build import component


@component("train", launched=True)
def tune(
    features: str,
    embeddings: str,
    tune_trials: Output[Artifact],
    tune_report: Output[HTML],
    tune_metrics: Output[Metrics],
    ranker_epochs: int = 0,
    ranker_members: int = 0,
    config: dict[str, Any] = {},
    fixed: dict[str, Any] = {},
    launcher: str = "local",
    cluster: dict[str, Any] = {},
    task: TaskConfig = None,
) -> NamedTuple("Found", [("ranker_settings", dict)]):  # type: ignore[valid-type]
    """Search the ranker's knobs; the parameter `ranker_settings` is the best config for the ranker.

    Args:
        features: Location of the features step's output.
        embeddings: Location of the embed step's output.
        tune_trials: The best knobs and every trial, as JSON.
        tune_report: History, parallel coordinates and the trials.
        tune_metrics: Best metric, the defaults' metric, numbers of trials.
        ranker_epochs: The ranker's epochs, unless they are searched or in `fixed`; 0 for its default.
        ranker_members: The ranker's members, likewise.
        config: Knobs of TuningConfig.
        fixed: Knobs of the ranker that every trial has, and the best config keeps; those of `config["fixed"]` come before them.
        launcher: Where the trials run: local (by Optuna in this step's pod), katib or pytorchjob (an Experiment of PyTorchJobs,
            which read the run's store).
        cluster: Settings of ClusterConfig for the latter.
        task: What the pipeline gives this step's pod; the backend fills it in, and the pods of trials get it, too.
    """
    from tritower.config import from_dict
    from tritower.jobs import settings
    from tritower.storage import write_json
    from tritower.tuning import step
    from tritower.tuning.config import TuningConfig

    plain = {"epochs": ranker_epochs, "members": ranker_members}
    knobs = step.with_plain(from_dict(TuningConfig, config, where="settings_tune"), fixed, plain)
    read = {"features": features, "embeddings": embeddings}
    written = {"best": tune_trials.path, "report": tune_report.path, "artifact_uri": tune_trials.uri}
    numbers = step.run(**read, **written, config=knobs, launcher=launcher, cluster=settings(cluster, task))
    for name, value in numbers.items():
        tune_metrics.log_metric(name, value)
    write_json(tune_metrics.path, numbers)
    return (step.knobs(tune_trials.path),)
