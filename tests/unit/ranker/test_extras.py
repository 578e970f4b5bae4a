"""Attention over past clicks, descriptions: by hand, and through the whole step with real files."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tritower.errors import SchemaError
from tritower.ranker import rows, session, step
from tritower.ranker.config import RankerConfig
from tritower.ranker.extras import PastClicks
from tritower.ranker.place import Place


def test_past_clicks_by_hand():
    past = PastClicks(dim=1, width_document=1, width=1)
    with torch.no_grad():
        past.query.weight.fill_(1.0)
        past.query.bias.fill_(0.0)
        past.key_value.weight.copy_(torch.tensor([[1.0], [10.0]]))
        past.key_value.bias.fill_(0.0)
    past_UD = torch.tensor([[math.log(2.0)], [math.log(5.0)]])
    out = past(torch.ones(3, 1), past_UD, torch.tensor([[0, 1], [1, -1], [-1, -1]]))
    # weights beside "nothing" (key 0, value 0): 1, 2, 5
    first = (2 * 10 * math.log(2) + 5 * 10 * math.log(5)) / 8
    second = 5 * 10 * math.log(5) / 6
    torch.testing.assert_close(out, torch.tensor([[first, first], [second, second], [0.0, 0.0]]))


def test_past_texts_are_cut_and_padded():
    batch = pa.RecordBatch.from_pydict({"history_texts": pa.array([[3, 2, 1], None, [], [9]], pa.list_(pa.int32()))})
    assert rows.past_texts(batch.slice(0), 2).tolist() == [[3, 2], [-1, -1], [-1, -1], [9, -1]]
    assert rows.past_texts(batch.slice(3), 2).tolist() == [[9, -1]]
    assert rows.past_texts(batch, 0).shape == (4, 0)


def test_a_network_with_past_clicks_trains_and_scores(log: Any, tmp_path: Path):
    config = RankerConfig(
        query_tower=(8,), document_tower=(8,), interaction_tower=(8,), head=(8,), epochs=1, batch_size=256, past_clicks=2,
        past_width=4,
    )  # fmt: skip
    with pytest.raises(SchemaError, match="history_texts"):
        rows.optional_columns(log.features / "train", past=True, descriptions=False)
    features = tmp_path / "features"
    for split in ("train", "validation"):
        table = pq.read_table(log.features / split)
        lists = [list(range(n % 4)) for n in range(table.num_rows)]
        table = table.append_column("history_texts", pa.array(lists, pa.list_(pa.int32())))
        (features / split).mkdir(parents=True)
        pq.write_table(table, features / split / "part-00000.parquet")
    (features / "features.json").write_bytes((log.features / "features.json").read_bytes())

    def train(name: str, knobs: RankerConfig) -> None:
        session.train(
            features=features, embeddings=log.embeddings, model=tmp_path / name, work=tmp_path / f"{name}-rows",
            failures=tmp_path, config=knobs, place=Place(),
        )  # fmt: skip

    train("model", config)
    numbers = step.score(features=features, embeddings=log.embeddings, model=tmp_path / "model", scores=tmp_path / "scores")
    assert numbers["rows"] == 8000.0
    train("plain", replace(config, past_clicks=0))
    step.score(features=features, embeddings=log.embeddings, model=tmp_path / "plain", scores=tmp_path / "others")
    with_extras, without = (pq.read_table(tmp_path / name / "validation.parquet")["score"] for name in ("scores", "others"))
    assert not with_extras.equals(without)


def test_descriptions_reach_the_document_tower(log: Any, tmp_path: Path):
    """Clicks that only the description explains: a network that sees it ranks them, one that does not cannot."""
    features, rng = tmp_path / "features", np.random.default_rng(3)
    matrix_TD = np.load(log.embeddings / "matrix.npy")
    good_TD, bad_TD = rng.normal(1, 0.1, (5, matrix_TD.shape[1])), rng.normal(-1, 0.1, (5, matrix_TD.shape[1]))
    embeddings = tmp_path / "embeddings"
    shutil.copytree(log.embeddings, embeddings)
    np.save(embeddings / "matrix.npy", np.concatenate([matrix_TD, good_TD, bad_TD]).astype(np.float16))
    good = {}
    for split in ("train", "validation"):
        table = pq.read_table(log.features / split)
        kind = rng.integers(0, 11, table.num_rows)  # 0 to 4 good, 5 to 9 bad, 10 no description
        chance = np.where(kind < 5, 0.6, np.where(kind < 10, 0.1, 0.3))
        place = table.schema.get_field_index("clicked")
        table = table.set_column(place, "clicked", pa.array(rng.random(table.num_rows) < chance))
        text = pa.array(kind + len(matrix_TD), pa.int32(), mask=kind == 10)
        (features / split).mkdir(parents=True)
        pq.write_table(table.append_column("description_text", text), features / split / "part-00000.parquet")
        good[split] = chance
    (features / "features.json").write_bytes((log.features / "features.json").read_bytes())
    found = {}
    for descriptions in (True, False):
        config = RankerConfig(
            query_tower=(8,), document_tower=(8,), interaction_tower=(8,), head=(8,), epochs=2, batch_size=256, members=1,
            descriptions=descriptions, position="none", text_scale=1.0,
        )  # fmt: skip
        places = {name: tmp_path / f"{name}-{descriptions}" for name in ("model", "scores")}
        session.train(
            features=features, embeddings=embeddings, model=places["model"], work=tmp_path / f"rows-{descriptions}",
            failures=tmp_path, config=config, place=Place(),
        )  # fmt: skip
        step.score(features=features, embeddings=embeddings, **places)
        score = pq.read_table(places["scores"] / "validation.parquet")["score"].to_numpy()
        found[descriptions] = np.corrcoef(score, good["validation"])[0, 1]
    assert found[True] > 0.9
    assert abs(found[False]) < 0.2
