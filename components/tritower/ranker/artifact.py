"""The model folder: everything needed to score with the model, and to know what it is.

config.json        knobs of RankerConfig, nested; flat in folders of earlier versions
features.json      {"features": [names in column order], "normaliser": kind, "examination": [by position, 1 first]}
model.safetensors  per member N: N.relevance.* (towers, head), N.bias.weight; for all of them: normaliser.knot (F, K) float64,
                   normaliser.value (F, K) float32
encoder.json       the encoder's description; its hash must equal that of the embeddings scored with
metrics.json       validation figures, steps, seconds
MODEL_CARD.md      the same for readers
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tritower import storage
from tritower.config import from_dict, to_dict
from tritower.errors import ArtifactError, ConfigError
from tritower.ranker import rows
from tritower.ranker.config import RankerConfig
from tritower.ranker.network import ClickModel, examination
from tritower.ranker.normaliser import Normaliser
from tritower.storage import manifest

Metrics = dict[str, float]


@dataclass(frozen=True)
class Artifact:
    """A trained model with its normaliser, features and encoder."""

    config: RankerConfig
    names: list[str]
    encoder: dict[str, Any]
    normaliser: Normaliser
    members: list[ClickModel]

    def examination(self) -> list[float]:
        """Mean examination probability of positions 1, 2, ... over the members; empty without position bias."""
        curves = [examination(member) for member in self.members]
        return [sum(values) / len(values) for values in zip(*curves, strict=True)]

    def expect(self, *, names: list[str], encoder: dict[str, Any], where: str) -> None:
        """Check that data fits the model.

        Raises:
            ArtifactError: other features, or embeddings of another encoder.
        """
        if names != self.names:
            differ = sorted(set(names) ^ set(self.names))
            raise ArtifactError(
                f"the features are not the model's: {', '.join(differ) if differ else 'another order'}",
                where=where,
                remedy="Compute them with the configuration the model was trained with, or train again.",
            )
        rows.expect_encoder(encoder, self.encoder, where)


def save(folder: Path, artifact: Artifact, metrics: Metrics) -> None:
    """Write the model folder, whole or not at all."""
    tensors = {
        f"{number}.{name}": value.contiguous()
        for number, member in enumerate(artifact.members)
        for name, value in member.cpu().eval().state_dict().items()
    }
    tensors["normaliser.knot"] = torch.from_numpy(artifact.normaliser.knot_FK)
    tensors["normaliser.value"] = torch.from_numpy(artifact.normaliser.value_FK)
    seen = artifact.examination()
    with storage.atomic_directory(folder) as out:
        storage.write_json(out / "config.json", to_dict(artifact.config))
        features = {"features": artifact.names, "normaliser": artifact.config.training.normaliser, "examination": seen}
        storage.write_json(out / "features.json", features)
        save_file(tensors, out / "model.safetensors")
        storage.write_json(out / "encoder.json", artifact.encoder)
        storage.write_json(out / "metrics.json", metrics)
        (out / "MODEL_CARD.md").write_text(_card(artifact, metrics, seen), encoding="utf-8")


def load(folder: Path) -> Artifact:
    """Read a model folder, and check that it is what was written and that its parts belong together.

    Raises:
        StorageError: a file is missing, not JSON, or this user may not read it.
        ArtifactError: the folder was changed; the model has a part that this version lacks; weights, features and config do not
            fit each other; a weight is not finite.
    """
    return manifest.whole(folder, _load)


def _load(folder: Path) -> Artifact:
    knobs = storage.read_json(folder / "config.json")
    try:
        config = from_dict(RankerConfig, knobs, where=str(folder / "config.json"))
    except ConfigError as error:
        raise ArtifactError(
            f"this version cannot read the model: {error.problem}", where=error.where, remedy="Train again."
        ) from error
    names = storage.read_json(folder / "features.json")["features"]
    encoder = storage.read_json(folder / "encoder.json")
    members = [ClickModel(config.network, dim=int(encoder["dim"]), features=len(names)) for _ in range(config.training.members)]
    weights = folder / "model.safetensors"
    try:
        weights.open("rb").close()  # safetensors says that a file which may not be read is not there
        tensors = load_file(weights)
        if "dropout" in knobs:
            tensors = {_renumbered(name): value for name, value in tensors.items()}
        normaliser = Normaliser(tensors.pop("normaliser.knot").numpy(), tensors.pop("normaliser.value").numpy())
        for number, member in enumerate(members):
            prefix = f"{number}."
            own = {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}
            member.load_state_dict(own)
            member.eval()
        if tensors:
            raise KeyError(f"no place for {min(tensors)}")
    except (SafetensorError, FileNotFoundError, KeyError, RuntimeError) as error:
        raise ArtifactError(
            f"the weights do not fit the model's config and features: {str(error).splitlines()[0]}",
            where=str(weights),
            remedy="Train again, or restore the whole folder from one training.",
        ) from error
    for number, member in enumerate(members):
        if broken := next((name for name, value in member.state_dict().items() if not value.isfinite().all()), ""):
            raise ArtifactError(
                f"the weights {broken!r} of network {number + 1} are not finite",
                where=str(weights),
                remedy="Train again with a lower learning_rate, or restore the whole folder from one training.",
            )
    if len(normaliser.knot_FK) != len(names):
        raise ArtifactError(
            f"{len(normaliser.knot_FK)} normalised features, {len(names)} names",
            where=str(folder),
            remedy="Restore the whole folder from one training.",
        )
    return Artifact(config, names, encoder, normaliser, members)


def _renumbered(name: str) -> str:
    """The name of a weight of a version whose towers had a third module, dropout, beside each linear layer and its ReLU."""
    name = re.sub(r"(tower|head\.2)\.(\d+)\.", lambda found: f"{found[1]}.{int(found[2]) // 3 * 2}.", name)
    return name.replace(".head.2.", ".head.1.")


def _card(artifact: Artifact, metrics: Metrics, seen: list[float]) -> str:
    config = artifact.config
    figures = "\n".join(f"| {name} | {value:.6g} |" for name, value in metrics.items())
    knobs = "\n".join(
        f"| {group}.{name} | {value} |" for group, values in to_dict(config).items() for name, value in values.items()
    )
    parameters = sum(p.numel() for p in artifact.members[0].relevance.parameters())
    shown = ", ".join(f"{value:.2f}" for value in seen[:10]) or "not modelled"
    return f"""# Triple tower ranker

Scores a job for a search: the probability of a click, as seen at the top position. A query tower and a document tower over
text embeddings, an interaction tower over {len(artifact.names)} features, one head; {parameters:,} weights.
The score is the mean of {config.training.members} such network(s), trained from different seeds.

* Encoder: {artifact.encoder.get("name", "unnamed")}, hash {artifact.encoder["hash"]}, width {artifact.encoder["dim"]}.
* Examination by position (1 first): {shown}.
* Trained on logged clicks. Figures below are on the validation split of the same log, so they carry its position bias.
* Not meant for decisions about people: it orders jobs for a search and knows nothing else.

## Validation

| figure | value |
|---|---|
{figures}

## Features

{", ".join(artifact.names)}

## Configuration

| knob | value |
|---|---|
{knobs}
"""
