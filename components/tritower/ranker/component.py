"""KFP interface of the ranker: `ranker` trains, `score` applies a trained model."""

from typing import Any

from kfp.dsl import Dataset, Input, Metrics, Model, Output, TaskConfig

from tritower._build import component


@component("train", launched=True)
def ranker(
    features: str,
    embeddings: str,
    ranker_model: Output[Model],
    ranker_scores: Output[Dataset],
    ranker_metrics: Output[Metrics],
    ranker_epochs: int = 6,
    ranker_members: int = 3,
    config: dict[str, Any] = {},
    launcher: str = "local",
    cluster: dict[str, Any] = {},
    task: TaskConfig = None,
) -> None:
    """Train the triple tower network and score the validation and the test split.

    Args:
        features: location of the features step's output, with the splits train, validation and test.
        embeddings: location of the encoder's matrix of text embeddings.
        ranker_model: weights (safetensors), config, feature list, normaliser, metrics and model card.
        ranker_scores: scores/validation.parquet and scores/test.parquet.
        ranker_metrics: validation figures, throughput and epochs.
        ranker_epochs: passes over the rows at most.
        ranker_members: networks that are trained and averaged.
        config: knobs of RankerConfig; they win over the two above where they name the same.
        launcher: where it trains: local (in this step's pod), or pytorchjob or trainjob (in pods that read and write the run's
            store).
        cluster: settings of ClusterConfig for the latter.
        task: what the pipeline gives this step's pod; the backend fills it in, and the pods of a job get it, too.
    """
    from tritower import properties, storage
    from tritower.config import from_dict
    from tritower.jobs import location, settings
    from tritower.ranker import launching
    from tritower.ranker.config import RankerConfig

    plain = {"training.epochs": ranker_epochs, "training.members": ranker_members}
    knobs = from_dict(RankerConfig, config, plain=plain)
    known = [properties.of(place) for place in (features, embeddings)]
    places = {"features": features, "embeddings": embeddings, "model": location(ranker_model, launcher)}
    places["scores"] = location(ranker_scores, launcher)
    own = settings(cluster, task)
    figures = launching.train(**places, config=knobs, artifact_uri=ranker_model.uri, launcher=launcher, cluster=own)
    for name, value in figures.items():
        ranker_metrics.log_metric(name, value)
    storage.write_json(ranker_metrics.path, figures)
    found = {"auc": figures["validation_auc"], "rows": known[0].get("rows")}
    properties.describe(ranker_model, found, *known)
    properties.describe(ranker_scores, found, *known)


@component("train")
def score(features: Input[Dataset], embeddings: Input[Dataset], model: Input[Model], scores: Output[Dataset]) -> None:
    """Score every split of a features folder, `candidates` included, with a trained model.

    Args:
        features: the features step's output.
        embeddings: the matrix of the encoder that the model was trained with.
        model: the ranker's model.
        scores: scores/<split>.parquet.
    """
    from tritower.properties import describe
    from tritower.ranker import step

    step.score(features=features.path, embeddings=embeddings.path, model=model.path, scores=scores.path)
    describe(scores, {"rows": features.metadata.get("rows")}, features, embeddings)
