"""The KFP interface of the `entities` step."""

from typing import Any

from kfp.dsl import Dataset, Input, Metrics, Output

from tritower._build import component


@component("base")
def entities(dataset: Input[Dataset], entities: Output[Dataset], metrics: Output[Metrics], config: dict[str, Any] = {}) -> None:
    """Find titles, skills, seniority, companies, places, employment types and qualifications in every unique text.

    Args:
        dataset: what `ingest` wrote.
        entities: entities.parquet, sorted by text, and entities.json with the counts.
        metrics: share of titles and queries with an entity, and counts per label.
        config: knobs of `EntitiesConfig`; empty for the defaults.
    """
    from tritower.config import from_dict
    from tritower.entities import step
    from tritower.entities.config import EntitiesConfig
    from tritower.storage import write_json

    counts = step.run(dataset=dataset.path, entities=entities.path, config=from_dict(EntitiesConfig, config))
    metrics.metadata.update(counts)
    write_json(metrics.path, counts)
