"""Metrics of every ranker on one slice, with intervals and paired relative lifts.

Users are left out one by one, not rows: the rows of one user are alike, and treating them as independent makes intervals too
narrow. All rankers leave out the same user, which makes the lifts paired.

Legend: N rows, Q requests with a click, U users (or groups of them).
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tritower.evaluation import calibration
from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.rows import Rows
from tritower.metrics import auc, examination, intervals, ranking
from tritower.metrics.intervals import Figure, Interval

RANKING = ("auc", "map@1", "map@3", "ndcg@10")
METRICS = (*RANKING, "log_loss", "calibration_error")
MIN_EFFECTIVE = 5.0
"""Fewest users of equal weight that the users must be worth: below it the quantile of t is so wide that nothing is sure."""
GROUPS = 20_000
"""Users are left out one by one up to so many, then in so many groups: memory is bounded, and the variance as well known."""
Array = npt.NDArray[np.float64]
Users = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is known of one slice.

    `value[ranker][metric]` is the point estimate; `without_U[ranker][metric]` the same without each user, for the ranking
    metrics and the log loss; `share_U` each user's share of the searches with a click; `reason` why no figure of this slice
    has an interval, empty where they have; `curve[ranker]` the calibration curve.
    """

    rows: int
    requests: int
    clicks: int
    users: int
    value: dict[str, dict[str, float]]
    without_U: dict[str, dict[str, Array]]
    share_U: Array
    reason: str = ""
    curve: dict[str, calibration.Curve] = field(default_factory=dict)

    def interval(self, ranker: str, metric: str, level: float) -> Interval:
        """Interval of a metric."""
        figure = self._figure(ranker, metric)
        return self._unjudged(figure.value) or intervals.level(figure, self.share_U, level)

    def lift(self, ranker: str, base: str, metric: str, level: float) -> Interval:
        """Paired relative lift of `ranker` over `base`, as a fraction: 0.1 is 10 % better."""
        ours, theirs = self._figure(ranker, metric), self._figure(base, metric)
        return self._unjudged(float(_ratio(ours.value, theirs.value)) - 1) or intervals.lift(ours, theirs, self.share_U, level)

    def share(self, ranker: str, base: str, best: str, metric: str, level: float) -> Interval:
        """Share of the way from `base` to `best` that `ranker` covers: 1 is as good as the best possible."""
        ours, theirs, top = (self._figure(name, metric) for name in (ranker, base, best))
        value = float(_ratio(ours.value - theirs.value, top.value - theirs.value))
        return self._unjudged(value) or intervals.share(ours, theirs, top, self.share_U, level)

    def effective_users(self) -> float:
        """How many users of equal weight the users are worth."""
        return intervals.effective(self.share_U)

    def _figure(self, ranker: str, metric: str) -> Figure:
        return Figure(value=self.value[ranker][metric], without_U=self.without_U[ranker][metric])

    def _unjudged(self, value: float) -> Interval | None:
        return intervals.unjudged(value, self.reason) if self.reason else None


def estimate(rows: Rows, curve_P: Array, config: EvaluationConfig, *, reweighted: bool = False) -> Estimate:
    """Judge every ranker of `rows.score` on these rows.

    Args:
        curve_P: examination by position, as `examination` gives it, for log loss and calibration.
        reweighted: weigh each click by 1 / examination of its position: an estimate of the ranking metrics as if every
            job had been examined. Log loss and calibration speak of the clicks as they are either way.
    """
    where = ranking.requests(rows.request, rows.clicked)
    users, inverse_N = np.unique(rows.user, return_inverse=True)
    clicked_users = np.unique(inverse_N[where.start_Q])
    groups = min(len(users), GROUPS)
    user_N = (inverse_N % groups).astype(np.int32)
    user_Q = user_N[where.start_Q]
    searches_U = np.bincount(user_Q, minlength=groups).astype(np.float64)
    share_U = searches_U / max(len(user_Q), 1)
    examined_N = examination.at(curve_P, rows.position)
    label_N = rows.clicked / np.maximum(examined_N, config.propensity_floor) if reweighted else None
    value: dict[str, dict[str, float]] = {}
    without_U: dict[str, dict[str, Array]] = {}
    curves = {}
    for name, score_N in rows.score.items():
        curves[name] = calibration.curve(score_N, examined_N, rows.clicked, config.bins)
        figures = {
            "auc": _area(score_N, label_N, rows.clicked, user_N, groups),
            **_of_requests(rows, score_N, where, label_N, config.seed, user_Q, groups),
            "log_loss": _mean(calibration.losses(score_N, examined_N, rows.clicked), np.ones(len(rows)), user_N, groups),
        }
        value[name] = {metric: figure.value for metric, figure in figures.items()}
        value[name]["calibration_error"] = curves[name].error
        without_U[name] = {metric: figure.without_U for metric, figure in figures.items()}
    return Estimate(
        rows=len(rows),
        requests=len(np.unique(rows.request)),
        clicks=int(rows.clicked.sum()),
        users=len(users),
        value=value,
        without_U=without_U,
        share_U=share_U,
        reason=_too_few(len(clicked_users), len(user_Q), intervals.effective(share_U), config),
        curve=curves,
    )


def _too_few(users: int, searches: int, effective: float, config: EvaluationConfig) -> str:
    """Why these clicks are too few, or those of too few users, for any interval; empty where they are enough."""
    if searches < config.min_searches:
        return f"there are {searches} searches with a click, fewer than {config.min_searches}"
    if users < config.min_users:
        return f"the clicks are those of {users} users, fewer than {config.min_users}"
    if effective < MIN_EFFECTIVE:
        return (
            f"a few users hold most searches: they are worth {effective:.1f} users of equal weight, less than {MIN_EFFECTIVE:g}"
        )
    return ""


def _area(score_N: auc.Scores, label_N: Array | None, clicked_N: auc.Labels, user_N: Users, users: int) -> Figure:
    if label_N is not None:
        value, without_U = auc.reweighted_without_each(score_N, label_N, user_N, users)
    else:
        value, without_U = auc.without_each(score_N, clicked_N, user_N, users)
    return Figure(value=value, without_U=without_U)


def _of_requests(
    rows: Rows, score_N: auc.Scores, where: ranking.Requests, label_N: Array | None, seed: int, user_Q: Users, users: int
) -> dict[str, Figure]:
    """The metrics that are means over requests with a click."""
    if label_N is None:
        per, weight_Q = ranking.per_request(score_N, rows.clicked, rows.row, where, seed=seed), np.ones(len(where.start_Q))
    else:
        per, weight_Q = ranking.reweighted(score_N, rows.clicked, rows.row, where, weight_N=label_N, seed=seed)
    return {
        metric: _mean(value_Q, weight_Q, user_Q, users)
        for metric, value_Q in (("map@1", per.map1_Q), ("map@3", per.map3_Q), ("ndcg@10", per.ndcg10_Q))
    }


def _mean(above: Array, below: Array, user: Users, users: int) -> Figure:
    """sum(above) / sum(below) of all users, and without each."""
    above_U, below_U = (np.bincount(user, weights=part, minlength=users).astype(np.float64) for part in (above, below))
    total, count = above_U.sum(), below_U.sum()
    return Figure(value=float(_ratio(total, count)), without_U=np.asarray(_ratio(total - above_U, count - below_U)))


def _ratio(above: float | Array, below: float | Array) -> float | Array:
    """above / below; NaN or infinity where the slice leaves nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: float | Array = np.divide(above, below)
    return ratio
