"""The defaults and the loss curve of a training with them: a refactor must show the same, a feature shows why it changed.

`UPDATE_GOLDEN=1 python -m pytest tests/unit/ranker/test_golden.py` writes both anew.
"""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tritower import storage
from tritower.config import to_dict
from tritower.ranker import session
from tritower.ranker.config import RankerConfig, TrainingConfig
from tritower.ranker.process_group import ProcessGroup

GOLDEN = Path(__file__).parents[2] / "golden/ranker_loss.json"
# All defaults but what the size of the log and equal figures on every processor ask for.
CONFIG = RankerConfig(training=TrainingConfig(epochs=2, batch_size=256, precision="fp32"))


def complete(log: Any, folder: Path) -> Path:
    """The log with occupations and descriptions, each missing for some jobs, so that no part of the network is left out."""
    for split in ("train", "validation"):
        table = pq.read_table(log.features / split)
        job = table["document_text"].to_numpy()
        for name, number in (("occupation_key", job % 7), ("description_text", job * 7 % 260)):
            table = table.append_column(name, pa.array(number, pa.int32(), mask=job % 5 == 0))
        (folder / split).mkdir(parents=True)
        pq.write_table(table, folder / split / "part-00000.parquet")
    (folder / "features.json").write_bytes((log.features / "features.json").read_bytes())
    return folder


def test_the_defaults_and_their_loss_curve_are_the_golden_ones(log: Any, tmp_path: Path):
    """Tolerance 1e-3 of each log loss: other processors add float32 in another order. The last one is that of all members."""
    torch.set_num_threads(1)
    session.train(
        features=complete(log, tmp_path / "features"), embeddings=log.embeddings, model=tmp_path / "model",
        work=tmp_path / "work", failures="never", config=CONFIG, group=ProcessGroup(), metrics_file=tmp_path / "metrics",
    )  # fmt: skip
    lines = (line.partition("=") for line in (tmp_path / "metrics").read_text().splitlines())
    losses = [float(value) for name, _, value in lines if name == "log_loss"]
    losses.append(round(storage.read_json(tmp_path / "model/metrics.json")["validation_log_loss"], 6))
    defaults = {group: knobs for group, knobs in to_dict(RankerConfig()).items() if group != "launch"}
    if os.environ.get("UPDATE_GOLDEN"):
        storage.write_json(GOLDEN, {"defaults": defaults, "log_loss": losses})
    golden = json.loads(GOLDEN.read_text())
    assert defaults == golden["defaults"]
    assert losses == pytest.approx(golden["log_loss"], rel=1e-3)
    assert losses[-1] < losses[0] - 0.01
