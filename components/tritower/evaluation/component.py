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
    truth: str = "",
    config: dict[str, Any] = {},
) -> None:
    """Judge the model against both baselines on the held-out searches.

    Args:
        dataset: Output of the ingest step.
        features: Output of the features step.
        scores: Scores of the model.
        scores_baseline: Scores of XGBoost on standard features.
        scores_baseline_cos: Scores of the stronger XGBoost.
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
    for name, value in step.run(**inputs, **places).items():
        metrics.log_metric(name, value)
    roc.log_roc_curve(*step.roc(metrics.path, copy=roc.path))
