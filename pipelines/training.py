"""The main pipeline: raw logs in; a trained ranker, its evaluation against two baselines and ranked jobs out."""

from typing import Any, NamedTuple

from kfp import dsl
from tritower.baseline.component import baseline
from tritower.encoder.component import embed, finetune
from tritower.entities.component import entities
from tritower.evaluation.component import evaluation
from tritower.features.component import features
from tritower.ingest.component import ingest
from tritower.ranker.component import ranker, score
from tritower.recommend.component import candidates, recommend

from pipelines.flavours import opens_store


class Outputs(NamedTuple):
    """What a run hands back."""

    model: dsl.Model
    encoder: dsl.Model
    metrics: dsl.Metrics
    report: dsl.HTML
    recommendations: dsl.Dataset
    state: dsl.Dataset


def training(
    jobs: str,
    impressions: str,
    users: str = "",
    truth: str = "",
    data_version: str = "",
    previous_state: str = "",
    engine: str = "duckdb",
    ingest_config: dict[str, Any] = {},
    entities_config: dict[str, Any] = {},
    finetune_config: dict[str, Any] = {},
    embed_config: dict[str, Any] = {},
    features_config: dict[str, Any] = {},
    ranker_config: dict[str, Any] = {},
    baseline_config: dict[str, Any] = {},
    baseline_full_config: dict[str, Any] = {},
    evaluation_config: dict[str, Any] = {},
    candidates_config: dict[str, Any] = {},
    recommend_config: dict[str, Any] = {},
) -> Outputs:
    """Train, evaluate and apply a triple tower ranker on a job board's logs.

    Args:
        jobs: location of the job adverts.
        impressions: location of the jobs shown and clicked.
        users: location of what is known of the users; empty when nothing is.
        truth: location of a simulated log's true probabilities; empty for real logs.
        data_version: changes when the input does; without it a step whose input changed in place would be taken from the cache.
        previous_state: location of the `state` that an earlier run handed back; features continue from it, and impressions that
            it has counted are neither featurised nor trained on again. Empty to start from nothing.
        engine: duckdb (in the step's own process) or spark (a cluster): what ingest and features work with.
        ingest_config: knobs of `tritower.ingest.config.IngestConfig`.
        entities_config: knobs of `tritower.entities.config.EntitiesConfig`.
        finetune_config: knobs of `tritower.encoder.config.FinetuneConfig`; `epochs` 0 keeps the base model.
        embed_config: knobs of `tritower.encoder.config.EmbedConfig`.
        features_config: knobs of `tritower.features.config.FeaturesConfig`.
        ranker_config: knobs of `tritower.ranker.config.RankerConfig`.
        baseline_config: knobs of `tritower.baseline.config.BaselineConfig`, for the first two baselines.
        baseline_full_config: the same for the strongest one, which takes several times as long.
        evaluation_config: knobs of `tritower.evaluation.config.EvaluationConfig`.
        candidates_config: knobs of `tritower.recommend.config.CandidatesConfig`.
        recommend_config: knobs of `tritower.recommend.config.RecommendConfig`.
    """
    data = ingest(
        jobs=jobs, impressions=impressions, users=users, data_version=data_version, engine=engine, config=ingest_config
    )
    opens_store(data)
    dataset = data.outputs["dataset"]
    found = entities(dataset=dataset, config=entities_config).outputs["entities"]
    encoder = finetune(dataset=dataset, config=finetune_config).outputs["model"]
    embeddings = embed(dataset=dataset, encoder=encoder, config=embed_config).outputs["embeddings"]
    known = {"dataset": dataset, "embeddings": embeddings, "entities": found}
    known |= {"previous_state": previous_state, "engine": engine, "config": features_config}
    computed = features(**known)
    opens_store(computed)
    rows = computed.outputs["features"]

    trained = ranker(features=rows, embeddings=embeddings, config=ranker_config)
    rivals = {}
    for name, variant, config in (
        ("baseline", "standard", baseline_config),
        ("baseline_cos", "cosines", baseline_config),
        ("baseline_full", "full", baseline_full_config),
    ):
        rival = baseline(features=rows, embeddings=embeddings, variant=variant, config=config)
        rival.set_display_name(name)
        rivals[f"scores_{name}"] = rival.outputs["scores"]
    judged = evaluation(
        dataset=dataset,
        features=rows,
        scores=trained.outputs["scores"],
        **rivals,
        truth=truth,
        config=evaluation_config,
    )
    opens_store(judged)

    chosen = candidates(dataset=dataset, embeddings=embeddings, config=candidates_config).outputs["candidates"]
    candidate_rows = features(candidates=chosen, **known)
    opens_store(candidate_rows.set_display_name("candidate_features"))
    scored = score(features=candidate_rows.outputs["features"], embeddings=embeddings, model=trained.outputs["model"])
    best = recommend(dataset=dataset, candidates=chosen, scores=scored.outputs["scores"], config=recommend_config)
    return Outputs(
        model=trained.outputs["model"],
        encoder=encoder,
        metrics=judged.outputs["metrics"],
        report=judged.outputs["report"],
        recommendations=best.outputs["recommendations"],
        state=computed.outputs["state"],
    )
