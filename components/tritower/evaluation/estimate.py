"""Metrics of every ranker on one slice, with bootstrap intervals and paired relative lifts.

Users are drawn, not rows: the rows of one user are alike, and treating them as independent makes intervals too narrow.
Each replicate gives every user a Poisson(1) weight, the streaming form of drawing with replacement, and all rankers share the
weights, which makes the lifts paired.

Legend: N rows, Q requests with a click, U users, R replicates, L lanes (replicates computed side by side).
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tritower.evaluation import auc, calibration, examination, ranking
from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.rows import Rows

RANKING = ("auc", "map@1", "map@3", "ndcg@10")
METRICS = (*RANKING, "log_loss", "calibration_error")
Array = npt.NDArray[np.float64]


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
        value = self.value[ranker][metric] / self.value[base][metric] - 1
        replicate_R = self.replicate_R[ranker][metric] / self.replicate_R[base][metric] - 1
        return _interval(value, replicate_R, level)

    def share(self, ranker: str, base: str, best: str, metric: str, level: float) -> Interval:
        """Share of the way from `base` to `best` that `ranker` covers: 1 is as good as the best possible."""
        value, replicate_R = self.value, self.replicate_R

        def of(r: "float | Array", b: "float | Array", t: "float | Array") -> "float | Array":
            with np.errstate(divide="ignore", invalid="ignore"):  # a base as good as the best: no way to cover
                return np.divide(np.subtract(r, b), np.subtract(t, b))

        point = of(*(value[name][metric] for name in (ranker, base, best)))
        many = of(*(replicate_R[name][metric] for name in (ranker, base, best)))
        return _interval(float(point), np.asarray(many), level)


def estimate(rows: Rows, curve_P: Array, config: EvaluationConfig) -> Estimate:
    """Judge every ranker of `rows.score` on these rows.

    Args:
        curve_P: examination by position, as `examination` gives it; used by log loss and calibration only.
    """
    where = ranking.requests(rows.request, rows.clicked)
    users, inverse_N = np.unique(rows.user, return_inverse=True)
    user_N = inverse_N.astype(np.int32)
    examined_N = examination.at(curve_P, rows.position)
    count_U = np.bincount(user_N[where.start_Q], minlength=len(users)).astype(np.float64)
    rows_U = np.bincount(user_N, minlength=len(users)).astype(np.float64)
    value: dict[str, dict[str, float]] = {}
    sums: dict[str, dict[str, tuple[Array, Array]]] = {}
    words, curves = {}, {}
    for name, score_N in rows.score.items():
        per = ranking.per_request(score_N, rows.clicked, rows.row, where, seed=config.seed)
        loss_N = calibration.losses(score_N, examined_N, rows.clicked)
        curves[name] = calibration.curve(score_N, examined_N, rows.clicked, config.bins)
        words[name] = auc.sort_with_user(score_N, rows.clicked, user_N)
        value[name] = {
            "auc": auc.auc(score_N, rows.clicked),
            "map@1": _mean(per.map1_Q),
            "map@3": _mean(per.map3_Q),
            "ndcg@10": _mean(per.ndcg10_Q),
            "log_loss": _mean(loss_N),
            "calibration_error": curves[name].error,
        }
        at = user_N[where.start_Q]
        sums[name] = {
            metric: (np.bincount(at, weights=values, minlength=len(users)).astype(np.float64), count_U)
            for metric, values in (("map@1", per.map1_Q), ("map@3", per.map3_Q), ("ndcg@10", per.ndcg10_Q))
        } | {"log_loss": (np.bincount(user_N, weights=loss_N, minlength=len(users)).astype(np.float64), rows_U)}
    return Estimate(
        rows=len(rows),
        requests=len(np.unique(rows.request)),
        clicks=int(rows.clicked.sum()),
        users=len(users),
        value=value,
        replicate_R=_replicates(words, sums, len(users), config),
        curve=curves,
    )


def _replicates(
    words: dict[str, npt.NDArray[np.uint64]],
    sums: dict[str, dict[str, tuple[Array, Array]]],
    users: int,
    config: EvaluationConfig,
) -> dict[str, dict[str, Array]]:
    blocks: dict[str, dict[str, list[Array]]] = {name: {m: [] for m in ("auc", *sums[name])} for name in words}
    for block in range(-(-config.bootstrap // auc.LANES)):
        rng = np.random.default_rng([config.seed, block])
        weight_UL = rng.poisson(1.0, (users, auc.LANES)).astype(np.float32)
        for name in words:
            blocks[name]["auc"].append(auc.bootstrap(words[name], weight_UL))
            for metric, (sum_U, count_U) in sums[name].items():
                with np.errstate(invalid="ignore"):
                    blocks[name][metric].append((sum_U @ weight_UL) / (count_U @ weight_UL))
    return {
        name: {metric: np.concatenate(parts)[: config.bootstrap] for metric, parts in metrics.items()}
        for name, metrics in blocks.items()
    }


def _interval(value: float, replicate_R: Array, level: float) -> Interval:
    finite = replicate_R[np.isfinite(replicate_R)]
    if len(finite) == 0:
        return Interval(value=value, low=value, high=value)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=value, low=float(low), high=float(high))


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")
