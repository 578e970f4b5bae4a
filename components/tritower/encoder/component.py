"""KFP interface of the encoder: fine-tune it on clicks, embed every text with it."""

from typing import Any

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from tritower._build import component


@component("train")
def embed(
    dataset: Input[Dataset],
    embeddings: Output[Dataset],
    encoder: Input[Model] = None,
    config: dict[str, Any] = {},
) -> None:
    """Embed every distinct text of a dataset once.

    Args:
        dataset: the clean dataset that ingest wrote.
        embeddings: matrix.npy (float16, one normalised row per text) and encoder.json.
        encoder: the model to use, as `finetune` writes it; the one that `config["model"]` names where it is left out.
        config: knobs of `tritower.encoder.config.EmbedConfig`.
    """
    from tritower.config import from_dict
    from tritower.encoder import step
    from tritower.encoder.config import EmbedConfig
    from tritower.properties import describe

    settings = from_dict(EmbedConfig, config)
    places = {"dataset": dataset.path, "embeddings": embeddings.path, "encoder": encoder.path if encoder else ""}
    counts = step.embed(**places, config=settings, artifact_uri=embeddings.uri)
    own = {} if encoder else {"base_model": settings.model}
    describe(embeddings, {**own, **counts}, dataset, encoder)


@component("train")
def finetune(
    dataset: Input[Dataset],
    encoder: Output[Model],
    finetune_report: Output[HTML],
    finetune_metrics: Output[Metrics],
    finetune_epochs: int = 1,
    finetune_max_clicks: int = 0,
    config: dict[str, Any] = {},
) -> None:
    """Fine-tune the text encoder on the clicks of the train window, and keep the better of old and new.

    Args:
        dataset: the clean dataset that ingest wrote.
        encoder: a sentence-transformers model in safetensors. With `config["epochs"]` 0, the base model unchanged.
        finetune_report: figures before and after, the loss, a map of documents and nearest neighbours.
        finetune_metrics: whether the fine-tuned encoder was kept, and the main figures before and after; the file has them all.
        finetune_epochs: passes over the clicks; 0 keeps the base model.
        finetune_max_clicks: clicks to train on, drawn evenly; 0 for all.
        config: knobs of `tritower.encoder.config.FinetuneConfig`; they win over the two above where they name the same.
    """
    from tritower.config import from_dict
    from tritower.encoder import step
    from tritower.encoder.config import FinetuneConfig
    from tritower.properties import describe

    settings = from_dict(FinetuneConfig, config, plain={"epochs": finetune_epochs, "max_clicks": finetune_max_clicks})
    places = {"model": encoder.path, "report": finetune_report.path, "metrics": finetune_metrics.path}
    numbers = step.finetune(dataset=dataset.path, **places, config=settings, artifact_uri=encoder.uri)
    for name, value in step.headline(numbers).items():
        finetune_metrics.log_metric(name, value)
    kept = "after" if numbers.get("accepted") else "before"
    describe(encoder, {"base_model": settings.model, "auc": numbers.get(f"{kept}_auc_shown")}, dataset)
