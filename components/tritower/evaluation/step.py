"""The evaluation step: scores in, metrics, a report and the gate's verdict out."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritower import logs, storage, telltale, threads
from tritower.errors import DataError
from tritower.evaluation import disagreements, document, gate, inputs, plausible, plots, slices, summary, visitors
from tritower.evaluation import report as contents
from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.estimate import Estimate, estimate
from tritower.evaluation.rows import Rows
from tritower.evaluation.wording import NAMES
from tritower.metrics import auc, examination
from tritower.pages import page
from tritower.pages.drawing import Drawing
from tritower.storage import manifest

_log = logging.getLogger(__name__)
_ORDER = ("randomised", "ipw", "logged")
"""Which slice decides: the first there is."""


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """Everything the report shows.

    `measured_P` is the examination curve of the randomised rows, `learned_P` the one that the model learned. `warnings` say
    what is too good to be true; `notes` what a reader must know besides: the run's remark, and searches without a known user.
    """

    parts: dict[str, Rows]
    estimates: dict[str, Estimate]
    deciding: str
    decision: gate.Decision
    measured_P: npt.NDArray[np.float64] | None
    learned_P: npt.NDArray[np.float64] | None
    warnings: list[str]
    notes: list[str]

    @property
    def basis(self) -> str:
        """The slice that kinds of search and single searches are taken from: the one with the truth, where it is known."""
        return "redrawn" if "redrawn" in self.parts else self.deciding


def run(
    *,
    dataset: str | Path,
    features: str | Path,
    scores: str | Path,
    truth: str,
    metrics: str | Path,
    config: EvaluationConfig,
    report: str | Path = "",
    scores_baseline: str | Path = "",
    scores_baseline_cos: str | Path = "",
    scores_baseline_full: str | Path = "",
    scores_champion: str | Path = "",
    summary: str | Path = "",
    split: str = "test",
) -> dict[str, float]:
    """Judge the model on the held-out searches, against every rival that was scored.

    Args:
        dataset: the ingest step's folder; it gives ids, places and titles.
        features: the features step's folder; it gives the keys and the label of every row.
        scores: the ranker's scores, as `schema.SCORES` says.
        scores_baseline: like `scores_baseline_cos` and `scores_baseline_full`, a rival's scores of the same rows;
            `scores_champion` are those of the model in use. Empty where there is none.
        truth: path or URI of `schema.TRUTH`; empty where there is none.
        metrics: JSON file to write; `document` describes it.
        report, summary: HTML and Markdown file to write, if any. Drawings take most of the step's time on a small log.

    Returns:
        Flat numbers for the pipeline's metrics, such as `randomised_auc` and `randomised_lift_auc`; all finite.

    Raises:
        ArtifactError: scores and features do not belong together.
        DataError: there is nothing to judge.
    """
    threads.cap_libraries()
    folders = {"model": scores, "baseline": scores_baseline, "baseline_cos": scores_baseline_cos}
    folders |= {"baseline_full": scores_baseline_full, "champion": scores_champion}
    given = {name: Path(folder) for name, folder in folders.items() if str(folder)}
    manifest.check(dataset, features, *given.values())
    rows, shared = _apart(_read(Path(dataset), Path(features), truth, split, given), Path(dataset))
    judged = _judge(
        rows,
        measured_P=examination.curve(*inputs.shown(Path(features)), config.propensity_floor),
        learned_P=inputs.examination(Path(scores)),
        told=_telling(Path(features), split, config),
        notes=[config.remark] * bool(config.remark) + [_of_nobody(shared)] * bool(shared["users"]),
        config=config,
    )
    for warning in judged.warnings:
        _log.warning("%s", warning)
    _log.info("%s", judged.decision.sentence())
    kinds = _kinds(judged, Path(dataset), Path(features), config)
    content = _content(judged, kinds, config) | {"shared_users": shared}
    storage.write_json(metrics, content)
    if str(report) or str(summary):
        with logs.phase(_log, "report"):
            _write(judged, kinds, Path(dataset), truth, str(report), str(summary), config)
    return document.flat(content)


def roc(metrics: str | Path, *, copy: str | Path) -> tuple[list[float], list[float], list[float]]:
    """False positive rates, true positive rates and thresholds: 40 points of the curve that `run` left in its metrics file.

    The function also writes them to `copy` as JSON: the local runner takes a step from its cache only when each of its outputs
    is a file.
    """
    points = storage.read_json(metrics)["roc"]
    thinned = auc.thinned(points["fpr"], points["tpr"], points["thresholds"])
    storage.write_json(copy, dict(zip(("fpr", "tpr", "thresholds"), thinned, strict=True)))
    return thinned


def headline(metrics: str | Path, config: EvaluationConfig) -> dict[str, float]:
    """The figures for a backend's page, of what `run` left in its metrics file: `document.headline`."""
    return document.headline(storage.read_json(metrics), config.gate_metric)


def verdict(metrics: str | Path) -> tuple[str, str]:
    """`pass` or `hold`, and why in a sentence, as `run` left them in its metrics file."""
    found = storage.read_json(metrics)["gate"]
    return str(found["word"]), str(found["reasons"][0])


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
            rows = rows.with_score("oracle", relevance_N).take(known)
        counts["rows"] = len(rows)
    return rows


def _apart(rows: Rows, dataset: Path) -> tuple[Rows, dict[str, Any]]:
    """The rows with a user of its own for each search under an id that many share, and what metrics.json says of these ids."""
    ids = inputs.user_ids(dataset, np.unique(rows.user))
    found = visitors.shared(rows, frozenset(user for user, user_id in ids.items() if visitors.stands_for_nobody(user_id)))
    told = {"users": [ids[user] for user in found.users], "searches": found.searches, "share": found.share}
    return visitors.apart(rows, found), told


def _of_nobody(shared: dict[str, Any]) -> str:
    return (
        f"{shared['searches']:,} searches ({shared['share']:.1%}) have no known user: many people share their id. Each counts "
        "as a user of its own, so an interval does not know which of them are one person's."
    )


def _telling(features: Path, split: str, config: EvaluationConfig) -> list[str]:
    """A warning for each single column that is too good to be true."""
    if config.suspicious_feature_auc == 1:
        return []
    with logs.phase(_log, "look for columns that tell the label") as counts:
        names = inputs.feature_names(features)
        counts["columns"] = len(names)
        found = telltale.columns(features, names, [split], config.suspicious_feature_auc)
    return [f"Too good to be true: the column {column}. {plausible.WHAT_TO_DO}" for column in found]


def _judge(
    rows: Rows,
    *,
    measured_P: npt.NDArray[np.float64] | None,
    learned_P: npt.NDArray[np.float64] | None,
    told: list[str],
    notes: list[str],
    config: EvaluationConfig,
) -> _Judged:
    curve_P = measured_P if measured_P is not None else learned_P
    parts: dict[str, Rows] = {}
    randomised = rows.take(rows.randomised)
    logged = rows.take(~rows.randomised)
    enough = len(np.unique(randomised.request[randomised.clicked])) >= config.min_randomised_requests
    if enough or (randomised.clicked.any() and not logged.clicked.any()):
        parts["randomised"] = randomised
    if logged.clicked.any():
        parts["logged"] = logged
        if curve_P is not None and (logged.position > 1).any():
            parts["ipw"] = logged
    if "oracle" in rows.score:
        parts["redrawn"] = rows.redrawn("oracle", config.seed)
    if not set(_ORDER) & set(parts):
        raise DataError("no held-out search has a click", where="test split", remedy="Use a longer log or a later split.")
    estimates: dict[str, Estimate] = {}
    for name, part in parts.items():
        with logs.phase(_log, f"judge {name}") as counts:
            estimates[name] = estimate(part, np.ones(2) if curve_P is None else curve_P, config, reweighted=name == "ipw")
            counts["rows"], counts["rankers"] = len(part), len(part.score)
    deciding = next(name for name in _ORDER if name in estimates)
    return _Judged(
        parts=parts,
        estimates=estimates,
        deciding=deciding,
        decision=gate.decide(estimates[deciding], NAMES, config),
        measured_P=measured_P,
        learned_P=learned_P,
        warnings=[*plausible.warnings(estimates, NAMES, config), *told],
        notes=notes,
    )


def _kinds(judged: _Judged, dataset: Path, features: Path, config: EvaluationConfig) -> dict[str, Estimate]:
    rows = judged.parts[judged.basis]
    with logs.phase(_log, "judge kinds of search") as counts:
        known = inputs.context(dataset, features, int(rows.request.min()))
        masks = slices.slices(rows, known, config)
        counts["slices"] = len(masks)
        return {name: estimate(rows.take(mask), np.ones(2), config, reweighted=False) for name, mask in masks.items()}


def _content(judged: _Judged, kinds: dict[str, Estimate], config: EvaluationConfig) -> dict[str, Any]:
    deciding = judged.parts[judged.deciding]
    fpr, tpr, thresholds = auc.roc(deciding.score["model"], deciding.clicked)
    content: dict[str, Any] = {"randomised": None, "logged": None}
    content |= {name: document.part(value, config.level) for name, value in judged.estimates.items()}
    content |= {
        "deciding": judged.deciding,
        "gate": {"word": judged.decision.verdict(), "reasons": list(judged.decision.reasons)},
        "warnings": judged.warnings,
        "notes": judged.notes,
        "slices": {"basis": judged.basis, **{name: document.part(value, config.level) for name, value in kinds.items()}},
        "examination": document.curve(judged.measured_P),
        "examination_learned": document.curve(judged.learned_P),
        "roc": {"fpr": fpr, "tpr": tpr, "thresholds": thresholds},
    }
    cleaned: dict[str, Any] = document.finite(content)
    return cleaned


def _write(
    judged: _Judged,
    kinds: dict[str, Estimate],
    dataset: Path,
    truth: str,
    report: str,
    summary_file: str,
    config: EvaluationConfig,
) -> None:
    """Write the report as HTML and the summary as Markdown, where each is wanted."""
    first = judged.estimates[judged.deciding]
    bases = [base for base in document.LIFTS if base in first.value]
    sentences = contents.compared(judged.deciding, first, bases, config.level)
    if report:
        whole = contents.whole(
            decision=judged.decision,
            searches=len(np.unique(judged.parts[judged.basis].request)),
            warnings=judged.warnings,
            notes=judged.notes,
            sentences=sentences,
            provenance="truth" if truth else "real",
            sections=_sections(judged, kinds, bases, dataset, config),
            config=config,
        )
        storage.write_text(report, page.html(whole))
    if summary_file:
        text = summary.markdown(judged.decision, judged.warnings, judged.notes, sentences, judged.estimates)
        storage.write_text(summary_file, text)


def _sections(
    judged: _Judged, kinds: dict[str, Estimate], bases: list[str], dataset: Path, config: EvaluationConfig
) -> list[page.Section]:
    """The slices, the one that decides first and open; kinds of search and single searches where there is a rival."""
    order = [judged.deciding, *(name for name in ("randomised", "ipw", "redrawn", "logged") if name != judged.deciding)]
    sections = [
        contents.slice_section(
            name,
            judged.estimates[name],
            bases,
            config.level,
            _drawings(judged, name, bases, config),
            is_open=name == judged.deciding,
        )
        for name in order
        if name in judged.estimates
    ]
    first = judged.estimates[judged.deciding]
    strong = sorted((base for base in bases if base != "champion"), key=lambda base: -first.value[base]["ndcg@10"])
    rival = next(iter(strong or bases), "")
    if not rival:
        return sections
    return [
        *sections,
        contents.kinds_section(kinds, rival, judged.basis, config.level),
        *_searches(judged.parts[judged.basis], rival, dataset, config),
    ]


def _searches(rows: Rows, rival: str, dataset: Path, config: EvaluationConfig) -> list[page.Section]:
    won, lost = disagreements.widest(rows, "model", rival, most=config.browse, seed=config.seed)
    searches, jobs = _texts(dataset, rows, [*won, *lost])
    return contents.search_sections(rows, rival, won, lost, searches, jobs)


def _texts(dataset: Path, rows: Rows, found: list[disagreements.Disagreement]) -> tuple[dict[int, str], dict[int, str]]:
    requests = sorted({item.request for item in found})
    jobs = sorted({int(rows.job[row]) for item in found for row in (*item.ours_top, *item.theirs_top)})
    return inputs.titles(dataset, requests, jobs)


def _drawings(judged: _Judged, name: str, bases: list[str], config: EvaluationConfig) -> list[Drawing]:
    rows, value = judged.parts[name], judged.estimates[name]
    drawings = [plots.metrics(value, config.level, name)]
    if bases:
        drawings.append(plots.lifts(value, bases, config.level, name))
    if name == "ipw":  # the same rows as `logged`: their plots stand there
        return drawings
    curves = {ranker: auc.thinned(*auc.roc(score, rows.clicked))[:2] for ranker, score in rows.score.items()}
    drawings += [
        plots.roc(curves, name),
        plots.calibration({ranker: curve for ranker, curve in value.curve.items() if ranker != "oracle"}, name),
        plots.histogram(rows.score["model"], rows.clicked, name),
    ]
    rate_P = contents.rates_by_position(rows.position, rows.clicked)
    if len(rate_P) > 1:
        drawings.append(plots.positions(rate_P, judged.measured_P, judged.learned_P, name))
    return drawings
