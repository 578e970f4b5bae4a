"""A small generated log, taken through the steps with a tiny encoder and a random ranker, and the bundle of it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tritower import storage
from tritower.encoder import step as encoder
from tritower.encoder.config import EmbedConfig
from tritower.entities import step as entities
from tritower.entities.config import EntitiesConfig
from tritower.features import step as features
from tritower.features.config import FeaturesConfig
from tritower.ingest import step as ingest
from tritower.ingest.config import IngestConfig
from tritower.ranker import artifact, normaliser, rows
from tritower.ranker.artifact import Artifact
from tritower.ranker.config import NetworkConfig, RankerConfig, TrainingConfig
from tritower.ranker.network import ClickModel
from tritower.serving import bundling
from tritower.serving.bundling import Sources
from tritower.simulate import step as simulate
from tritower.simulate.config import SimulateConfig

from tests.support import tiny_encoder

SMALL = RankerConfig(
    network=NetworkConfig(query_tower=(12,), document_tower=(12,), interaction_tower=(9, 7), head=(11,), occupation_classes=5),
    training=TrainingConfig(members=2),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the steps wrote: the folders of `sources`, and the raw log they were made of."""

    sources: Sources
    log: Path


def run(
    folder: Path, *, impressions: int = 1500, seed: int = 0, encoder_at: Path | None = None, ranker: RankerConfig = SMALL
) -> Run:
    """Write log/, dataset/, encoder/, embeddings/, entities/, features/ and model/ below `folder`; without `encoder_at` with a
    tiny encoder."""
    log = folder / "log"
    simulate.run(out=log, config=SimulateConfig(impressions=impressions, seed=seed))
    ingest.run(
        jobs=str(log / "jobs.parquet"), impressions=str(log / "impressions"), users=str(log / "users.parquet"),
        dataset=folder / "dataset", config=IngestConfig(),
    )  # fmt: skip
    model = encoder_at or tiny_encoder.write(folder / "tiny")
    config = EmbedConfig(model=str(model), precision="fp32", backend="torch")
    encoder.embed(dataset=folder / "dataset", embeddings=folder / "embeddings", config=config)
    entities.run(dataset=folder / "dataset", entities=folder / "entities", config=EntitiesConfig(method="gazetteer"))
    features.run(
        dataset=folder / "dataset", embeddings=folder / "embeddings", entities=folder / "entities",
        features=folder / "features", config=FeaturesConfig(),
    )  # fmt: skip
    random_ranker(folder, seed=seed, config=ranker)
    made = found(folder, seed=seed)
    return made if encoder_at is None else replace(made, sources=replace(made.sources, encoder=encoder_at))


def found(folder: Path, *, seed: int = 0) -> Run:
    """The run that `run` made below `folder`."""
    names = ("dataset", "embeddings", "features", "entities")
    parts = {name: folder / name for name in names}
    return Run(sources=Sources(model=folder / f"model-{seed}", encoder=folder / "tiny/model", **parts), log=folder / "log")


def random_ranker(folder: Path, *, seed: int = 0, config: RankerConfig = SMALL) -> Path:
    """A model folder with random weights for the features of a run; of another seed another model."""
    names, about = rows.feature_names(folder / "features"), storage.read_json(folder / "embeddings" / "encoder.json")
    torch.manual_seed(seed)
    members = [ClickModel(config.network, dim=about["dim"], features=len(names)).eval() for _ in range(config.training.members)]
    with torch.no_grad():
        for member in members:
            for weight in member.parameters():  # a part that starts at 0 would not be missed
                weight += 0.1 * torch.randn_like(weight)
    sample_NF = np.concatenate([one for _, one in rows.stream(folder / "features" / "train", ["row"], names)])
    fitted = normaliser.fit(sample_NF, kind=config.training.normaliser)
    artifact.save(folder / f"model-{seed}", Artifact(config, names, about, fitted, members), {})
    return folder / f"model-{seed}"


def small_bundle(folder: Path) -> Path:
    """The bundle of a small run below `folder`."""
    bundling.write(run(folder).sources, folder / "bundle")
    return folder / "bundle"
