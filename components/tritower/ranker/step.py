"""The ranker's input and output: features and embeddings in, a model folder and scores out."""

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tritower import logs, schema, storage, threads
from tritower.config import to_dict
from tritower.errors import ArtifactError
from tritower.jobs import Job, Resources, open_launcher
from tritower.ranker import artifact, process_group, rows
from tritower.ranker.config import RankerConfig
from tritower.ranker.scoring import Scorer
from tritower.storage import manifest

logger = logging.getLogger(__name__)
_KEYS = ["row", "request", "query_text", "document_text"]
_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    # glibc would map each tensor of a training step anew, or cut the heap's end off after it, depending on what lay there
    # before: clearing the pages took up to a quarter of a step.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # glibc refuses more
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
}


def job(*, features: str, embeddings: str, model: str, config: RankerConfig, checkpoints: str = "") -> Job:
    """A training as any launcher runs it; the locations are as in `train`, of any scheme.

    It keeps checkpoints at `checkpoints` where the config names no place for them. It writes `model`, and beside it, in
    `<model>.failures`, the batch of a loss that is not finite.
    """
    each = process_group.threads(config.launch.threads)
    return Job(
        name="ranker",
        module="tritower.ranker",
        arguments=(f"--config={json.dumps(to_dict(config))}", *([f"--checkpoints={checkpoints}"] if checkpoints else [])),
        inputs={"features": features, "embeddings": embeddings},
        outputs={"model": model},
        processes=config.launch.processes,
        environment={"OMP_NUM_THREADS": str(each), **_ENVIRONMENT},
        resources=Resources(
            cpus=each * config.launch.processes, gpus=config.launch.processes if config.launch.device == "cuda" else 0
        ),
    )


def train(
    *,
    features: str | Path,
    embeddings: str | Path,
    model: str | Path,
    scores: str | Path,
    config: RankerConfig,
    artifact_uri: str = "",
    launcher: str = "local",
    cluster: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Train in `config.launch.processes` processes on each node, then score validation and test.

    A training that was killed goes on from its checkpoint when it is started again with the same `artifact_uri`.

    Args:
        features: folder with train, validation and (optionally) test.
        embeddings: folder with matrix.npy and encoder.json.
        model: model folder to write.
        scores: scores folder to write.
        config: the knobs.
        artifact_uri: where `model` will be kept in the end; checkpoints are kept beside it unless the config names a place.
            Empty for `model` itself.
        launcher: `local`, where the places are paths; another one of `jobs.open_launcher` takes locations in a store, and
            nothing but the model's figures comes to this machine.
        cluster: that launcher's settings.

    Returns:
        Validation figures, steps, seconds and rows per second.

    Raises:
        StepError: a process was killed, or did not start.
        NonFiniteLossError: training diverged; the batch is saved in `<model>.failures`.
    """
    places = {"features": str(features), "embeddings": str(embeddings), "model": str(model)}
    if launcher != "local":
        own = storage.beside(artifact_uri or model)
        return _launched(places, str(scores), config, own, launcher, cluster)
    features, model = Path(features), Path(model)
    with storage.kept(artifact_uri or model, config.launch.checkpoints) as checkpoints:
        with logs.phase(logger, f"train in {config.launch.processes} process(es)"):
            open_launcher().run(job(**places, config=config, checkpoints=checkpoints))
        score_held_out(features=features, embeddings=Path(embeddings), model=model, scores=Path(scores))
    metrics: dict[str, float] = storage.read_json(model / "metrics.json")
    return metrics


def _launched(
    places: dict[str, str], scores: str, config: RankerConfig, own: str, launcher: str, cluster: Mapping[str, Any] | None
) -> dict[str, float]:
    """Train and score where the launcher runs jobs; the processes that start again there go on from a checkpoint.

    `own` is the place for it where the user names none. Unlike `storage.kept` it does not depend on whether the store can be
    written from here: a step that is started again must describe the very job that it finds.
    """
    training = job(**places, config=config, checkpoints=config.launch.checkpoints or own)
    open_launcher(launcher, cluster).run(replace(training, outputs={**training.outputs, "scores": scores}))
    if not config.launch.checkpoints:
        storage.remove(own)
    with tempfile.TemporaryDirectory(prefix="figures-") as scratch:
        file = storage.fetch(f"{places['model'].rstrip('/')}/metrics.json", Path(scratch) / "metrics.json")
        metrics: dict[str, float] = storage.read_json(file)
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
