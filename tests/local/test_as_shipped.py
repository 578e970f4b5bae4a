"""The demo without a preset: the longest of all tests, so in a file of its own (CI hands out the slow tests file by file)."""

import subprocess
import sys
from pathlib import Path

import pytest
from tritower import storage

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_demo_as_it_is_shipped_runs_with_the_inputs_of_a_backend(tmp_path: Path) -> None:
    """On a log of a third of its size: AUC .754 against .733."""
    command = [sys.executable, "-m", "pipelines", "demo", "--impressions", "60000", "--backend-inputs", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "15/15" in done.stdout
    metrics = storage.read_json(tmp_path / "metrics.json")
    assert metrics["randomised"]["model"]["auc"] > metrics["randomised"]["baseline"]["auc"] > 0.5
