"""Fitting: early stopping on validation, a small seeded search, position offsets."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from tritower import logs
from tritower.baseline import exact, position
from tritower.baseline.config import BaselineConfig
from tritower.baseline.rows import Iterate, Source
from tritower.metrics import examination
from tritower.threads import chosen

_log = logging.getLogger(__name__)
_SPACE: dict[str, tuple[float, ...]] = {
    "max_depth": (4, 5, 6, 8, 10),
    "eta": (0.03, 0.05, 0.1, 0.2),
    "min_child_weight": (1, 5, 20, 100),
    "subsample": (0.6, 0.8, 1.0),
    "colsample_bytree": (0.5, 0.75, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Data:
    """A split as quantised XGBoost matrix with the arrays the position offsets need."""

    matrix: xgb.QuantileDMatrix
    clicked_N: npt.NDArray[np.bool_]
    slot_N: npt.NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A trained booster, cut at its best round, with what it takes to score.

    `validation` is the early-stopping score: AUC on the clicks as logged. `offset_P` are log-odds per position slot, all
    zero without a position offset. `intercept` is the base margin of scoring.
    """

    booster: xgb.Booster
    rounds: int
    validation: float
    offset_P: npt.NDArray[np.float64]
    intercept: float

    def margin(self, matrix_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Log-odds of a click, position left out."""
        base_N = np.full(len(matrix_NF), self.intercept, dtype=np.float32)
        margin: npt.NDArray[np.float32] = self.booster.inplace_predict(
            matrix_NF, base_margin=base_N, predict_type="margin", validate_features=False
        )
        return margin


def load(source: Source, config: BaselineConfig, reference: Data | None = None) -> Data:
    """Read and quantise a split; `reference` lends its bins to validation."""
    ref = reference.matrix if reference else None
    matrix = xgb.QuantileDMatrix(Iterate(source), max_bin=config.max_bin, ref=ref, nthread=chosen(config.threads))
    clicked, where = source.keys("clicked", "position")
    slot_N = position.slots(where.astype(np.int64), config.position_cap)
    return Data(matrix=matrix, clicked_N=clicked.astype(np.bool_), slot_N=slot_N)


def fit(
    train: Data,
    validation: Data,
    params: dict[str, Any],
    config: BaselineConfig,
    *,
    rounds: int,
    offset_P: npt.NDArray[np.float64] | None = None,
) -> Fit:
    """Boost with early stopping on validation AUC; with `offset_P`, trees explain what position does not."""
    offset_P = np.zeros(config.position_cap) if offset_P is None else offset_P
    rate = float(np.clip(train.clicked_N.mean(), 1e-6, 1 - 1e-6))
    intercept = exact.log_odds(rate) - float(offset_P[train.slot_N].mean())
    for data in (train, validation):
        data.matrix.set_base_margin((intercept + offset_P[data.slot_N]).astype(np.float32))
    booster = xgb.train(
        {
            "objective": "binary:logistic",
            "eval_metric": "auc",
            "tree_method": "hist",
            "base_score": 0.5,  # log-odds 0: the intercept travels in the base margin
            "max_bin": config.max_bin,
            "nthread": chosen(config.threads),
            "seed": config.seed,
            **params,
        },
        train.matrix,
        rounds,
        evals=[(validation.matrix, "validation")],
        early_stopping_rounds=config.early_stopping_rounds,
        verbose_eval=False,
    )
    best = booster.best_iteration + 1
    return Fit(
        booster=booster[:best], rounds=best, validation=float(booster.best_score), offset_P=offset_P, intercept=intercept
    )


def search(train: Data, validation: Data, config: BaselineConfig) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The best of `search_trials` settings by validation AUC, and a record of every trial.

    The first trial is the config's own setting, the others are drawn without repetition from a grid, by seed.
    """
    first: dict[str, Any] = {
        "max_depth": config.depth,
        "eta": config.eta,
        "min_child_weight": 5,
        "subsample": 0.8,
        "colsample_bytree": 0.75,
    }
    rng = np.random.default_rng(config.seed)
    settings = [first]
    while len(settings) < config.search_trials:
        drawn: dict[str, Any] = {name: values[rng.integers(len(values))] for name, values in _SPACE.items()}
        if drawn not in settings:
            settings.append(drawn)
    if len(settings) == 1:
        return first, []
    trials = []
    for setting in logs.progress(settings, name="search", unit="trials"):
        result = fit(train, validation, setting, config, rounds=config.search_rounds)
        trials.append({**setting, "rounds": result.rounds, "validation_auc": result.validation})
        _log.info("trial %d: AUC %.4f with %s", len(trials), result.validation, setting)
    best = max(range(len(trials)), key=lambda i: trials[i]["validation_auc"])
    return settings[best], trials


def randomised_offsets(sources: Sequence[Source], config: BaselineConfig) -> npt.NDArray[np.float64] | None:
    """Position offsets from rows shown in random order; None where they hold too few clicks.

    In random order the jobs at every position are alike, so click rates differ by position alone. On logged rows they also
    differ by what the logging policy knew and the features do not tell.
    """
    columns = [source.keys("randomised", "position", "clicked") for source in sources]
    random_N, position_N, clicked_N = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    chosen = random_N.astype(np.bool_) & (position_N > 0)
    clicked_N, slot_N = clicked_N[chosen].astype(np.bool_), position.slots(position_N[chosen], config.position_cap)
    if not examination.enough(clicked_N):
        return None
    return position.offsets(np.zeros(len(slot_N)), slot_N, clicked_N, config.position_cap, prior=100.0)


def alternating_offsets(
    train: Data, validation: Data, validation_source: Source, params: dict[str, Any], config: BaselineConfig
) -> npt.NDArray[np.float64]:
    """Position offsets by alternation: trees given the offsets, then offsets given the trees on rows they never saw.

    Starting at zero offsets would let the trees explain position by whatever the logging policy ranked by, so the first
    offsets come from a fit without trees: the click rate by position.
    """
    if not validation.slot_N.any():
        return np.zeros(config.position_cap)  # a log without positions
    offset_P = position.offsets(np.zeros(len(validation.slot_N)), validation.slot_N, validation.clicked_N, config.position_cap)
    for turn in range(config.position_rounds):
        result = fit(train, validation, params, config, rounds=config.search_rounds, offset_P=offset_P)
        margin_N = np.concatenate([result.margin(batch.matrix_NF) for batch in validation_source.batches()])
        offset_P = position.offsets(margin_N, validation.slot_N, validation.clicked_N, config.position_cap)
        _log.info("position offsets, turn %d: %s", turn + 1, np.round(offset_P[:8], 3).tolist())
    return offset_P
