"""The evaluation step: scores in, metrics and a report out."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from tritower import logs, storage
from tritower.errors import DataError
from tritower.evaluation import auc, examination, inputs, plots
from tritower.evaluation import report as pages
from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.estimate import METRICS, RANKING, Estimate, Interval, estimate
from tritower.evaluation.rows import Rows

_log = logging.getLogger(__name__)
_LIFTS = {"baseline": "lift", "baseline_cos": "lift_cos", "baseline_full": "lift_full", "champion": "lift_champion"}
_NOTE_TRUTH = (
    "No public data set holds job queries, jobs shown and not clicked, texts and histories at once. These figures are of a "
    "generated log whose true click probabilities are known; the oracle ranks by them."
)
_NOTE_REAL = (
    "These figures are of the log that was given. Its true click probabilities are not known, so the distance to the best "
    "possible ranking is not either."
)


def run(
    *,
    dataset: str | Path,
    features: str | Path,
    scores: str | Path,
    scores_baseline: str | Path,
    scores_baseline_cos: str | Path,
    truth: str,
    metrics: str | Path,
    report: str | Path,
    config: EvaluationConfig,
    scores_baseline_full: str | Path = "",
    summary: str | Path = "",
    split: str = "test",
) -> dict[str, float]:
    """Judge the model against the baselines on the held-out searches.

    Args:
        dataset: the ingest step's folder; read for ids and titles.
        features: the features step's folder; read for the keys and labels of every row.
        scores: the ranker's scores, and beside them each baseline's, as `schema.SCORES` says.
        truth: path or URI of `schema.TRUTH`; empty where there is none.
        metrics: JSON file to write. Per slice (`randomised`, null without enough randomised searches, and `logged`): rows,
            requests, clicks, users, one entry of metrics per ranker, `intervals` per ranker and metric, and `lift`,
            `lift_cos` (`lift_full` where given): relative lift over that baseline as a fraction, with the ends of its
            interval. `roc` holds points of the model's ROC curve on the slice that decides.
        report: HTML file to write.
        summary: Markdown file to write, if any.

    Returns:
        Flat numbers for the pipeline's metrics, such as `randomised_auc` and `randomised_lift_auc`; all finite.
    """
    given = {"model": scores, "baseline": scores_baseline, "baseline_cos": scores_baseline_cos}
    given |= {"baseline_full": scores_baseline_full} if scores_baseline_full else {}
    rows = _read(Path(dataset), Path(features), truth, split, {name: Path(folder) for name, folder in given.items()})
    shown = inputs.shown(Path(features))
    curve_P = examination.from_randomised(*shown, config.propensity_floor)
    flat_P = np.ones(2) if curve_P is None else curve_P
    estimates: dict[str, Estimate] = {}
    parts = _slices(rows, config)
    for name, part in parts.items():
        with logs.phase(_log, f"judge {name}") as counts:
            estimates[name] = estimate(part, flat_P, config)
            counts["rows"], counts["rankers"] = len(part), len(part.score)
    deciding = "randomised" if "randomised" in estimates else "logged"
    fpr, tpr, thresholds = auc.roc(parts[deciding].score["model"], parts[deciding].clicked)
    document: dict[str, Any] = {"randomised": None, "logged": None}
    document |= {name: _document(value, config.level) for name, value in estimates.items()}
    document |= {
        "deciding": deciding,
        "examination": [] if curve_P is None else curve_P[1:].tolist(),
        "roc": {"fpr": fpr, "tpr": tpr, "thresholds": thresholds},
    }
    storage.write_json(metrics, finite(document))
    _write_report(Path(report), summary, parts, estimates, curve_P, deciding, truth, config)
    return _flat(document)


def _read(dataset: Path, features: Path, truth: str, split: str, scores: dict[str, Path]) -> Rows:
    with logs.phase(_log, "read") as counts:
        rows = inputs.rows(features, split, scores)
        if truth:
            relevance_N = inputs.relevance(truth, dataset, rows)
            known = np.isfinite(relevance_N)
            counts["rows without truth"] = int((~known).sum())
            if not known.any():
                raise DataError(
                    "no row of the test split is in the truth table", where=truth, remedy="Give the truth of this very log."
                )
            # All rankers are judged on the same rows: those whose truth is known.
            rows = inputs.grouped(rows.with_score("oracle", relevance_N).take(known))
        counts["rows"] = len(rows)
    return rows


def _slices(rows: Rows, config: EvaluationConfig) -> dict[str, Rows]:
    slices = {}
    randomised = rows.take(rows.randomised)
    if len(np.unique(randomised.request[randomised.clicked])) >= config.min_randomised_requests:
        slices["randomised"] = randomised
    logged = rows.take(~rows.randomised)
    if logged.clicked.any():
        slices["logged"] = logged
    if not slices:
        raise DataError("no held-out search has a click", where="test split", remedy="Use a longer log or a later split.")
    return slices


def _document(value: Estimate, level: float) -> dict[str, Any]:
    document: dict[str, Any] = {
        "rows": value.rows,
        "requests": value.requests,
        "clicks": value.clicks,
        "users": value.users,
        **{ranker: dict(numbers) for ranker, numbers in value.value.items()},
        "intervals": {
            ranker: {metric: _ends(value.interval(ranker, metric, level)) for metric in replicates}
            for ranker, replicates in value.replicate_R.items()
        },
    }
    for base, key in _LIFTS.items():
        if base in value.value:
            document[key] = {metric: _ends(value.lift("model", base, metric, level)) for metric in RANKING}
    if "oracle" in value.value:
        document["share_to_oracle"] = {
            metric: _ends(value.share("model", "baseline", "oracle", metric, level)) for metric in RANKING
        }
    return document


def _ends(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _write_report(
    path: Path,
    summary: str | Path,
    parts: dict[str, Rows],
    estimates: dict[str, Estimate],
    curve_P: Any,
    deciding: str,
    truth: str,
    config: EvaluationConfig,
) -> None:
    with logs.phase(_log, "report"):
        bases = [base for base in _LIFTS if base in estimates[deciding].value]
        searches = sum(value.requests for value in estimates.values())
        lines = pages.verdict(deciding, estimates[deciding], bases, config.level)
        drawn = {name: _drawings(name, parts[name], estimates[name], bases, curve_P, config) for name in parts}
        text = pages.html(
            {
                "title": "Does the triple tower rank better?",
                "subtitle": f"Held-out searches, {searches:,} of them, later in time than training.",
                "gate": "pass" if _ahead(estimates[deciding], bases, config.level) else "hold",
                "verdict": lines,
                "provenance": _NOTE_TRUTH if truth else _NOTE_REAL,
                "level": f"{100 * config.level:g} %",
                "slices": [pages.slice_context(n, e, bases, config.level, drawn[n]) for n, e in estimates.items()],
                "sections": [],
                "bootstrap": config.bootstrap,
                "bins": config.bins,
            }
        )
        with storage.atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        if str(summary):
            with storage.atomic_file(summary) as temporary:
                temporary.write_text(pages.markdown(lines, estimates, config.level), encoding="utf-8")


def _drawings(
    name: str, rows: Rows, value: Estimate, bases: list[str], curve_P: Any, config: EvaluationConfig
) -> dict[str, list[dict[str, str]]]:
    curves = {ranker: auc.roc(score, rows.clicked)[:2] for ranker, score in rows.score.items()}
    rate_P = pages.rates_by_position(rows.position, rows.clicked)
    drawings = [
        {"title": "ROC", "svg": plots.roc(curves, name)},
        {"title": "Calibration", "svg": plots.calibration({r: c for r, c in value.curve.items() if r != "oracle"}, name)},
        {"title": "Scores", "svg": plots.histogram(rows.score["model"], rows.clicked, name)},
    ]
    if len(rate_P) > 1:
        drawings.append({"title": "Clicks by position", "svg": plots.positions(rate_P, curve_P, name)})
    return {
        "wide": [
            {"title": "Ranking metrics", "svg": plots.metrics(value, config.level, name)},
            {"title": "Lift of the triple tower", "svg": plots.lifts(value, bases, config.level, name)},
        ],
        "plots": drawings,
    }


def _ahead(value: Estimate, bases: list[str], level: float) -> bool:
    return all(value.lift("model", base, metric, level).low > 0 for base in bases for metric in ("auc", "map@1", "map@3"))


def _flat(document: dict[str, Any]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name in ("randomised", "logged"):
        part = document[name]
        if part is None:
            continue
        for metric in METRICS:
            numbers[f"{name}_{metric}"] = part["model"][metric]
        for metric in RANKING:
            for key in (key for key in _LIFTS.values() if key in part):
                numbers[f"{name}_{key}_{metric}"] = part[key][metric]["value"]
    return {name.replace("@", "_at_"): value for name, value in numbers.items() if math.isfinite(value)}


def finite(value: Any) -> Any:
    """The same JSON value with every NaN and infinity replaced by null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def roc(metrics: str | Path, *, copy: str | Path) -> tuple[list[float], list[float], list[float]]:
    """False positive rates, true positive rates and thresholds that `run` left in its metrics file.

    They are also written to `copy` as JSON: the local runner takes a step from its cache only when each of its outputs is
    a file.
    """
    points = storage.read_json(metrics)["roc"]
    storage.write_json(copy, points)
    return points["fpr"], points["tpr"], points["thresholds"]
