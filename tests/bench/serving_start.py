"""From start to ready, and back to whole after a worker was killed.

    python -m tests.bench.serving_start BUNDLE [--clients 4] [--without-caches]

Prints a line for each: seconds until a server takes requests, and CPU seconds until then (twice: the second one finds the
files in memory); two workers under load, of which one is killed, with a spare one, again as soon as the next one is warm, and
with none: seconds until two serve, requests lost. `--without-caches` starts with nothing compiled, too: a minute of CPU.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from tests.support.server_workers import Workers
from tests.support.serving_process import Served, served, until
from tests.support.visitors import Visitors

_LONG_S = 600.0


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=1_000)
    parser.add_argument("--without-caches", action="store_true")
    given = parser.parse_args()
    ids = pq.read_table(given.bundle / "dataset" / "jobs.parquet", columns=["job_id"])["job_id"].to_pylist()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if given.without_caches:
            _start("nothing compiled", given.bundle, scratch / "a", {"NUMBA_CACHE_DIR": str(scratch / "numba")})
        for name in ("first start", "second start"):
            _start(name, given.bundle, scratch / name, {})
        for spares in (1, 0):
            _kills(given.bundle, scratch / f"spares-{spares}", spares, given.clients, ids[: given.candidates])


def _command(bundle: Path, **config: object) -> list[str]:
    knobs = json.dumps({"port": 0, "rate_per_s": 0} | config)
    return [sys.executable, "-m", "tritower.child", "tritower.serving", "serve", "--bundle", str(bundle), "--config", knobs]


def _start(name: str, bundle: Path, folder: Path, environment: dict[str, str]) -> None:
    start = time.monotonic()
    with served(_command(bundle), folder, environment) as running:
        took = time.monotonic() - start
        cpu = sum(psutil.Process(running.process.popen.pid).cpu_times()[:2])
    print(f"{name}: ready after {took:.1f} s, {cpu:.1f} s of CPU, load {os.getloadavg()[0]:.1f}", flush=True)


def _kills(bundle: Path, folder: Path, spares: int, clients: int, candidates: list[str]) -> None:
    body = {"query": "nurse", "candidates": candidates}
    with served(_command(bundle, workers=2, threads=1, spares=spares), folder) as running:
        workers = Workers.of(running)
        with Visitors(running.address, clients, body=body) as visitors:
            for time_of in ("", ", again") if spares else ("",):
                if spares:
                    workers.spare(_LONG_S)
                asked = len(visitors.asked)
                until(lambda asked=asked: len(visitors.asked) > asked + 50, _LONG_S)
                took, lost = _kill(running, workers, visitors)
                print(
                    f"killed under load, {spares} spare{time_of}: two serve after {took:.2f} s, {lost} requests lost, "
                    f"load {os.getloadavg()[0]:.1f}", flush=True,
                )  # fmt: skip


def _kill(running: Served, workers: Workers, visitors: Visitors) -> tuple[float, int]:
    victim, failed, start = workers.serving()[0], len(visitors.failed), time.monotonic()
    victim.kill()
    victim.wait(60)
    until(lambda: len(workers.serving()) == 2, _LONG_S)
    took, asked = time.monotonic() - start, len(visitors.asked)
    until(lambda: len(visitors.asked) > asked + 20, _LONG_S)
    return took, len(visitors.failed) - failed


if __name__ == "__main__":
    main()
