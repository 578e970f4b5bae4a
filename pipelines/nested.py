"""Pipelines that are one box in others: the rivals, and from a model to ranked jobs."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kfp.dsl import Dataset, Input, Model

from pipelines.wiring import Wiring

RIVALS = {"baseline": "standard", "baseline_cos": "cosines", "baseline_full": "full"}
"""Step of a rival -> its variant."""


class BaselinesAndModel(NamedTuple):
    """Scores of the three rivals on the rows that the model is judged on, and the usual rival itself."""

    baseline_scores: Dataset
    baseline_cos_scores: Dataset
    baseline_full_scores: Dataset
    baseline_model: Model


class Baselines(NamedTuple):
    """Scores of the three rivals on the rows that the model is judged on."""

    baseline_scores: Dataset
    baseline_cos_scores: Dataset
    baseline_full_scores: Dataset


def baselines_and_model(wiring: Wiring, features: Input[Dataset], embeddings: Input[Dataset]) -> BaselinesAndModel:
    """As `baselines`, with a model for a server to show the order of: one that reads features alone.

    Args:
        features: features of the impressions.
        embeddings: embeddings of the texts.
    """
    rows = {"features": features, "embeddings": embeddings}
    trained = {name: wiring.add(name, **rows, variant=how).outputs for name, how in RIVALS.items()}
    scores = {f"{name}_scores": outputs["baseline_scores"] for name, outputs in trained.items()}
    return BaselinesAndModel(**scores, baseline_model=trained["baseline"]["baseline_model"])


def baselines(wiring: Wiring, features: Input[Dataset], embeddings: Input[Dataset]) -> Baselines:
    """Train three XGBoost rivals, from the usual one to the strongest, and score with them.

    Args:
        features: features of the impressions.
        embeddings: embeddings of the texts.
    """
    both = baselines_and_model(wiring, features, embeddings)
    return Baselines(both.baseline_scores, both.baseline_cos_scores, both.baseline_full_scores)


def of_parts(inner: Mapping[str, Callable[..., Any]], parts: frozenset[str]) -> dict[str, Callable[..., Any]]:
    """The nested pipelines of one that has these parts: where no bundle is made, a model would be a node that nobody reads."""
    return {**inner} | ({"baselines": baselines_and_model} if "bundle" in parts and "baselines" in inner else {})


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
