"""A small board whose features are counted from events: a dataset, and the state before one of its searches."""

from pathlib import Path
from typing import Any

import numpy as np
from tritower.features import step
from tritower.features.config import FeaturesConfig
from tritower.features.online import OnlineFeatures

from tests.support import tiny_dataset

REQUESTS, FIRST = 60, 30
JOBS = [f"j{number}" for number in range(14)]


def build(folder: Path) -> Path:
    """dataset/, embeddings/ and the state/ before search FIRST below `folder`."""
    tiny_dataset.build(folder, requests=REQUESTS, tie_share=0.4)
    earlier = tiny_dataset.excerpt(folder, folder / "earlier", 0, FIRST, seed=3)
    compute(earlier, earlier / "features")
    (folder / "state").symlink_to(earlier / "features" / "state")
    return folder


def embed(texts: Any) -> np.ndarray:
    """A vector of each text that is always the same."""
    vectors = np.stack([np.random.default_rng(list(text.encode())).normal(size=16) + 1.0 for text in texts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def opened(folder: Path) -> OnlineFeatures:
    return OnlineFeatures.open(folder / "state", folder / "dataset", folder / "embeddings", embed=embed)


def compute(folder: Path, out: Path) -> None:
    config = FeaturesConfig(history_clicks=3, history_searches=2, ctr_half_life_days=0.02)
    step.run(dataset=folder / "dataset", embeddings=folder / "embeddings", features=out, config=config)
