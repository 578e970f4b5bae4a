"""Load on a server over loopback: one process with threads against several workers.

    python -m tests.bench.serving_load BUNDLE [--seconds 60] [--clients 16] [--candidates 1000]

Prints a line for each: requests a second, CPU time of the server for a request (all its processes), requests a second of a
core that does nothing else, p50, p99, errors. Queries are mixed of a few words, so that few are cached. Clients share the
machine with the server: on a busy machine read the CPU time, not the rest.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow.parquet as pq

from tests.support.serving_process import Served, served

_WORDS = [
    "nurse",
    "cook",
    "senior",
    "driver",
    "remote",
    "night",
    "java",
    "sales",
    "manager",
    "warehouse",
    "intern",
    "teacher",
    "clerk",
    "engineer",
    "shift",
    "welder",
]


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--candidates", type=int, default=1_000, help="0 = retrieve")
    given = parser.parse_args()
    ids = pq.read_table(given.bundle / "dataset" / "jobs.parquet", columns=["job_id"])["job_id"].to_pylist()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    for name, config in (("1 process, 2 threads", {"threads": 2}), ("2 workers, 1 thread each", {"workers": 2, "threads": 1})):
        knobs = json.dumps({"port": 0, "rate_per_s": 0} | config)
        command = ["-m", "tritower.child", "tritower.serving", "serve", "--bundle", str(given.bundle), "--config", knobs]
        with tempfile.TemporaryDirectory() as folder, served([sys.executable, *command], Path(folder)) as running:
            _loaded(running, given.clients, min(5.0, given.seconds), ids[: given.candidates])
            print(f"{name}: {_loaded(running, given.clients, given.seconds, ids[: given.candidates])}", flush=True)


def _loaded(running: Served, clients: int, seconds: float, candidates: list[str]) -> str:
    took, errors, until = list[float](), list[str](), time.monotonic() + seconds

    def ask(seed: int) -> None:
        words = random.Random(seed)
        with httpx.Client(base_url=running.address, timeout=60) as client:
            while time.monotonic() < until:
                body = {"query": " ".join(words.sample(_WORDS, words.randint(1, 5))), "k": 10}
                start = time.perf_counter()
                try:
                    answer = client.post("/rank", json=body | ({"candidates": candidates} if candidates else {}))
                    answer.raise_for_status()
                    took.append(time.perf_counter() - start)
                except httpx.HTTPError as error:
                    errors.append(repr(error))

    before, start = _cpu_s(running), time.monotonic()
    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, cpu_ms = time.monotonic() - start, 1_000 * (_cpu_s(running) - before) / max(1, len(took))
    p50, p99 = np.percentile(took, [50, 99]) * 1_000
    return (
        f"{len(took) / wall:.1f} requests/s, {cpu_ms:.1f} ms of CPU each ({1_000 / cpu_ms:.0f} a second of a core), "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, {len(errors)} errors, load {os.getloadavg()[0]:.1f}"
    )


def _cpu_s(running: Served) -> float:
    first = psutil.Process(running.process.popen.pid)
    return sum(sum(one.cpu_times()[:2]) for one in (first, *first.children(recursive=True)))


if __name__ == "__main__":
    main()
