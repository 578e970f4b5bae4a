"""The baseline step: features in, an XGBoost model and its scores out."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tritower import logs, schema, storage, threads
from tritower.baseline import boost, exact, position, projection
from tritower.baseline.config import BaselineConfig
from tritower.baseline.rows import Derive, Source
from tritower.config import to_dict
from tritower.errors import ArtifactError, DataError
from tritower.storage import manifest

_log = logging.getLogger(__name__)


def run(
    *,
    features: str | Path,
    embeddings: str | Path,
    model: str | Path,
    scores: str | Path,
    config: BaselineConfig,
) -> dict[str, float]:
    """Search, fit and score one XGBoost variant.

    Args:
        features: the features step's folder; every split in it but `train` is scored.
        embeddings: the embed step's folder; read for the `full` variant only.
        model: folder to write: model.ubj, baseline.json (settings, trials, position offsets, importances) and, for
            `full`, projection.npz.
        scores: folder to write, as `schema.SCORES` says.

    Returns:
        validation_auc, rounds, features, train_rows, and trials.

    Raises:
        DataError: the training or validation split has no rows, or no clicks.
        ArtifactError: features and embeddings do not belong together.
    """
    threads.cap_libraries()
    manifest.check(features, *([embeddings] if config.variant == "full" else []))
    features, names = Path(features), _features(Path(features), config.variant)
    with logs.phase(_log, f"baseline {config.variant}: open") as counts:
        maps, derive = _projection(features, Path(embeddings), config)

        def source(split: str, share: float = 1.0) -> Source:
            parts = storage.parquet_parts(features / split)
            return Source(parts=parts, features=names, derive=derive, derived_names=maps.names() if maps else (), share=share)

        train_rows = source("train").rows()
        counts["train rows"] = train_rows
        counts["columns"] = len(source("train").names())
    fit, settings, trials = _train(source, train_rows, config)
    shift = _shift(fit, source("validation"), config)
    _write_model(Path(model), fit, settings, trials, shift, maps, source("train").names(), config)
    _write_scores(Path(scores), features, source, fit, shift, config)
    return {
        "validation_auc": fit.validation,
        "rounds": fit.rounds,
        "features": len(source("train").names()),
        "train_rows": train_rows,
        "trials": len(trials),
    }


def _features(features: Path, variant: str) -> list[str]:
    described = storage.read_json(features / "features.json")["features"]
    return [f["name"] for f in described if variant != "standard" or not f["needs_embeddings"]]


def _projection(features: Path, embeddings: Path, config: BaselineConfig) -> tuple[projection.Projection | None, Derive | None]:
    if config.variant != "full":
        return None, None
    matrix_TD = np.load(embeddings / "matrix.npy", mmap_mode="r", allow_pickle=False)
    train = Source(parts=storage.parquet_parts(features / "train"), features=())
    sampled = Source(parts=train.parts, features=(), share=min(1.0, 10 * config.pca_rows / max(train.rows(), 1)))
    texts_3N = [column.astype(np.int64) for column in sampled.keys("query_text", "document_text", "description_text")]
    if max(text_N.max(initial=0) for text_N in texts_3N) >= len(matrix_TD):
        raise ArtifactError(
            "a text number lies beyond the embedding matrix", where=str(embeddings), remedy="Embed this dataset again."
        )
    maps = projection.fit(matrix_TD, *texts_3N, components=config.components, limit=config.pca_rows, seed=config.seed)
    return maps, functools.partial(maps.columns, matrix_TD)


def _train(
    source: Callable[..., Source], train_rows: int, config: BaselineConfig
) -> tuple[boost.Fit, dict[str, Any], list[dict[str, Any]]]:
    with logs.phase(_log, "search") as counts:
        share = min(1.0, config.search_rows / max(train_rows, 1))
        sample = boost.load(source("train", share), config)
        validation = boost.load(source("validation"), config, sample)
        for name, data in (("train", sample), ("validation", validation)):
            if not 0 < int(data.clicked_N.sum()) < len(data.clicked_N):
                raise DataError(
                    "clicked and not clicked rows are both needed", where=name, remedy="Use a longer log or a later split."
                )
        settings, trials = boost.search(sample, validation, config)
        counts["trials"] = len(trials)
    offset_P = None
    if config.variant == "full" and config.position_rounds:
        offset_P = boost.randomised_offsets([source("train"), source("validation")], config)
        if offset_P is None:
            offset_P = boost.alternating_offsets(sample, validation, source("validation"), settings, config)
    with logs.phase(_log, "fit") as counts:
        if share < 1:
            sample = boost.load(source("train"), config)
            validation = boost.load(source("validation"), config, sample)
        fit = boost.fit(sample, validation, settings, config, rounds=config.rounds, offset_P=offset_P)
        counts["rounds"], counts["validation AUC"] = fit.rounds, f"{fit.validation:.4f}"
    return fit, settings, trials


def _shift(fit: boost.Fit, validation: Source, config: BaselineConfig) -> float:
    margins, clicks, slots = [], [], []
    for batch in validation.batches():
        margins.append(fit.margin(batch.matrix_NF))
        clicks.append(batch.clicked_N)
        slots.append(position.slots(batch.position_N, config.position_cap))
    return position.top_shift(np.concatenate(margins), np.concatenate(clicks), np.concatenate(slots))


def _write_model(
    model: Path,
    fit: boost.Fit,
    settings: dict[str, Any],
    trials: list[dict[str, Any]],
    shift: float,
    maps: projection.Projection | None,
    names: list[str],
    config: BaselineConfig,
) -> None:
    gain = {name: float(value) for name, value in fit.booster.get_score(importance_type="total_gain").items()}  # type: ignore[arg-type]
    total = sum(gain.values()) or 1.0
    with storage.atomic_directory(model) as folder:
        fit.booster.save_model(folder / "model.ubj")
        if maps:
            np.savez(folder / "projection.npz", **vars(maps))
        storage.write_json(
            folder / "baseline.json",
            {
                "config": to_dict(config),
                "settings": settings,
                "trials": trials,
                "rounds": fit.rounds,
                "validation_auc": fit.validation,
                "intercept": fit.intercept,
                "top_shift": shift,
                "position_offset": [round(float(value), 6) for value in fit.offset_P] if fit.offset_P.any() else [],
                "features": names,
                "importance": {name: gain[name] / total for name in sorted(gain, key=lambda name: -gain[name])},
            },
        )


def _write_scores(
    scores: Path, features: Path, source: Callable[..., Source], fit: boost.Fit, shift: float, config: BaselineConfig
) -> None:
    arrow = schema.SCORES.arrow()
    splits = [name for name in (*schema.SPLITS[1:], "candidates") if (features / name).is_dir()]
    with storage.atomic_directory(scores) as folder, logs.phase(_log, "score") as counts:
        rows = 0
        for split in splits:
            with pq.ParquetWriter(folder / f"{split}.parquet", arrow) as writer:
                for batch in source(split).batches():
                    score_N = exact.sigmoid(fit.margin(batch.matrix_NF).astype(np.float64) + shift).astype(np.float32)
                    if not np.isfinite(score_N).all():
                        raise ArtifactError(
                            f"{(~np.isfinite(score_N)).sum():,} of {len(score_N):,} scores are not finite",
                            where=f"{features}, {split}",
                            remedy="The features or the embeddings are damaged: compute them again.",
                        )
                    writer.write_table(pa.table([batch.row_N, batch.request_N, score_N], schema=arrow))
                    rows += len(score_N)
        storage.write_json(folder / "scores.json", {"model": f"xgboost-{config.variant}"})
        counts["rows"] = rows
