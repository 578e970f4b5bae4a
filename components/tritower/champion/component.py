"""KFP interface of the champion: find it, fetch it, record what a run leaves."""

from typing import NamedTuple

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from tritower._build import component


@component("base")
def resolve(champion: str = "", ranker_model: str = "", encoder: str = "", state: str = "") -> NamedTuple(  # type: ignore[valid-type]
    "Resolved", ranker_model=str, encoder=str, state=str, version=int
):
    """Say which model to work with and which state to continue from: those given, else what the pointer names.

    Args:
        champion: Root of the pointer (champion.json); empty where none is kept.
        ranker_model: Location of a ranker, in place of the pointer's champion.
        encoder: Location of the text encoder that it was trained with.
        state: Location of a state, in place of the pointer's.
    """
    from tritower.champion import step

    return step.resolve(root=champion, ranker_model=ranker_model, encoder=encoder, state=state)


@component("base")
def fetch(ranker_model_at: str, encoder_at: str, ranker_model: Output[Model], encoder: Output[Model]) -> NamedTuple(  # type: ignore[valid-type]
    "Fetched", encoder_copy_at=str
):
    """Copy a ranker and its encoder into this run; the parameter `encoder_copy_at` is where the encoder then is.

    Args:
        ranker_model_at: Location of the ranker.
        encoder_at: Location of the text encoder that it was trained with.
        ranker_model: The ranker.
        encoder: The text encoder.
    """
    from tritower import storage
    from tritower.champion import step

    places = {"ranker_model": ranker_model.path, "encoder": encoder.path}
    step.fetch(ranker_model_at=ranker_model_at, encoder_at=encoder_at, **places)
    return (storage.located(encoder.uri),)


@component("base")
def record(
    state: Input[Dataset],
    champion: str = "",
    version: int = 0,
    gate: str = "",
    ranker_model: Input[Model] = None,
    encoder: Input[Model] = None,
    metrics: Input[Metrics] = None,
    run: str = "",
    data_version: str = "",
) -> str:
    """Move the pointer to what this run leaves: a model that passed the gate with its state, or the state alone.

    Args:
        state: Counters and histories after the last event.
        champion: Root of the pointer; empty where none is kept.
        version: Version of the champion that the run worked with or was compared with; 0 for none.
        gate: "pass" or "hold" of a training; empty for a run that trains nothing.
        ranker_model: The trained ranker.
        encoder: The text encoder that it was trained with.
        metrics: The headline metrics of its evaluation.
        run: Id of the run.
        data_version: Version of the data that it was trained on.
    """
    from tritower.champion import step

    about = {"run": run, "data_version": data_version, "auc": metrics.metadata.get("auc") if metrics else None}
    models = {"ranker_model": ranker_model, "encoder": encoder}
    return step.record(root=champion, state=state, gate=gate, version=version, about=about, **models)
