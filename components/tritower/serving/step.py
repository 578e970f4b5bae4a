"""Make the bundle that a model server loads of what the steps of one training run wrote."""

import logging
from pathlib import Path

from tritower.logs import phase

logger = logging.getLogger(__name__)


def bundle(
    *,
    model: str | Path,
    encoder: str | Path,
    dataset: str | Path,
    embeddings: str | Path,
    features: str | Path,
    out: str | Path,
    entities: str | Path = "",
    state: str | Path = "",
    baseline: str | Path = "",
) -> dict[str, str | int]:
    """Write a bundle; its version, and its bytes.

    Args:
        model: folder of the ranker.
        encoder: folder of the text encoder, as finetune wrote it.
        dataset: folder that ingest wrote.
        embeddings: folder of the vectors of its texts.
        features: folder of the features that the model was trained on, with the state after the last event.
        out: folder to write.
        entities: folder of the texts' entities; empty where the features have none.
        state: folder of the state after the last event; empty for that of `features`.
        baseline: folder of an XGBoost baseline (standard or cosines) whose order the page shows beside; empty for none.

    Raises:
        ArtifactError: the folders are not of one run, an export differs from torch, or no server can compute the baseline.
    """
    from tritower.serving import bundling

    sources = bundling.Sources(
        model=Path(model), encoder=Path(encoder), dataset=Path(dataset), embeddings=Path(embeddings), features=Path(features),
        entities=Path(entities) if entities else None, state=Path(state) if state else None,
        baseline=Path(baseline) if baseline else None,
    )  # fmt: skip
    with phase(logger, "bundle") as counts:
        made = bundling.write(sources, Path(out))
        counts["bytes"] = sum(int(file["bytes"]) for part in made.parts.values() for file in part.files.values())
    return {"version": made.sha256, "bytes": counts["bytes"]}
