"""The loss curve of a fixed training: a refactor must show the same one, a feature shows why it changed.

`UPDATE_GOLDEN=1 python -m pytest tests/unit/ranker/test_golden.py` writes it anew.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tritower import storage
from tritower.ranker import normaliser, preparation, rows
from tritower.ranker.config import NetworkConfig, OptimiserConfig, RankerConfig, TrainingConfig
from tritower.ranker.network import ClickModel
from tritower.ranker.place import Place
from tritower.ranker.training import Trainer

GOLDEN = Path(__file__).parents[2] / "golden/ranker_loss.json"
CONFIG = RankerConfig(
    network=NetworkConfig(
        descriptions=False,
        text_scale=1.0,
        query_tower=(32, 16),
        document_tower=(32, 16),
        interaction_tower=(32,),
        head=(32,),
        cross_layers=1,
        occupation_classes=0,
    ),
    optimiser=OptimiserConfig(ema_decay=0.9),
    training=TrainingConfig(epochs=4, batch_size=256, precision="fp32", seed=3, patience=99),
)


def test_the_loss_curve_is_the_golden_one(log: Any, tmp_path: Path):
    """Tolerance 1e-3 of each log loss: other processors add float32 in another order."""
    torch.set_num_threads(1)
    names = rows.feature_names(log.features)
    fitted = normaliser.fit(preparation.scan(log.features / "train", names, sample=5000).raw_SF, kind="quantile")
    train, validation = (
        preparation.write(log.features / split, tmp_path / split, names=names, normaliser=fitted)
        for split in ("train", "validation")
    )
    matrix_TD, _ = rows.load_embeddings(log.embeddings)
    torch.manual_seed(CONFIG.training.seed)
    model = ClickModel(CONFIG.network, dim=matrix_TD.shape[1], features=len(names))
    progress = Trainer(
        model, train=train, validation=validation, matrix_TD=matrix_TD, config=CONFIG, place=Place(), checkpoints="",
        failures="never",
    ).run()  # fmt: skip
    curve = [{"step": entry["step"], "log_loss": round(entry["log_loss"], 6)} for entry in progress.history]
    if os.environ.get("UPDATE_GOLDEN"):
        storage.write_json(GOLDEN, curve)
    golden = json.loads(GOLDEN.read_text())
    assert [entry["step"] for entry in curve] == [entry["step"] for entry in golden]
    assert [entry["log_loss"] for entry in curve] == pytest.approx([entry["log_loss"] for entry in golden], rel=1e-3)
    assert curve[-1]["log_loss"] < curve[0]["log_loss"] - 0.01
