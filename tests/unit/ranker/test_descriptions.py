"""Descriptions reach the document tower: through the whole step with real files."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tritower.ranker import session, step
from tritower.ranker.config import NetworkConfig, RankerConfig, TrainingConfig
from tritower.ranker.process_group import ProcessGroup


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
            network=NetworkConfig(
                query_tower=(8,),
                document_tower=(8,),
                interaction_tower=(8,),
                head=(8,),
                descriptions=descriptions,
                position="none",
                text_scale=1.0,
            ),
            training=TrainingConfig(epochs=2, batch_size=256, members=1),
        )
        places = {name: tmp_path / f"{name}-{descriptions}" for name in ("model", "scores")}
        session.train(
            features=features, embeddings=embeddings, model=places["model"], work=tmp_path / f"rows-{descriptions}",
            failures="never", config=config, group=ProcessGroup(),
        )  # fmt: skip
        step.score(features=features, embeddings=embeddings, **places)
        score = pq.read_table(places["scores"] / "validation.parquet")["score"].to_numpy()
        found[descriptions] = np.corrcoef(score, good["validation"])[0, 1]
    assert found[True] > 0.9
    assert abs(found[False]) < 0.2
