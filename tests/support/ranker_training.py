"""Small trainings in real processes, and when two of them count as one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tritower import storage
from tritower.config import to_dict
from tritower.jobs import open_launcher
from tritower.ranker import launching
from tritower.ranker.config import LaunchConfig, NetworkConfig, RankerConfig, TrainingConfig

from tests.support.ranker_log import Log

SMALL = RankerConfig(
    network=NetworkConfig(query_tower=(16,), document_tower=(16,), interaction_tower=(16,), head=(16,)),
    training=TrainingConfig(epochs=2, batch_size=256, precision="fp32", members=1),
    launch=LaunchConfig(threads=1, log_every_s=1.0),
)


def train(log: Log, folder: Path, config: RankerConfig) -> Path:
    """Train in real processes; returns the model folder."""
    places = {"features": str(log.features), "embeddings": str(log.embeddings), "model": str(folder / "model")}
    open_launcher().run(launching.job(**places, config=config))
    return folder / "model"


def same(one: Path, two: Path) -> None:
    """Whether two models are one, but for the order of float32 additions: 1e-4 of the loss, 2e-3 of the weights."""
    losses = [storage.read_json(model / "metrics.json")["validation_log_loss"] for model in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    weights = [load_file(model / "model.safetensors") for model in (one, two)]
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, atol=2e-3, err_msg=name)


def killed_and_started_again(log: Log, folder: Path, config: RankerConfig, *, patience_s: float) -> None:
    """Train to `folder/model`, killed at its second checkpoint, and start it again: it resumes."""

    def command(*before: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", *before, "tritower.ranker", f"--features={log.features}", f"--embeddings={log.embeddings}",
             f"--model={folder / 'model'}", f"--config={json.dumps(to_dict(config))}"],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    first = command("tests.support.killed", config.launch.checkpoints, "*/slot-1/state.json")
    first.communicate(timeout=patience_s)
    assert first.returncode == -signal.SIGKILL and not (folder / "model").exists()
    second = command()
    _, told = second.communicate(timeout=patience_s)
    assert second.returncode == 0 and "resumed at step" in told, told
