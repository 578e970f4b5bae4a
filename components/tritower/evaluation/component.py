"""KFP interface of the evaluation."""

from typing import Any

from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Output

from tritower._build import component


@component("base")
def evaluation(
    dataset: Input[Dataset],
    features: Input[Dataset],
    scores: Input[Dataset],
    scores_baseline: Input[Dataset],
    scores_baseline_cos: Input[Dataset],
    report: Output[HTML],
    metrics: Output[Metrics],
    roc: Output[ClassificationMetrics],
    summary: Output[Markdown],
    scores_baseline_full: Input[Dataset] = None,
    scores_champion: str = "",
    truth: str = "",
    config: dict[str, Any] = {},
) -> str:
    """Judge the model against the baselines on the held-out searches; the output is the gate's word, "pass" or "hold".

    Args:
        dataset: Output of the ingest step.
        features: Output of the features step.
        scores: Scores of the model.
        scores_baseline: Scores of XGBoost on standard features.
        scores_baseline_cos: Scores of XGBoost with the cosines.
        scores_baseline_full: Scores of the strongest XGBoost, if it was trained.
        scores_champion: Folder of the current champion's scores on the same features; empty when there is none.
        report: Self-contained HTML report with plots.
        metrics: Every metric, interval and lift; the file itself is JSON.
        roc: ROC curve of the model on the slice that decides.
        summary: The verdict and the main tables.
        truth: Path or URI of the simulator's truth table, if there is one.
        config: Knobs of EvaluationConfig.
    """
    from tritower.config import from_dict
    from tritower.evaluation import step
    from tritower.evaluation.config import EvaluationConfig

    knobs = from_dict(EvaluationConfig, config, where="evaluation_config")
    places = {"metrics": metrics.path, "report": report.path, "summary": summary.path, "truth": truth, "config": knobs}
    names = {"scores": scores, "scores_baseline": scores_baseline, "scores_baseline_cos": scores_baseline_cos}
    inputs = {name: artifact.path for name, artifact in {**names, "dataset": dataset, "features": features}.items()}
    full = scores_baseline_full.path if scores_baseline_full else ""
    numbers = step.run(**inputs, **places, scores_baseline_full=full, scores_champion=scores_champion)
    for name, value in numbers.items():
        metrics.log_metric(name, value)
    roc.log_roc_curve(*step.roc(metrics.path, copy=roc.path))
    return step.gate_word(metrics.path)
