"""KFP interface of the encoder: fine-tune it on clicks, embed every text with it."""

from typing import Any, NamedTuple

from kfp.dsl import HTML, Dataset, Metrics, Model, Output, TaskConfig

from tritower._build import component


@component("train", launched=True)
def embed(
    dataset: str,
    embeddings: Output[Dataset],
    encoder: str = "",
    config: dict[str, Any] = {},
    launcher: str = "local",
    cluster: dict[str, Any] = {},
    task: TaskConfig = None,
) -> NamedTuple("Embedded", [("embeddings_at", str)]):  # type: ignore[valid-type]
    """Embed every distinct text of a dataset once; the parameter `embeddings_at` is the location of `embeddings`.

    Args:
        dataset: location of the clean dataset that ingest wrote.
        embeddings: matrix.npy (float16, one normalised row per text) and encoder.json.
        encoder: location of the model to use, as `finetune` writes it; empty for the one that `config["model"]` names.
        config: knobs of `tritower.encoder.config.EmbedConfig`.
        launcher: where it embeds: local (in this step's pod), or pytorchjob or trainjob (in pods that read and write the run's
            store).
        cluster: settings of ClusterConfig for the latter.
        task: what the pipeline gives this step's pod; the backend fills it in, and the pods of a job get it, too.
    """
    from tritower import properties
    from tritower.config import from_dict
    from tritower.encoder import launching
    from tritower.encoder.config import EmbedConfig
    from tritower.jobs import location, settings

    knobs = from_dict(EmbedConfig, config)
    known = [properties.of(place) for place in (dataset, encoder)]
    places = {"dataset": dataset, "encoder": encoder, "embeddings": location(embeddings, launcher), "launcher": launcher}
    pods = settings(cluster, task)
    counts = launching.embed(**places, config=knobs, artifact_uri=embeddings.uri, cluster=pods)
    own = {} if encoder else {"base_model": knobs.model}
    properties.describe(embeddings, {**own, **counts}, *known)
    return (properties.hand_on(embeddings, places["embeddings"]),)


@component("train", launched=True)
def finetune(
    dataset: str,
    encoder: Output[Model],
    finetune_report: Output[HTML],
    finetune_metrics: Output[Metrics],
    finetune_epochs: int = 1,
    finetune_max_clicks: int = 0,
    config: dict[str, Any] = {},
    launcher: str = "local",
    cluster: dict[str, Any] = {},
    task: TaskConfig = None,
) -> NamedTuple("Finetuned", [("encoder_at", str)]):  # type: ignore[valid-type]
    """Fine-tune the text encoder on the clicks of the train window, and keep the better of old and new.

    The parameter `encoder_at` is the location of `encoder`, for steps that read it there.

    Args:
        dataset: location of the clean dataset that ingest wrote.
        encoder: a sentence-transformers model in safetensors. With `config["epochs"]` 0, the base model unchanged.
        finetune_report: figures before and after, the loss, a map of documents and nearest neighbours.
        finetune_metrics: whether the fine-tuned encoder was kept, and the main figures before and after; the file has them all.
        finetune_epochs: passes over the clicks; 0 keeps the base model.
        finetune_max_clicks: clicks to train on, drawn evenly; 0 for all.
        config: knobs of `tritower.encoder.config.FinetuneConfig`; they win over the two above where they name the same.
        launcher: where it trains: local (in this step's pod), or pytorchjob or trainjob (in pods that read and write the run's
            store).
        cluster: settings of ClusterConfig for the latter.
        task: what the pipeline gives this step's pod; the backend fills it in, and the pods of a job get it, too.
    """
    from tritower import properties, storage
    from tritower.config import from_dict
    from tritower.encoder import launching
    from tritower.encoder.config import FinetuneConfig
    from tritower.jobs import location, settings

    knobs = from_dict(FinetuneConfig, config, plain={"epochs": finetune_epochs, "max_clicks": finetune_max_clicks})
    known = properties.of(dataset)
    places = {"dataset": dataset, "model": location(encoder, launcher), "report": location(finetune_report, launcher)}
    pods = settings(cluster, task)
    numbers = launching.finetune(**places, config=knobs, artifact_uri=encoder.uri, launcher=launcher, cluster=pods)
    storage.write_json(finetune_metrics.path, numbers)
    for name, value in launching.headline(numbers).items():
        finetune_metrics.log_metric(name, value)
    kept = "after" if numbers.get("accepted") else "before"
    properties.describe(encoder, {"base_model": knobs.model, "auc": numbers.get(f"{kept}_auc_shown")}, known)
    return (properties.hand_on(encoder, places["model"]),)
