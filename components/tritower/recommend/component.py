"""The KFP interface of `candidates` and `recommend`."""

from typing import Any

from kfp.dsl import HTML, Dataset, Input, Output

from tritower._build import component


@component("base")
def candidates(
    dataset: Input[Dataset], embeddings: Input[Dataset], candidates: Output[Dataset], config: dict[str, Any] = {}
) -> None:
    """Choose the searches to answer and retrieve the jobs that are worth scoring for each.

    Args:
        dataset: what `ingest` wrote.
        embeddings: what `embed` wrote.
        candidates: the searches, and one row per search and candidate job, ready for `features`.
        config: knobs of `CandidatesConfig`.
    """
    from tritower.config import from_dict
    from tritower.properties import describe
    from tritower.recommend import step
    from tritower.recommend.config import CandidatesConfig

    counts = step.candidates(
        dataset=dataset.path,
        embeddings=embeddings.path,
        candidates=candidates.path,
        config=from_dict(CandidatesConfig, config),
    )
    describe(candidates, counts, dataset, embeddings)


@component("base")
def recommend(
    dataset: Input[Dataset],
    candidates: Input[Dataset],
    scores: Input[Dataset],
    recommendations: Output[Dataset],
    recommendations_report: Output[HTML],
    recommend_top_k: int = 10,
    config: dict[str, Any] = {},
) -> None:
    """Write the best jobs of each search, best first, as one Parquet file.

    Args:
        dataset: what `ingest` wrote.
        candidates: what `candidates` wrote.
        scores: a model's scores of these candidates.
        recommendations: a Parquet file with the columns of `schema.RECOMMENDATIONS`.
        recommendations_report: twenty searches with their ranked jobs.
        recommend_top_k: jobs per search.
        config: knobs of `RecommendConfig`; they win where they name `top_k`.
    """
    from tritower.config import from_dict
    from tritower.properties import describe
    from tritower.recommend import step
    from tritower.recommend.config import RecommendConfig

    counts = step.run(
        dataset=dataset.path,
        candidates=candidates.path,
        scores=scores.path,
        recommendations=recommendations.path,
        report=recommendations_report.path,
        config=from_dict(RecommendConfig, config, plain={"top_k": recommend_top_k}),
    )
    describe(recommendations, {"rows": counts["recommendations"], **counts}, dataset, scores)
