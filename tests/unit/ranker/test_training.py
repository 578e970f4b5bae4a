"""The parts of the training loop: losses, what is watched and written."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tritower.errors import DataError
from tritower.ranker import losses, normaliser, preparation, rows
from tritower.ranker.batches import Source
from tritower.ranker.config import LaunchConfig, NetworkConfig, OptimiserConfig, RankerConfig, TrainingConfig
from tritower.ranker.network import ClickModel
from tritower.ranker.process_group import ProcessGroup
from tritower.ranker.rows import Rows
from tritower.ranker.training import Trainer


def test_click_loss_by_hand():
    click_B, skip_B = torch.log(torch.tensor([0.5, 0.25])), torch.log(torch.tensor([0.5, 0.75]))
    loss = losses.click_loss(click_B, skip_B, torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx(-(math.log(0.5) + math.log(0.75)) / 2)


def test_class_loss_by_hand():
    """Two documents with a class, one without; three rows, of which the second alone is a click on a job with a class."""
    query_QC, document_JC = torch.log(torch.tensor([[0.5, 0.5], [0.75, 0.25]])), torch.log(torch.tensor([[0.25, 0.75]] * 3))
    batch = SimpleNamespace(
        clicked_B=torch.tensor([0.0, 1.0, 1.0]), class_B=torch.tensor([1, 0, -1]), query_B=torch.tensor([0, 1, 0]),
        class_J=torch.tensor([0, 1, -1]),
    )  # fmt: skip
    loss = losses.class_loss(query_QC, document_JC, batch)
    assert loss.item() == pytest.approx(-math.log(0.75) - (math.log(0.25) + math.log(0.75)) / 2)
    nothing = SimpleNamespace(**{**vars(batch), "class_B": torch.tensor([-1] * 3), "class_J": torch.tensor([-1] * 3)})
    assert losses.class_loss(query_QC, document_JC, nothing).item() == 0.0


@pytest.fixture
def parts(log: Any, tmp_path: Path) -> tuple[Rows, Rows, np.ndarray, list[str]]:
    """Rows of train and validation, the matrix, the feature names."""
    names = rows.feature_names(log.features)
    fitted = normaliser.fit(preparation.scan(log.features / "train", names, sample=1000).raw_SF, kind="quantile")
    train, validation = (
        preparation.write(log.features / split, tmp_path / split, names=names, normaliser=fitted)
        for split in ("train", "validation")
    )
    return train, validation, rows.load_embeddings(log.embeddings)[0], names


def trainer(parts: tuple[Rows, Rows, np.ndarray, list[str]], config: RankerConfig) -> Trainer:
    train, validation, matrix_TD, names = parts
    torch.manual_seed(0)
    model = ClickModel(config.network, dim=matrix_TD.shape[1], features=len(names))
    return Trainer(
        model, train=Source(train, matrix_TD), validation=Source(validation, matrix_TD), config=config, group=ProcessGroup(),
        checkpoints="", failures="never",
    )  # fmt: skip


def test_early_stopping_keeps_the_best_weights(parts: Any):
    """Forty epochs on a few rows overfit: training stops `patience` validations after the best, whose weights are back."""
    config = RankerConfig(
        network=NetworkConfig(query_tower=(8,), document_tower=(8,), interaction_tower=(8,), head=(8,), descriptions=False),
        optimiser=OptimiserConfig(learning_rate=0.01, ema_decay=0.0, clip_norm=0.0, warmup_ratio=0.0),
        training=TrainingConfig(epochs=40, batch_size=64, patience=3, evaluations_per_epoch=1, precision="fp32"),
    )
    train, *others = parts
    run = trainer((train.take(np.arange(640)), *others), config)
    progress = run.run()
    seen = [entry["log_loss"] for entry in progress.history]
    assert len(seen) < 40 and seen.index(min(seen)) == len(seen) - 1 - 3
    click_N, skip_N = run.predict(run.validation)
    again = -np.where(run.validation.rows.clicked, click_N, skip_N).mean(dtype=np.float64)
    assert again == pytest.approx(min(seen), rel=1e-6)


def test_scalars_are_written_for_tensorboard(parts: Any, tmp_path: Path):
    folder = tmp_path / "board"
    config = RankerConfig(
        network=NetworkConfig(query_tower=(8,), document_tower=(8,), interaction_tower=(8,), head=(8,), descriptions=False),
        training=TrainingConfig(epochs=2, batch_size=640, evaluations_per_epoch=1),
        launch=LaunchConfig(tensorboard=str(folder)),
    )
    run = trainer(parts, config)
    run.scalars.file = tmp_path / "metrics"
    progress = run.run()
    board = EventAccumulator(str(folder))
    board.Reload()
    assert {"train/loss", "train/rows_per_second", "train/learning_rate", "validation/auc"} <= set(board.Tags()["scalars"])
    written = [(event.step, event.value) for event in board.Scalars("validation/log_loss")]
    assert written == [(entry["step"], pytest.approx(entry["log_loss"])) for entry in progress.history]
    lines = (tmp_path / "metrics").read_text().splitlines()
    assert lines == [f"{name}={entry[name]:.6f}" for entry in progress.history for name in ("log_loss", "auc")]


def test_too_few_rows_are_told(parts: Any):
    train, validation, matrix_TD, names = parts
    none = validation.take(np.empty(0, int))
    with pytest.raises(DataError, match="0 to validate"):
        trainer((train, none, matrix_TD, names), RankerConfig())
