"""The bench of a GPU: every part of it runs on a CPU, and where there is no GPU it says so."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[3] / "tests/bench/gpu.py"


def run(out: Path, *options: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, str(BENCH), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=out.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), done.stdout


def test_without_a_gpu_it_says_so_and_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found, told = run(tmp_path / "gpu.json")
    assert set(found) == {"machine", "skipped"} and "sees no GPU here" in found["skipped"] and found["skipped"] in told
    assert f"torch: {found['machine']['torch']}" in told


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    found, told = run(tmp_path / "gpu.json", "--tiny", "--device", "cpu", "--limit", "600")
    assert {"machine", "finetune", "embed", "ranker", "seconds"} == set(found)
    assert not any("failed" in found[name] for name in ("finetune", "embed", "ranker")), found
    assert found["finetune"][0]["same_losses_twice"]
    short, long = found["embed"]
    assert long["tokens_per_text"] > short["tokens_per_text"] > 3 and short["agreement"]["cosine_min"] > 0.99
    for row in (*found["finetune"], *found["embed"]):
        assert row["ratio"] > 0 and math.isfinite(row["ratio"]) and row["name"] in told
    assert all(ms > 0 for size in found["ranker"]["sizes"] for ms in size["ms"].values())
