"""Metrics of every ranker on one slice, with bootstrap intervals and paired relative lifts.

Users are drawn, not rows: the rows of one user are alike, and treating them as independent makes intervals too narrow.
Each replicate gives every user a Poisson(1) weight, the streaming form of drawing with replacement, and all rankers share the
weights, which makes the lifts paired.

Legend: N rows, Q requests with a click, U users, R replicates, L lanes (replicates computed side by side).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tritower.evaluation import auc, calibration, examination, ranking
from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.rows import Rows

RANKING = ("auc", "map@1", "map@3", "ndcg@10")
METRICS = (*RANKING, "log_loss", "calibration_error")
Array = npt.NDArray[np.float64]
Draw = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is known of one slice.

    `value[ranker][metric]` is the point estimate; `replicate_R[ranker][metric]` its bootstrap replicates, for the ranking
    metrics and the log loss; `curve[ranker]` the calibration curve.
    """

    rows: int
    requests: int
    clicks: int
    users: int
    value: dict[str, dict[str, float]]
    replicate_R: dict[str, dict[str, Array]]
    curve: dict[str, calibration.Curve] = field(default_factory=dict)

    def interval(self, ranker: str, metric: str, level: float) -> Interval:
        """Percentile interval of a metric."""
        return _interval(self.value[ranker][metric], self.replicate_R[ranker][metric], level)

    def lift(self, ranker: str, base: str, metric: str, level: float) -> Interval:
        """Paired relative lift of `ranker` over `base`, as a fraction: 0.1 is 10 % better."""
        value = _ratio(self.value[ranker][metric], self.value[base][metric]) - 1
        replicate_R = _ratio(self.replicate_R[ranker][metric], self.replicate_R[base][metric]) - 1
        return _interval(float(value), np.asarray(replicate_R), level)

    def share(self, ranker: str, base: str, best: str, metric: str, level: float) -> Interval:
        """Share of the way from `base` to `best` that `ranker` covers: 1 is as good as the best possible."""
        value, replicate_R = self.value, self.replicate_R
        gain, way = value[ranker][metric] - value[base][metric], value[best][metric] - value[base][metric]
        gain_R = replicate_R[ranker][metric] - replicate_R[base][metric]
        way_R = replicate_R[best][metric] - replicate_R[base][metric]
        return _interval(float(_ratio(gain, way)), np.asarray(_ratio(gain_R, way_R)), level)


def estimate(rows: Rows, curve_P: Array, config: EvaluationConfig, *, reweighted: bool = False) -> Estimate:
    """Judge every ranker of `rows.score` on these rows.

    Args:
        curve_P: examination by position, as `examination` gives it, for log loss and calibration.
        reweighted: weigh each click by 1 / examination of its position: an estimate of the ranking metrics as if every
            job had been examined. Log loss and calibration speak of the clicks as they are either way.
    """
    where = ranking.requests(rows.request, rows.clicked)
    users, inverse_N = np.unique(rows.user, return_inverse=True)
    user_N = inverse_N.astype(np.int32)
    examined_N = examination.at(curve_P, rows.position)
    label_N = rows.clicked / np.maximum(examined_N, config.propensity_floor)
    clicked_user_Q = user_N[where.start_Q]
    value: dict[str, dict[str, float]] = {}
    sums: dict[str, dict[str, tuple[Array, Array]]] = {}
    areas: dict[str, Callable[[Draw], Array]] = {}
    curves = {}
    for name, score_N in rows.score.items():
        per, weight_Q = _per_request(rows, score_N, where, label_N if reweighted else None, config.seed)
        curves[name] = calibration.curve(score_N, examined_N, rows.clicked, config.bins)
        areas[name] = _area(score_N, label_N if reweighted else None, rows.clicked, user_N)
        sums[name] = {
            metric: (_by_user(value_Q, clicked_user_Q, len(users)), _by_user(weight_Q, clicked_user_Q, len(users)))
            for metric, value_Q in (("map@1", per.map1_Q), ("map@3", per.map3_Q), ("ndcg@10", per.ndcg10_Q))
        }
        loss_N = calibration.losses(score_N, examined_N, rows.clicked)
        sums[name]["log_loss"] = (_by_user(loss_N, user_N, len(users)), _by_user(np.ones(len(rows)), user_N, len(users)))
        point = (
            float(areas[name](np.ones((len(users), auc.LANES), np.float32))[0])
            if reweighted
            else auc.auc(score_N, rows.clicked)
        )
        value[name] = {
            "auc": point,
            **{metric: float(_ratio(total_U.sum(), count_U.sum())) for metric, (total_U, count_U) in sums[name].items()},
            "calibration_error": curves[name].error,
        }
    return Estimate(
        rows=len(rows),
        requests=len(np.unique(rows.request)),
        clicks=int(rows.clicked.sum()),
        users=len(users),
        value=value,
        replicate_R=_replicates(areas, sums, len(users), config),
        curve=curves,
    )


def _area(
    score_N: npt.NDArray[np.float32], label_N: Array | None, clicked_N: npt.NDArray[np.bool_], user_N: npt.NDArray[np.int32]
) -> Callable[[Draw], Array]:
    if label_N is not None:
        return lambda draw_UL: auc.reweighted(score_N, label_N, user_N, draw_UL)
    words = auc.sort_with_user(score_N, clicked_N, user_N)
    return lambda draw_UL: auc.bootstrap(words, draw_UL)


def _per_request(
    rows: Rows, score_N: npt.NDArray[np.float32], where: ranking.Requests, label_N: Array | None, seed: int
) -> tuple[ranking.PerRequest, Array]:
    """Numerators of the metrics by request, and their denominators."""
    if label_N is not None:
        return ranking.reweighted(score_N, rows.clicked, rows.row, where, weight_N=label_N, seed=seed)
    return ranking.per_request(score_N, rows.clicked, rows.row, where, seed=seed), np.ones(len(where.start_Q))


def _replicates(
    areas: dict[str, Callable[[Draw], Array]],
    sums: dict[str, dict[str, tuple[Array, Array]]],
    users: int,
    config: EvaluationConfig,
) -> dict[str, dict[str, Array]]:
    blocks: dict[str, dict[str, list[Array]]] = {name: {m: [] for m in ("auc", *sums[name])} for name in areas}
    for block in range(-(-config.bootstrap // auc.LANES)):
        rng = np.random.default_rng([config.seed, block])
        draw_UL = rng.poisson(1.0, (users, auc.LANES)).astype(np.float32)
        for name in areas:
            blocks[name]["auc"].append(areas[name](draw_UL))
            for metric, (sum_U, count_U) in sums[name].items():
                blocks[name][metric].append(np.asarray(_ratio(sum_U @ draw_UL, count_U @ draw_UL)))
    return {
        name: {metric: np.concatenate(parts)[: config.bootstrap] for metric, parts in metrics.items()}
        for name, metrics in blocks.items()
    }


def _by_user(values: Array, user: npt.NDArray[np.int32], users: int) -> Array:
    return np.bincount(user, weights=values, minlength=users).astype(np.float64)


def _ratio(above: float | Array, below: float | Array) -> float | Array:
    """above / below; NaN or infinity where the slice leaves nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: float | Array = np.divide(above, below)
    return ratio


def _interval(value: float, replicate_R: Array, level: float) -> Interval:
    finite = replicate_R[np.isfinite(replicate_R)]
    if len(finite) == 0:
        return Interval(value=value, low=value, high=value)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=value, low=float(low), high=float(high))
