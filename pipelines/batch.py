"""The daily pipeline: ranked jobs for everyone who searched, from a model that is already trained."""

from typing import Any, NamedTuple

from kfp import dsl
from tritower.encoder.component import embed
from tritower.entities.component import entities
from tritower.features.component import features
from tritower.ingest.component import ingest
from tritower.ranker.component import score
from tritower.recommend.component import candidates, recommend

from pipelines.flavours import opens_store


class Outputs(NamedTuple):
    """What a run hands back."""

    recommendations: dsl.Dataset
    state: dsl.Dataset


def batch(
    jobs: str,
    impressions: str,
    model: str,
    encoder: str,
    users: str = "",
    data_version: str = "",
    previous_state: str = "",
    engine: str = "duckdb",
    ingest_config: dict[str, Any] = {},
    entities_config: dict[str, Any] = {},
    embed_config: dict[str, Any] = {},
    features_config: dict[str, Any] = {},
    candidates_config: dict[str, Any] = {"split": "all", "latest_per_user": True, "answer_at": "end"},
    recommend_config: dict[str, Any] = {},
) -> Outputs:
    """Rank the jobs open at the end of a log for the latest search of every user in it.

    Args:
        jobs: location of the job adverts.
        impressions: location of the jobs shown and clicked; the history that features are computed from.
        model: location of the ranker that the training pipeline made.
        encoder: location of the text encoder that the same run made.
        users: location of what is known of the users; empty when nothing is.
        data_version: changes when the input does; without it a step whose input changed in place would be taken from the cache.
        previous_state: location of the `state` that an earlier run, of this pipeline or of training, handed back: the log then
            need hold only what came since. Empty to compute from the whole log.
        engine: duckdb (in the step's own process) or spark (a cluster): what ingest and features work with.
        ingest_config: knobs of `tritower.ingest.config.IngestConfig`.
        entities_config: knobs of `tritower.entities.config.EntitiesConfig`.
        embed_config: knobs of `tritower.encoder.config.EmbedConfig`.
        features_config: knobs of `tritower.features.config.FeaturesConfig`, as in training.
        candidates_config: knobs of `tritower.recommend.config.CandidatesConfig`.
        recommend_config: knobs of `tritower.recommend.config.RecommendConfig`.
    """
    trained = dsl.importer(artifact_uri=model, artifact_class=dsl.Model).output
    texts = dsl.importer(artifact_uri=encoder, artifact_class=dsl.Model).output
    data = ingest(
        jobs=jobs, impressions=impressions, users=users, data_version=data_version, engine=engine, config=ingest_config
    )
    opens_store(data)
    dataset = data.outputs["dataset"]
    found = entities(dataset=dataset, config=entities_config).outputs["entities"]
    embeddings = embed(dataset=dataset, encoder=texts, config=embed_config).outputs["embeddings"]
    chosen = candidates(dataset=dataset, embeddings=embeddings, config=candidates_config).outputs["candidates"]
    computed = features(
        dataset=dataset,
        embeddings=embeddings,
        candidates=chosen,
        entities=found,
        previous_state=previous_state,
        engine=engine,
        config=features_config,
    )
    opens_store(computed.set_display_name("candidate_features"))
    scored = score(features=computed.outputs["features"], embeddings=embeddings, model=trained).outputs["scores"]
    best = recommend(dataset=dataset, candidates=chosen, scores=scored, config=recommend_config)
    return Outputs(recommendations=best.outputs["recommendations"], state=computed.outputs["state"])
