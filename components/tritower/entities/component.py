"""The KFP interface of the `entities` step."""

from typing import Any

from kfp.dsl import Dataset, Input, Output

from tritower._build import component


@component("base")
def entities(dataset: Input[Dataset], entities: Output[Dataset], config: dict[str, Any] = {}) -> None:
    """Find titles, skills, seniority, companies, places, employment types and qualifications in every unique text.

    Args:
        dataset: what `ingest` wrote.
        entities: entities.parquet, sorted by text, and entities.json with the counts. Its properties: share of titles and
            queries with an entity, and counts per label.
        config: knobs of `EntitiesConfig`; empty for the defaults.
    """
    from tritower.config import from_dict
    from tritower.entities import step
    from tritower.entities.config import EntitiesConfig
    from tritower.properties import describe

    counts = step.run(dataset=dataset.path, entities=entities.path, config=from_dict(EntitiesConfig, config))
    describe(entities, counts, dataset)
