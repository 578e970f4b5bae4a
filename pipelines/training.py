"""The main pipeline: raw logs in; a trained ranker, its evaluation against its rivals and ranked jobs out."""

from typing import Any, NamedTuple

from kfp import dsl

from pipelines.nested import RIVALS
from pipelines.wiring import Wiring


class Outputs(NamedTuple):
    """What a run hands back; `gate` is "pass" or "hold"."""

    ranker_model: dsl.Model
    encoder: dsl.Model
    metrics: dsl.Metrics
    report: dsl.HTML
    recommendations: dsl.Dataset
    state: dsl.Dataset
    gate: str
    gate_reason: str


def training(
    wiring: Wiring,
    data_jobs: str,
    data_impressions: str,
    data_users: str = "",
    data_truth: str = "",
    data_version: str = "",
    data_state: str = "",
    engine: str = "duckdb",
    launcher: str = "local",
    model_champion: str = "",
    model_ranker: str = "",
    model_encoder: str = "",
) -> Outputs:
    """Train, evaluate and apply a triple tower ranker on a job board's logs.

    A set of parameters to copy:
    {"data_jobs": "s3://bucket/jobs.parquet", "data_impressions": "s3://bucket/impressions",
     "data_users": "s3://bucket/users.parquet", "data_version": "2026-11-26",
     "ranker_epochs": 4, "settings_ranker": {"optimiser.learning_rate": 0.001}}

    Args:
        data_jobs: location of the job adverts.
        data_impressions: location of the jobs shown and clicked.
        data_users: location of what is known of the users; empty when nothing is.
        data_truth: location of a simulated log's true probabilities; empty for real logs.
        data_version: changes when the input does; without it a step whose input changed in place would be taken from the cache.
        data_state: location of the `state` that an earlier run handed back; features continue from it, and impressions that
            it has counted are neither featurised nor trained on again. Empty to start from nothing.
        engine: duckdb (in the step's own process) or spark (a cluster): what ingest and features work with.
        launcher: local (in the step's own pod), pytorchjob or trainjob (in pods of such jobs on the cluster, which read and
            write the run's store): where the encoder is tuned, texts are embedded and the ranker trains. With either pytorchjob
            or katib the search of the ranker's knobs is an Experiment of Katib.
        model_champion: root of the pointer (champion.json) to the model in use; when the gate passes, it names this run's.
            Empty where none is kept.
        model_ranker: location of the model in use, in place of the pointer's; the gate compares with it.
        model_encoder: location of the text encoder that the same run made.
    """
    data = {"jobs": data_jobs, "impressions": data_impressions, "users": data_users, "data_version": data_version}
    ingested = wiring.add("ingest", **data, engine=engine).outputs
    dataset, dataset_at = ingested["dataset"], ingested["dataset_at"]
    found = wiring.add("entities", dataset=dataset).outputs["entities"]
    tuned = wiring.add("finetune", dataset=dataset_at, launcher=launcher).outputs
    encoder, encoder_at = tuned["encoder"], tuned["encoder_at"]
    embedded = wiring.add("embed", dataset=dataset_at, encoder=encoder_at, launcher=launcher).outputs
    embeddings = embedded["embeddings"]
    known = {"dataset": dataset, "entities": found, "previous_state": data_state, "engine": engine}
    computed = wiring.add("features", embeddings=embeddings, **known)
    rows = {"features": computed.outputs["features"], "embeddings": embeddings}
    rows_at = {"features": computed.outputs["features_at"], "embeddings": embedded["embeddings_at"]}

    trained = wiring.add("ranker", **rows_at, **_tuned(wiring, rows_at, launcher), launcher=launcher)
    rivals, rival = _baselines(wiring, rows)
    best = wiring.nest(
        "recommendations",
        dataset=dataset,
        entities=found,
        embeddings=embeddings,
        ranker_model=trained.outputs["ranker_model"],
        data_state=data_state,
        engine=engine,
    )
    compared: dict[str, Any] = {}
    if "champion" in wiring.parts:
        given = {"champion": model_champion, "ranker_model": model_ranker, "encoder": model_encoder}
        start = {"dataset": dataset_at, "launcher": launcher}
        rivals["scores_champion"], compared["version"] = _champion(wiring, given, start, known)
    judged = wiring.add(
        "evaluation",
        dataset=dataset,
        features=rows["features"],
        scores=trained.outputs["ranker_scores"],
        truth=data_truth,
        **rivals,
    )
    left = {
        "ranker_model": trained.outputs["ranker_model"],
        "encoder": encoder,
        "state": computed.outputs["state"],
        "metrics": judged.outputs["metrics"],
    }
    about = {"gate": judged.outputs["gate"], "data_version": data_version, "run": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    wiring.add("record", champion=model_champion, **left, **about, **compared).after(best)
    sources = {"dataset": dataset, "entities": found, "encoder": encoder, "state": computed.outputs["state"], **rows}
    _served(wiring, sources | rival, trained, judged)
    return Outputs(
        ranker_model=trained.outputs["ranker_model"],
        encoder=encoder,
        metrics=judged.outputs["metrics"],
        report=judged.outputs["report"],
        recommendations=best.outputs["recommendations"],
        state=computed.outputs["state"],
        gate=judged.outputs["gate"],
        gate_reason=judged.outputs["gate_reason"],
    )


def _served(wiring: Wiring, inputs: dict[str, Any], trained: Any, judged: Any) -> None:
    """What a model server loads, and, if the gate passes, a server on the cluster that has loaded it."""
    if "bundle" not in wiring.parts:
        return
    made = wiring.add("bundle", ranker_model=trained.outputs["ranker_model"], **inputs).after(judged)
    if "deploy" in wiring.parts:
        about = {"gate": judged.outputs["gate"], "run": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
        wiring.add("deploy", bundle=made.outputs["bundle_at"], **about)


def _tuned(wiring: Wiring, rows_at: dict[str, Any], launcher: Any) -> dict[str, Any]:
    """The ranker's knobs as the search found them, those of the user's kept; nothing where there is no search."""
    if "tune" not in wiring.parts:
        return {}
    search = wiring.add("tune", **rows_at, fixed=wiring.configs["ranker"], launcher=launcher)
    return {"config": search.outputs["ranker_settings"]}


def _baselines(wiring: Wiring, rows: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The baselines' scores as inputs of the evaluation; the usual one's model as an input of the bundle, where one is made."""
    if "baselines" not in wiring.parts:
        return {}, {}
    found = wiring.nest("baselines", **rows).outputs
    model = {"baseline": found["baseline_model"]} if "bundle" in wiring.parts else {}
    return {f"scores_{name}": found[f"{name}_scores"] for name in RIVALS}, model


def _champion(wiring: Wiring, given: dict[str, str], start: dict[str, Any], known: dict[str, Any]) -> tuple[Any, Any]:
    """The scores of the model in use, on features of its own encoder's embeddings; and its version."""
    found = wiring.add("champion_resolve", **given).outputs
    used = wiring.add("champion_fetch", ranker_model_at=found["ranker_model"], encoder_at=found["encoder"]).outputs
    embeddings = wiring.add("champion_embed", **start, encoder=used["encoder_copy_at"]).outputs["embeddings"]
    computed = wiring.add("champion_features", embeddings=embeddings, **known)
    rows = {"features": computed.outputs["features"], "embeddings": embeddings}
    return wiring.add("champion", **rows, model=used["ranker_model"]).outputs["scores"], found["version"]
