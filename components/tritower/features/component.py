"""KFP interface of the feature step."""

from typing import Any, NamedTuple

from kfp.dsl import Dataset, Input, Output

from tritower._build import component, engine_image


@component(engine_image())
def features(
    dataset: Input[Dataset],
    embeddings: Input[Dataset],
    features: Output[Dataset],
    state: Output[Dataset],
    entities: Input[Dataset] = None,
    candidates: Input[Dataset] = None,
    previous_state: str = "",
    engine: str = "duckdb",
    config: dict[str, Any] = {},
) -> NamedTuple("Computed", [("features_at", str)]):  # type: ignore[valid-type]
    """Compute the point-in-time features of every impression, or of candidates: jobs that could be shown.

    The parameter `features_at` is the location of `features`, for steps that read it there.

    Args:
        dataset: The clean dataset that ingest wrote.
        embeddings: The text embeddings of that dataset.
        features: Features per split, with features.json describing each column. Its properties: rows, features and the
            share of missing values.
        state: Counters and histories after the last event, for the next run to continue from.
        entities: What the entities step found in that dataset; without it there are no entity features.
        candidates: Searches and the jobs to consider for each; their features, against the dataset's history, make up the one
            split `candidates`. Without it, the impressions are featurised.
        previous_state: Location of the `state` of an earlier run, to continue from; empty to start from nothing. Impressions
            that it has counted are skipped.
        engine: duckdb or spark, unless config says otherwise.
        config: Knobs of tritower.features.config.FeaturesConfig.
    """
    from tritower.config import from_dict
    from tritower.features import step
    from tritower.features.config import FeaturesConfig
    from tritower.properties import describe, hand_on

    places = {"dataset": dataset.path, "embeddings": embeddings.path, "features": features.path, "state_to": state.path}
    optional = {name: part.path for name, part in (("entities", entities), ("candidates", candidates)) if part}
    knobs = from_dict(FeaturesConfig, {"engine": engine, **config})
    numbers = step.run(**places, **optional, previous=previous_state, config=knobs, store=features.uri)
    describe(features, numbers, dataset, embeddings)
    describe(state, {}, dataset, embeddings)
    return (hand_on(features, features.path),)
