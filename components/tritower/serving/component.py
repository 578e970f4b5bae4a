"""KFP interface of serving: what a model server loads, made of a training run's outputs."""

from typing import NamedTuple

from kfp.dsl import Dataset, Input, Model, Output

from tritower._build import component


@component("train")
def bundle(
    dataset: Input[Dataset],
    embeddings: Input[Dataset],
    features: Input[Dataset],
    ranker_model: Input[Model],
    encoder: Input[Model],
    state: Input[Dataset],
    bundle: Output[Model],
    entities: Input[Dataset] = None,
    baseline: Input[Model] = None,
) -> NamedTuple("Bundled", bundle_at=str):  # type: ignore[valid-type]
    """Make the bundle that a model server loads; the parameter `bundle_at` is where it then is.

    Args:
        dataset: Output of the ingest step.
        embeddings: Embeddings of its texts.
        features: Features that the model was trained on.
        ranker_model: The trained ranker.
        encoder: The text encoder that it was trained with.
        state: The features' counters and histories after the last event.
        bundle: Model, encoder, catalogue, index and state under one manifest, without torch.
        entities: What was found in the dataset's texts, where the features know of it.
        baseline: An XGBoost baseline, standard or cosines, whose order the page shows beside the model's.
    """
    from tritower import storage
    from tritower.serving import step

    places = {"dataset": dataset.path, "embeddings": embeddings.path, "features": features.path}
    places |= {"model": ranker_model.path, "encoder": encoder.path, "state": state.path}
    places |= {"entities": entities.path if entities else "", "baseline": baseline.path if baseline else ""}
    bundle.metadata.update(step.bundle(**places, out=bundle.path))
    return (storage.located(bundle.uri),)
