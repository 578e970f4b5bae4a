"""KFP interface of the feature step."""

from typing import Any, Optional

from kfp.dsl import Dataset, Input, Metrics, Output

from tritower._build import component


@component("base")
def features(
    dataset: Input[Dataset],
    embeddings: Input[Dataset],
    features: Output[Dataset],
    metrics: Output[Metrics],
    entities: Optional[Input[Dataset]] = None,  # noqa: UP045 - KFP reads Optional, not `| None`
    config: dict[str, Any] = {},
) -> None:
    """Compute the point-in-time features of every impression.

    Args:
        dataset: The clean dataset that ingest wrote.
        embeddings: The text embeddings of that dataset.
        features: Features per split, with features.json describing each column.
        metrics: Rows, features and the share of missing values.
        entities: What the entities step found in that dataset; without it there are no entity features.
        config: Knobs of tritower.features.config.FeaturesConfig.
    """
    from tritower.config import from_dict
    from tritower.features import step
    from tritower.features.config import FeaturesConfig
    from tritower.storage import write_json

    numbers = step.run(
        dataset=dataset.path,
        embeddings=embeddings.path,
        features=features.path,
        entities=entities.path if entities else None,
        config=from_dict(FeaturesConfig, config),
    )
    metrics.metadata.update(numbers)
    write_json(metrics.path, numbers)


@component("base")
def candidate_features(
    dataset: Input[Dataset],
    embeddings: Input[Dataset],
    candidates: Input[Dataset],
    features: Output[Dataset],
    metrics: Output[Metrics],
    entities: Optional[Input[Dataset]] = None,  # noqa: UP045 - KFP reads Optional, not `| None`
    config: dict[str, Any] = {},
) -> None:
    """Compute the features of candidates, jobs that could be shown, against the history of the dataset.

    Args:
        dataset: The clean dataset that ingest wrote.
        embeddings: The text embeddings of that dataset.
        candidates: Searches and the jobs to consider for each.
        features: Features of the split `candidates`.
        metrics: Rows, features and the share of missing values.
        entities: What the entities step found in that dataset; without it there are no entity features.
        config: Knobs of tritower.features.config.FeaturesConfig.
    """
    from tritower.config import from_dict
    from tritower.features import step
    from tritower.features.config import FeaturesConfig
    from tritower.storage import write_json

    numbers = step.run(
        dataset=dataset.path,
        embeddings=embeddings.path,
        features=features.path,
        entities=entities.path if entities else None,
        config=from_dict(FeaturesConfig, config),
        candidates=candidates.path,
    )
    metrics.metadata.update(numbers)
    write_json(metrics.path, numbers)
