"""The bench for a GPU runs where there is none, at sizes that mean nothing: it does not break unseen."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench/gpu_ranker.py"


def ran(*arguments: str) -> str:
    command = [sys.executable, str(BENCH), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=200).stdout


@pytest.mark.slow
def test_it_measures_every_side():
    found = json.loads(ran("--tiny", "--no-compile").splitlines()[-1])
    assert [one["rows"] for one in found["sizes"]] == [256, 512]
    for one in found["sizes"]:
        assert {"as 7cd567c", "eager", "tables", "plain"} <= set(one["ms"]) and min(one["ms"].values()) > 0
        assert one["gflop"] > 0 and min(one["bandwidth_share"].values()) > 0
    assert found["not_resident"]["ratio"] > 0
