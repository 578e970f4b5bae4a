"""Pipelines that are one box in others: the rivals, and from a model to ranked jobs."""

from typing import NamedTuple

from kfp.dsl import Dataset, Input, Model

from pipelines.wiring import Wiring

RIVALS = {"baseline": "standard", "baseline_cos": "cosines", "baseline_full": "full"}
"""Step of a rival -> its variant."""


class Baselines(NamedTuple):
    """Scores of the three rivals on the rows that the model is judged on."""

    baseline_scores: Dataset
    baseline_cos_scores: Dataset
    baseline_full_scores: Dataset


def baselines(wiring: Wiring, features: Input[Dataset], embeddings: Input[Dataset]) -> Baselines:
    """Train three XGBoost rivals, from the usual one to the strongest, and score with them.

    Args:
        features: features of the impressions.
        embeddings: embeddings of the texts.
    """
    rows = {"features": features, "embeddings": embeddings}
    return Baselines(
        **{f"{name}_scores": wiring.add(name, **rows, variant=how).outputs["baseline_scores"] for name, how in RIVALS.items()}
    )


class Recommendations(NamedTuple):
    """Ranked jobs, and the state after the log's last event."""

    recommendations: Dataset
    state: Dataset


class RankedJobs(NamedTuple):
    """Ranked jobs."""

    recommendations: Dataset


def recommendations(
    wiring: Wiring,
    dataset: Input[Dataset],
    entities: Input[Dataset],
    embeddings: Input[Dataset],
    ranker_model: Input[Model],
    data_state: str,
    engine: str,
) -> Recommendations:
    """Retrieve candidates for every search, score them with a trained ranker and keep the best.

    Args:
        dataset: the clean dataset.
        entities: what was found in its texts.
        embeddings: embeddings of its texts by the ranker's encoder.
        ranker_model: the trained ranker.
        data_state: location of the state of an earlier run to continue from; empty to start from nothing.
        engine: duckdb or spark.
    """
    chosen = wiring.add("candidates", dataset=dataset, embeddings=embeddings).outputs["candidates"]
    known = {"dataset": dataset, "entities": entities, "embeddings": embeddings, "previous_state": data_state}
    computed = wiring.add("candidate_features", candidates=chosen, **known, engine=engine)
    scored = wiring.add("score", features=computed.outputs["features"], embeddings=embeddings, model=ranker_model)
    best = wiring.add("recommend", dataset=dataset, candidates=chosen, scores=scored.outputs["scores"])
    return Recommendations(recommendations=best.outputs["recommendations"], state=computed.outputs["state"])


def ranked_jobs(
    wiring: Wiring,
    dataset: Input[Dataset],
    entities: Input[Dataset],
    embeddings: Input[Dataset],
    ranker_model: Input[Model],
    data_state: str,
    engine: str,
) -> RankedJobs:
    """As `recommendations`, without the state: where another step hands it back, it would be a node that nobody reads."""
    given = {"dataset": dataset, "entities": entities, "embeddings": embeddings, "ranker_model": ranker_model}
    both = recommendations(wiring, **given, data_state=data_state, engine=engine)
    return RankedJobs(recommendations=both.recommendations)
