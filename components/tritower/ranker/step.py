"""The ranker's input and output: features and embeddings in, a model folder and scores out."""

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tritower import logs, schema, storage, threads
from tritower.errors import ArtifactError
from tritower.jobs import open_launcher
from tritower.ranker import artifact, launching, rows
from tritower.ranker.config import RankerConfig
from tritower.ranker.process_group import check_gpus
from tritower.ranker.scoring import Scorer
from tritower.storage import manifest, staging

logger = logging.getLogger(__name__)
_KEYS = ["row", "request", "query_text", "document_text"]


def train(
    *,
    features: str | Path,
    embeddings: str | Path,
    model: str | Path,
    scores: str | Path,
    config: RankerConfig,
    artifact_uri: str = "",
) -> dict[str, float]:
    """Train in `config.launch.processes` processes of this machine, then score validation and test.

    A training that was killed goes on from its checkpoint when it is started again with the same `artifact_uri`.

    Args:
        features: location of a folder with train, validation and (optionally) test.
        embeddings: location of a folder with matrix.npy and encoder.json.
        model: model folder to write.
        scores: scores folder to write.
        config: the knobs.
        artifact_uri: where `model` will be kept in the end; checkpoints are kept beside it unless the config names a place.
            Empty for `model` itself.

    Returns:
        Validation figures, steps, seconds and rows per second.

    Raises:
        ConfigError: there are fewer GPUs here than processes.
        StepError: a process was killed, or did not start.
        NonFiniteLossError: training diverged; the batch is saved in `<model>.failures`.
    """
    check_gpus(config.launch.device, config.launch.processes)
    given = {"features": str(features), "embeddings": str(embeddings)}
    stored = {name: place for name, place in given.items() if not storage.is_local(place)}  # the job checks what is here
    with (
        storage.kept(artifact_uri or model, config.launch.checkpoints) as checkpoints,
        staging.staged(stored, {}) as fetched,
    ):
        here = {name: fetched.paths.get(name) or storage.local_path(place) for name, place in given.items()}
        read = {name: str(path) for name, path in here.items()}
        with logs.phase(logger, f"train in {config.launch.processes} process(es)"):
            open_launcher().run(launching.job(**read, model=str(model), config=config, checkpoints=checkpoints))
        score_held_out(**here, model=Path(model), scores=Path(scores))
    metrics: dict[str, float] = storage.read_json(Path(model) / "metrics.json")
    return metrics


def score_held_out(*, features: Path, embeddings: Path, model: Path, scores: Path) -> int:
    """Score validation and test with a model that was just trained; returns the number of rows."""
    splits = [name for name in rows.splits(features) if name in ("validation", "test")]
    return _score(features, embeddings, model, scores, splits)


def score(*, features: str | Path, embeddings: str | Path, model: str | Path, scores: str | Path) -> dict[str, float]:
    """Score every split of a features folder with a trained model.

    Returns:
        {"rows": rows scored}

    Raises:
        ArtifactError: the features or the embeddings are not those the model was trained with.
    """
    manifest.check(features, embeddings)
    return {"rows": float(_score(Path(features), Path(embeddings), Path(model), Path(scores), rows.splits(Path(features))))}


def _check_finite(score_N: NDArray[np.float32], batch: pa.RecordBatch, model: Path, split: str) -> None:
    broken_N = ~np.isfinite(score_N)
    if broken_N.any():
        first = batch.column("row")[int(broken_N.argmax())]
        raise ArtifactError(
            f"{broken_N.sum():,} of {len(score_N):,} scores are not finite, first that of row {first} of {split}",
            where=str(model),
            remedy="The embeddings or the model are damaged: embed again, or restore or train the model again.",
        )


def _score(features: Path, embeddings: Path, model: Path, scores: Path, splits: list[str]) -> int:
    threads.cap_libraries()
    loaded = artifact.load(model)
    matrix_TD, encoder = rows.load_embeddings(embeddings)
    names = rows.feature_names(features)
    loaded.expect(names=names, encoder=encoder, where=str(features))
    scorer = Scorer(loaded, matrix_TD)
    total, described = 0, loaded.config.network.descriptions
    with storage.atomic_directory(scores) as out, logs.phase(logger, "score") as counts:
        for split in splits:
            with pq.ParquetWriter(out / f"{split}.parquet", schema.SCORES.arrow(), compression="zstd") as writer:
                columns = [*_KEYS, *([rows.DESCRIPTION] if described else [])]
                for batch, feature_NF in rows.stream(features / split, columns, names):
                    description_N1 = rows.description_texts(batch, wanted=described)
                    text_N2 = [np.asarray(batch.column(name)) for name in ("query_text", "document_text")]
                    score_N = scorer.score(text_N2[0], text_N2[1], feature_NF, description_N1)
                    _check_finite(score_N, batch, model, split)
                    scored = [batch.column("row"), batch.column("request"), pa.array(score_N)]
                    writer.write_batch(pa.record_batch(scored, schema=schema.SCORES.arrow()))
                    total += batch.num_rows
        storage.write_json(out / "scores.json", {"model": "ranker", "examination": loaded.examination()})
        counts["rows"] = total
    return total
