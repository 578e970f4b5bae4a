"""`demo`: a simulated log, the compiled pipeline on it, and the result on the screen."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from tritower import processes, storage
from tritower.errors import StepError

from pipelines import results, running, show
from pipelines.version import code_version

LOG_CONFIG = Path(__file__).parent / "demo_log.toml"
SHOWN_SEARCHES = 3


def run(
    out: Path,
    *,
    impressions: int = 200_000,
    seed: int = 0,
    parts: frozenset[str] | None = None,
    preset: str = "demo",
    use_cache: bool = True,
    as_backend: bool = False,
) -> None:
    """Generate a log, run the training pipeline on it and print the results.

    Args:
        out: folder for everything: metrics.json, report.html, recommendations.parquet, the log, artifacts.
        impressions: rows of the log.
        seed: of the log.
        parts: the parts of the pipeline (`steps.parts`); None for its own.
        preset: knobs of the pipeline.
        use_cache: reuse a log and steps made earlier.
        as_backend: hand each step what a Kubeflow backend would.

    Raises:
        TritowerError: generating or a step failed.
    """
    start = time.perf_counter()
    results.check(out, running.PLANS["training"].results.values())
    log = _log(out, impressions=impressions, seed=seed, use_cache=use_cache)
    locations = {
        "data_jobs": str(log / "jobs.parquet"),
        "data_impressions": str(log / "impressions"),
        "data_users": str(log / "users.parquet"),
        "data_truth": str(log / "truth"),
    }
    how: dict[str, Any] = {"parts": parts, "preset": preset, "use_cache": use_cache, "as_backend": as_backend}
    running.run("training", locations, root=out / "run", out=out, **how)
    metrics: dict[str, Any] = storage.read_json(out / "metrics.json")
    print(show.results(metrics))
    rows = _with_truth(log, out)
    print("\nThe first ten jobs for three searches; score: the model's click probability, true: the simulator's\n")
    print(show.ranked_jobs(_of_some_searches(rows)))
    print(f"\nReport: {(out / 'report.html').absolute()}")
    print(f"Finished in {time.perf_counter() - start:.0f} s")


def _log(out: Path, *, impressions: int, seed: int, use_cache: bool) -> Path:
    """The simulated log, made unless one of the same size, seed and code is there."""
    recipe = json.dumps([impressions, seed, LOG_CONFIG.read_text(encoding="utf-8"), code_version("simulate")])
    log = out / f"log-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if use_cache and log.exists():
        print(f"Log of {impressions:,} impressions: {log} (made earlier)")
        return log
    start = time.perf_counter()
    size = ["--impressions", str(impressions), "--seed", str(seed)]
    _simulate(out / "simulate.log", "--config", str(LOG_CONFIG), "--out", str(log), *size)
    print(f"Log of {impressions:,} impressions: {log} (made in {time.perf_counter() - start:.1f} s)")
    return log


def _with_truth(log: Path, out: Path) -> list[dict[str, Any]]:
    """Add the true probability to the recommendations, in the file as well; the rows."""
    import pyarrow.parquet as pq

    recommendations = out / "recommendations.parquet"
    with results.replaced(out, recommendations.name) as temporary:
        files = ["--recommendations", str(recommendations), "--out", str(temporary)]
        _simulate(log.parent / "simulate.log", "truth", "--log", str(log), *files)
    rows: list[dict[str, Any]] = pq.read_table(recommendations, partitioning=None).to_pylist()
    return rows


def _of_some_searches(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the first searches with a query."""
    requests = list(dict.fromkeys(row["request"] for row in rows if row["query"]))[:SHOWN_SEARCHES]
    return [row for row in rows if row["request"] in requests]


def _simulate(log: Path, *arguments: str) -> None:
    """Run `python -m tritower.simulate`, what it says going to the file `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = processes.module("tritower.simulate", *arguments)
    with log.open("wb") as file, processes.started(command, stdout=file, stderr=file) as simulator:
        try:
            status = simulator.popen.wait()
        except KeyboardInterrupt as stop:
            stop.add_note("The simulation was ended. Run it again to go on.")
            raise
        if status:
            error = simulator.failure()
            remedy = f"{error.remedy} The log is {log}.".lstrip()
            raise StepError(f"simulate: {type(error).__name__}: {error.problem}", where=error.where, remedy=remedy)
