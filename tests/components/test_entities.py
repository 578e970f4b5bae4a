"""The `entities` component on a dataset of a few texts."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import schema, storage
from tritower.entities import step
from tritower.entities.config import EntitiesConfig
from tritower.errors import ConfigError

TEXTS = ["", "sr. acountant", "Registered Nurse - Nights (Austin, TX)", "walmart cashier", "Cashier, Acme Foods LLC", "???"]
DESCRIPTION = "We are hiring: registered nurse."  # found by no query and in no title


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    folder.mkdir()
    size = len(TEXTS)
    queries = [i in (0, 1, 3, 5) for i in range(size)]
    texts = {
        "text": list(range(size + 1)), "value": [*TEXTS, DESCRIPTION], "is_query": [*queries, False],
        "is_title": [i == 2 for i in range(size + 1)], "is_document": [i == 4 for i in range(size + 1)],
        "is_profile": [False] * (size + 1), "is_description": [i in (4, size) for i in range(size + 1)],
    }  # fmt: skip
    pq.write_table(pa.table(texts, schema=schema.DATASET_TEXTS.arrow()), folder / "texts.parquet")
    pq.write_table(pa.table({"company": ["Walmart Inc.", "Acme Foods, LLC", "Walmart Inc."]}), folder / "jobs.parquet")
    return folder


def test_step_writes_every_entity_once_in_order_whatever_the_batches(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rows in (1, 2):
        monkeypatch.setattr(step, "BATCH_ROWS", rows)
        numbers = step.run(dataset=dataset, entities=tmp_path / ("entities" if rows == 2 else "one"), config=EntitiesConfig())
    assert pq.read_table(tmp_path / "one/entities.parquet") == pq.read_table(tmp_path / "entities/entities.parquet")
    table = pq.read_table(tmp_path / "entities/entities.parquet")
    assert table.schema.equals(schema.ENTITIES.arrow())
    rows = table.to_pylist()
    keys = [(row["text"], row["start"], row["end"], row["label"]) for row in rows]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)
    found = {(row["text"], TEXTS[row["text"]][row["start"] : row["end"]], row["label"], row["value"]) for row in rows}
    assert {
        (1, "sr", "SENIORITY", "senior"),
        (1, "acountant", "TITLE", "accountant"),
        (2, "Registered Nurse", "TITLE", "registered nurse"),
        (2, "Nights", "EMPLOYMENT", "night shift"),
        (2, "Austin", "PLACE", "austin"),
        (2, "TX", "PLACE", "texas"),
        (3, "walmart", "COMPANY", "walmart"),
        (3, "cashier", "TITLE", "cashier"),
        (4, "Cashier", "TITLE", "cashier"),
        (4, "Acme Foods", "COMPANY", "acme foods"),
    } <= found
    assert not {row["text"] for row in rows} & {0, 5, 6}
    assert numbers["texts"] == 6 and numbers["entities"] == len(rows)
    assert numbers["titles_covered"] == 1.0 and numbers["queries_covered"] == pytest.approx(2 / 3)
    assert storage.read_json(tmp_path / "entities/entities.json")["counts"]["texts"] == 6


def test_component_as_a_plain_call(dataset: Path, tmp_path: Path) -> None:
    from kfp import dsl
    from tritower.entities.component import entities

    out = dsl.Dataset(name="entities", uri=str(tmp_path / "out"))
    source = dsl.Dataset(name="dataset", uri=str(dataset))
    entities.python_func(dataset=source, entities=out, config={"companies": "false"})
    values = pq.read_table(tmp_path / "out/entities.parquet")["value"].to_pylist()
    assert "accountant" in values and "acme foods" not in values
    assert out.metadata["texts"] == 6 == storage.read_json(tmp_path / "out/entities.json")["counts"]["texts"]


def test_config_is_checked() -> None:
    with pytest.raises(ConfigError, match="spacy_model"):
        EntitiesConfig(method="spacy")
