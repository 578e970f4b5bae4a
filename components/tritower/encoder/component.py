"""KFP interface of the encoder: fine-tune it on clicks, embed every text with it."""

from typing import Any, Optional

from kfp.dsl import Dataset, Input, Model, Output

from tritower._build import component


@component("train")
def embed(
    dataset: Input[Dataset],
    embeddings: Output[Dataset],
    encoder: Optional[Input[Model]] = None,  # noqa: UP045 - kfp understands no `X | None`
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

    counts = step.embed(
        dataset=dataset.path,
        embeddings=embeddings.path,
        config=from_dict(EmbedConfig, config),
        encoder=encoder.path if encoder else "",
    )
    embeddings.metadata.update(counts)
