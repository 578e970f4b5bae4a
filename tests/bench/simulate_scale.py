"""Rows per second and peak memory of the generator: `python tests/bench/simulate_scale.py [impressions ...]`.

Each size runs in a process of its own, one thread; CPU seconds and peak resident memory are the operating system's.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timing


def main(sizes: list[int]) -> None:
    """Generate a log of each size in a child process and print one JSON line per size."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as place:
            done = subprocess.run(
                [sys.executable, __file__, "one", str(size), place], check=True, capture_output=True, text=True
            )
        print(done.stdout.strip(), flush=True)


def one(size: int, place: str) -> None:
    """Generate one log in this process."""
    from tritower.simulate import step
    from tritower.simulate.config import SimulateConfig

    wall, cpu = time.perf_counter(), time.process_time()
    facts = step.run(out=Path(place) / "log", config=SimulateConfig(impressions=size))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = timing.peak_mib()
    print(json.dumps({
        "impressions": size,
        "requests": facts["requests"],
        "jobs": facts["jobs"],
        "cpu_s": round(cpu, 1),
        "wall_s": round(wall, 1),
        "rows_per_cpu_s": round(size / cpu),
        "peak_mib": round(peak),
    }))  # fmt: skip


if __name__ == "__main__":
    os.environ.update(OMP_NUM_THREADS="1", ARROW_NUM_THREADS="1")
    if sys.argv[1:2] == ["one"]:
        one(int(sys.argv[2]), sys.argv[3])
    else:
        main([int(text) for text in sys.argv[1:]] or [200_000, 1_000_000, 10_000_000])
