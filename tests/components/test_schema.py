"""What the steps write is what `schema.py` says: a small chain, and every Parquet file of it by columns and types."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tritower import schema, storage
from tritower.baseline import step as baseline
from tritower.baseline.config import BaselineConfig
from tritower.entities import step as entities
from tritower.entities.config import EntitiesConfig
from tritower.features import step as features
from tritower.features.config import FeaturesConfig
from tritower.ingest import step as ingest
from tritower.ingest.config import IngestConfig
from tritower.recommend import step as recommend
from tritower.recommend.config import CandidatesConfig, RecommendConfig
from tritower.simulate import step as simulate
from tritower.simulate.config import SimulateConfig


def chain(root: Path) -> None:
    """The steps of both pipelines that need no torch, on about a hundred searches."""
    simulate.run(out=root / "log", config=SimulateConfig(impressions=1500))
    log = {name: str(root / "log" / part) for name, part in (("jobs", "jobs.parquet"), ("users", "users.parquet"))}
    log["impressions"] = str(root / "log" / "impressions")
    ingest.run(**log, dataset=root / "dataset", quality=root / "quality", metrics=root / "ingest.json", config=IngestConfig())
    write_embeddings(root / "embeddings", texts=pq.read_metadata(root / "dataset" / "texts.parquet").num_rows)
    entities.run(dataset=root / "dataset", entities=root / "entities", config=EntitiesConfig())
    known = {name: root / name for name in ("dataset", "embeddings", "entities")}
    features.run(**known, features=root / "features", config=FeaturesConfig())
    few = BaselineConfig(search_trials=0, rounds=2)
    baseline.run(
        features=root / "features", embeddings=root / "embeddings", model=root / "model", scores=root / "scores", config=few
    )
    found = {name: root / name for name in ("dataset", "embeddings", "candidates")}
    recommend.candidates(**found, config=CandidatesConfig(searches=5, candidates_per_search=20))
    features.run(**known, candidates=root / "candidates", features=root / "candidate_features", config=FeaturesConfig())
    rows = pq.read_table(root / "candidate_features" / "candidates")
    score = pa.array(np.linspace(0.1, 0.9, len(rows)), pa.float32())
    (root / "candidate_scores").mkdir()
    scores = pa.table([rows["row"], rows["request"], score], schema=schema.SCORES.arrow())
    pq.write_table(scores, root / "candidate_scores" / "candidates.parquet")
    recommend.run(
        dataset=root / "dataset", candidates=root / "candidates", scores=root / "candidate_scores",
        recommendations=root / "recommendations.parquet", config=RecommendConfig(),
    )  # fmt: skip


def write_embeddings(folder: Path, *, texts: int) -> None:
    """Random vectors of unit length for every text."""
    vectors_TD = np.random.default_rng(0).normal(size=(texts, 16))
    folder.mkdir()
    np.save(folder / "matrix.npy", (vectors_TD / np.linalg.norm(vectors_TD, axis=1, keepdims=True)).astype(np.float16))
    encoder = {"name": "random", "hash": "0" * 64, "dim": 16, "texts": texts, "normalised": True}
    (folder / "encoder.json").write_text(json.dumps(encoder))


def test_every_table_of_the_chain_is_as_declared(tmp_path: Path) -> None:
    chain(tmp_path)
    names = [feature["name"] for feature in storage.read_json(tmp_path / "features" / "features.json")["features"]]
    declared = {
        "log/jobs.parquet": schema.RAW_JOBS, "log/users.parquet": schema.RAW_USERS,
        "log/impressions/*.parquet": schema.RAW_IMPRESSIONS, "log/truth/*.parquet": schema.TRUTH,
        "dataset/jobs.parquet": schema.DATASET_JOBS, "dataset/users.parquet": schema.DATASET_USERS,
        "dataset/requests.parquet": schema.DATASET_REQUESTS, "dataset/texts.parquet": schema.DATASET_TEXTS,
        "dataset/impressions/*/*.parquet": schema.DATASET_IMPRESSIONS, "dataset/quarantine.parquet": schema.DATASET_QUARANTINE,
        "entities/entities.parquet": schema.ENTITIES,
        **{f"features/{split}/*.parquet": schema.features_table(names) for split in schema.SPLITS},
        "candidate_features/candidates/*.parquet": schema.features_table(names),
        "scores/*.parquet": schema.SCORES,
        "candidates/requests.parquet": schema.DATASET_REQUESTS, "candidates/candidates/*.parquet": schema.DATASET_IMPRESSIONS,
        "recommendations.parquet": schema.RECOMMENDATIONS,
    }  # fmt: skip
    files = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.parquet")}
    files -= {"candidate_scores/candidates.parquet"}  # made by this test
    files = {file for file in files if "/state/" not in file}  # the feature step's own, which no other room reads
    for pattern, table in declared.items():
        found = {str(file.relative_to(tmp_path)) for file in tmp_path.glob(pattern)}
        assert found, f"nothing is written as {pattern}"
        files -= found
        for file in sorted(found):
            written = pq.read_schema(tmp_path / file)
            assert {c.name: c.type for c in written} == {c.name: c.type for c in table.arrow()}, file
            assert written.names == table.names(), file
    assert not files, "files that schema.py does not know"
