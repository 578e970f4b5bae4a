"""metrics.json: what the step found, as plain values.

randomised, logged, ipw, redrawn   one entry per slice. `randomised` is null without enough randomised searches; `ipw` weighs
                                   logged clicks by inverse examination, where positions are known; `redrawn` draws every
                                   click anew from the true probabilities, where these are known. Each entry holds sizes, the
                                   metrics of each ranker, `intervals`, and the lifts over each rival (`LIFTS`): relative, as
                                   a fraction, with the ends of their interval. Too few users or clicks make the ends null,
                                   and `cannot_be_judged` says why
deciding                           the slice that the gate looked at
gate                               its verdict (`word`) and its reasons
slices                             the kinds of search
roc                                points of the model's ROC curve on the deciding slice
examination, examination_learned   the measured curve, and the one that the model learned
warnings, notes                    what is too good to be true; what else a reader must know
shared_users                       ids that are no user, and the share of the searches under them
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tritower.evaluation.estimate import METRICS, RANKING, Estimate
from tritower.metrics.intervals import Interval

LIFTS = {"baseline": "lift", "baseline_cos": "lift_cos", "baseline_full": "lift_full", "champion": "lift_champion"}


def part(value: Estimate, level: float) -> dict[str, Any]:
    """One slice: sizes, metrics per ranker, intervals, lifts, and the share of the way to the oracle where it is known.

    `cannot_be_judged` says why the slice has no interval; a single figure without one has its own `reason`.
    """
    document: dict[str, Any] = {
        "rows": value.rows,
        "requests": value.requests,
        "clicks": value.clicks,
        "users": value.users,
        "effective_users": value.effective_users(),
        **({"cannot_be_judged": value.reason} if value.reason else {}),
        **{ranker: dict(numbers) for ranker, numbers in value.value.items()},
        "intervals": {
            ranker: {metric: _ends(value.interval(ranker, metric, level)) for metric in without_each}
            for ranker, without_each in value.without_U.items()
        },
    }
    for base, key in LIFTS.items():
        if base in value.value:
            document[key] = {metric: _ends(value.lift("model", base, metric, level)) for metric in RANKING}
    if "oracle" in value.value and "baseline" in value.value:
        document["share_to_oracle"] = {
            metric: _ends(value.share("model", "baseline", "oracle", metric, level)) for metric in RANKING
        }
    return document


def flat(document: dict[str, Any]) -> dict[str, float]:
    """The main figures by name, such as `randomised_lift_map_at_1`, without NaN, infinity and lifts that cannot be judged.

    `judged` is 1 where the slice that decides has intervals, else 0; `warnings` the number of things too good to be true.
    """
    judged = "cannot_be_judged" not in document[document["deciding"]]
    numbers: dict[str, float] = {"judged": float(judged), "warnings": float(len(document["warnings"]))}
    for name in ("randomised", "logged", "ipw", "redrawn"):
        slice_ = document.get(name)
        if slice_ is None:
            continue
        numbers |= {f"{name}_{metric}": slice_["model"][metric] for metric in METRICS}
        for key in (key for key in LIFTS.values() if key in slice_):
            known = {metric: lift["value"] for metric, lift in slice_[key].items() if "reason" not in lift}
            numbers |= {f"{name}_{key}_{metric}": value for metric, value in known.items()}
    return {name.replace("@", "_at_"): value for name, value in numbers.items() if value is not None and math.isfinite(value)}


def headline(document: dict[str, Any], metric: str) -> dict[str, float]:
    """The ten figures for a backend's page, which shows ten by name: of the slice that decides, and against the one rival
    that decides.

    That rival is the champion, else the XGBoost whose lift of `metric`, the gate's, has the lowest low end. Lifts are in
    percent, everything else is as in the document.
    """
    part = document[document["deciding"]]
    found = {name: part["model"][name] for name in ("auc", "calibration_error", "map@1", "map@3", "ndcg@10")}
    keys = [LIFTS["champion"]] if LIFTS["champion"] in part else [key for key in LIFTS.values() if key in part]
    judged = [part[key][metric] for key in keys if part[key][metric]["low"] is not None]
    if judged:
        lift = min(judged, key=lambda lift: float(lift["low"]))
        name = f"{metric}_lift_pct_vs_{'champion' if LIFTS['champion'] in part else 'xgboost'}"
        found |= {name: 100 * lift["value"], f"{name}_high": 100 * lift["high"], f"{name}_low": 100 * lift["low"]}
    found |= {"test_searches": part["requests"], "warnings": len(document["warnings"])}
    return {
        name.replace("@", "_at_"): float(value)
        for name, value in sorted(found.items())
        if value is not None and math.isfinite(value)
    }


def finite(value: Any) -> Any:
    """The same JSON value with every NaN and infinity replaced by null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def curve(curve_P: npt.NDArray[np.float64] | None) -> list[float]:
    """Examination by position from 1; empty where it is not known."""
    return [] if curve_P is None else [float(value) for value in curve_P[1:]]


def _ends(interval: Interval) -> dict[str, float | str]:
    ends = {"value": interval.value, "low": interval.low, "high": interval.high}
    return ends | ({"reason": interval.reason} if interval.reason else {})
