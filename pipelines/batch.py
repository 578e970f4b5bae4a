"""The daily pipeline: ranked jobs for everyone who searched, from a model that is already trained."""

from typing import NamedTuple

from kfp import dsl

from pipelines.wiring import Wiring


class Outputs(NamedTuple):
    """What a run hands back."""

    recommendations: dsl.Dataset
    state: dsl.Dataset


def batch(
    wiring: Wiring,
    data_jobs: str,
    data_impressions: str,
    model_champion: str = "",
    model_ranker: str = "",
    model_encoder: str = "",
    data_users: str = "",
    data_version: str = "",
    data_state: str = "",
    engine: str = "duckdb",
    launcher: str = "local",
) -> Outputs:
    """Rank the jobs open at the end of a log for the latest search of every user in it.

    A set of parameters to copy:
    {"model_ranker": "minio://bucket/runs/ranker_model", "model_encoder": "minio://bucket/runs/encoder",
     "data_jobs": "s3://bucket/jobs.parquet", "data_impressions": "s3://bucket/impressions",
     "data_users": "s3://bucket/users.parquet", "data_version": "2026-11-26",
     "recommend_top_k": 20, "settings_features": {"ctr_half_life_days": 7}}

    Args:
        data_jobs: location of the job adverts.
        data_impressions: location of the jobs shown and clicked; the history that features are computed from.
        model_champion: root of the pointer (champion.json) that says which model is in use and where its state ends: each run
            goes on where the one before ended. Empty where none is kept: then the two below are needed.
        model_ranker: location of a ranker that the training pipeline made, in place of the pointer's.
        model_encoder: location of the text encoder that the same run made.
        data_users: location of what is known of the users; empty when nothing is.
        data_version: changes when the input does; without it a step whose input changed in place would be taken from the cache.
        data_state: location of the `state` that an earlier run, of this pipeline or of training, handed back: the log then
            need hold only what came since. Empty to take the pointer's, or to compute from the whole log.
        engine: duckdb (in the step's own process) or spark (a cluster): what ingest and features work with.
        launcher: local (in the step's own pod), pytorchjob or trainjob (in pods of such a job on the cluster, which read and
            write the run's store): where texts are embedded.
    """
    given = {"ranker_model": model_ranker, "encoder": model_encoder, "state": data_state}
    found = wiring.add("resolve", champion=model_champion, **given).outputs
    used = wiring.add("fetch", ranker_model_at=found["ranker_model"], encoder_at=found["encoder"]).outputs
    data = {"jobs": data_jobs, "impressions": data_impressions, "users": data_users, "data_version": data_version}
    ingested = wiring.add("ingest", **data, engine=engine).outputs
    dataset = ingested["dataset"]
    known = wiring.add("entities", dataset=dataset).outputs["entities"]
    at = {"dataset": ingested["dataset_at"], "encoder": used["encoder_copy_at"]}
    embeddings = wiring.add("embed", **at, launcher=launcher).outputs["embeddings"]
    best = wiring.nest(
        "recommendations",
        dataset=dataset,
        entities=known,
        embeddings=embeddings,
        ranker_model=used["ranker_model"],
        data_state=found["state"],
        engine=engine,
    )
    left = {"state": best.outputs["state"], "version": found["version"], "run": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    wiring.add("record", champion=model_champion, **left).after(best)
    return Outputs(recommendations=best.outputs["recommendations"], state=best.outputs["state"])
