"""Run every step that has numba kernels on a small log, so that an image holds them compiled (see images/Dockerfile).

    NUMBA_CACHE_DIR=folder python warm.py

The embeddings are random and stand for what the training image computes; of the kernels only their types matter.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from tritower.baseline import step as baseline
from tritower.baseline.config import BaselineConfig
from tritower.entities import step as entities
from tritower.entities.config import EntitiesConfig
from tritower.evaluation import step as evaluation
from tritower.evaluation.config import EvaluationConfig
from tritower.features import step as features
from tritower.features.config import FeaturesConfig
from tritower.ingest import step as ingest
from tritower.ingest.config import IngestConfig
from tritower.ranker import normaliser
from tritower.recommend import step as recommend
from tritower.recommend.config import CandidatesConfig
from tritower.simulate import step as simulate
from tritower.simulate.config import SimulateConfig

DIM = 384


def main(root: Path) -> None:
    """The steps in the order of the training pipeline; what they write under `root` is of no use."""
    at: dict[str, Any] = {name: root / name for name in ("log", "dataset", "embeddings", "entities", "features", "candidates")}
    simulate.run(out=at["log"], config=SimulateConfig(impressions=4_000, randomised_share=0.5))
    log = {name: str(at["log"] / part) for name, part in (("jobs", "jobs.parquet"), ("users", "users.parquet"))}
    log["impressions"] = str(at["log"] / "impressions")
    places = {name: root / name for name in ("quality", "metrics")}
    ingest.run(**log, dataset=at["dataset"], **places, config=IngestConfig())
    views = root / "views.parquet"
    pq.write_table(pq.read_table(log["impressions"]).drop_columns(["clicked", "clicked_at"]), views)
    drawn = {**log, "impressions": str(views), "dataset": root / "drawn", **places}
    ingest.run(**drawn, config=IngestConfig(negatives=3))
    write_embeddings(at["embeddings"], texts=pq.read_metadata(at["dataset"] / "texts.parquet").num_rows)
    known = {name: at[name] for name in ("dataset", "embeddings", "entities")}
    entities.run(dataset=at["dataset"], entities=at["entities"], config=EntitiesConfig())
    features.run(**known, features=at["features"], config=FeaturesConfig())
    sample_NF = np.ones((2, 1), dtype=np.float32)  # the ranker's normaliser; the join is compiled where a model is served
    normaliser.fit(sample_NF, kind="quantile").apply(sample_NF)
    inputs = {"features": at["features"], "embeddings": at["embeddings"]}
    for variant in ("standard", "cosines"):
        few = BaselineConfig(search_trials=0, rounds=5, variant=variant)
        baseline.run(**inputs, model=root / f"{variant}-model", scores=root / variant, config=few)
    rivals = {"scores": root / "cosines", "scores_baseline": root / "standard", "scores_baseline_cos": root / "standard"}
    report = {"metrics": root / "metrics.json", "report": root / "report.html", "truth": str(at["log"] / "truth")}
    quick = EvaluationConfig(min_randomised_requests=1)
    evaluation.run(dataset=at["dataset"], features=at["features"], **rivals, **report, config=quick)
    chosen = CandidatesConfig(searches=5, candidates_per_search=20)
    recommend.candidates(dataset=at["dataset"], embeddings=at["embeddings"], candidates=at["candidates"], config=chosen)
    features.run(**known, candidates=at["candidates"], features=root / "candidate_features", config=FeaturesConfig())


def write_embeddings(folder: Path, *, texts: int) -> None:
    """Random vectors of unit length for every text, as `embed` writes them."""
    vectors_TD = np.random.default_rng(0).normal(size=(texts, DIM))
    folder.mkdir()
    np.save(folder / "matrix.npy", (vectors_TD / np.linalg.norm(vectors_TD, axis=1, keepdims=True)).astype(np.float16))
    encoder = {"name": "random", "hash": "0" * 64, "dim": DIM, "texts": texts, "normalised": True}
    (folder / "encoder.json").write_text(json.dumps(encoder))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
