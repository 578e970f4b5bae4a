"""KFP interface of the evaluation."""

from typing import Any, NamedTuple

from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Output

from tritower._build import component


@component("base")
def evaluation(
    dataset: Input[Dataset],
    features: Input[Dataset],
    scores: Input[Dataset],
    report: Output[HTML],
    metrics: Output[Metrics],
    roc: Output[ClassificationMetrics],
    summary: Output[Markdown],
    scores_baseline: Input[Dataset] = None,
    scores_baseline_cos: Input[Dataset] = None,
    scores_baseline_full: Input[Dataset] = None,
    scores_champion: Input[Dataset] = None,
    truth: str = "",
    config: dict[str, Any] = {},
) -> NamedTuple("Verdict", [("gate", str), ("gate_reason", str)]):  # type: ignore[valid-type]
    """Judge the model against its rivals on the held-out searches; the parameter `gate` is the verdict, "pass" or "hold".

    Args:
        dataset: Output of the ingest step.
        features: Output of the features step.
        scores: Scores of the model.
        report: Self-contained HTML report with plots.
        metrics: Ten figures of the slice that decides; the file itself is JSON and has every metric, interval and lift.
        roc: 40 points of the model's ROC curve on the slice that decides.
        summary: The verdict, why, and a narrow table per slice.
        scores_baseline: Scores of XGBoost on standard features, if it was trained.
        scores_baseline_cos: Scores of XGBoost with the cosines, if it was trained.
        scores_baseline_full: Scores of the strongest XGBoost, if it was trained.
        scores_champion: Scores of the model in use on the same rows, if there is one.
        truth: Path or URI of the simulator's truth table, if there is one.
        config: Knobs of EvaluationConfig.
    """
    from tritower.config import from_dict
    from tritower.evaluation import step
    from tritower.evaluation.config import EvaluationConfig

    knobs = from_dict(EvaluationConfig, config, where="settings_evaluation")
    outputs = {"metrics": metrics.path, "report": report.path, "summary": summary.path, "truth": truth, "config": knobs}
    inputs = {"dataset": dataset.path, "features": features.path, "scores": scores.path}
    rivals = {"baseline": scores_baseline, "baseline_cos": scores_baseline_cos, "baseline_full": scores_baseline_full}
    rivals |= {"champion": scores_champion}
    inputs |= {f"scores_{name}": rival.path for name, rival in rivals.items() if rival}
    step.run(**inputs, **outputs)
    for name, value in step.headline(metrics.path, knobs).items():
        metrics.log_metric(name, value)
    roc.log_roc_curve(*step.roc(metrics.path, copy=roc.path))
    return step.verdict(metrics.path)
