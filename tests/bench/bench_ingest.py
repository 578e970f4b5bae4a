"""Ingest: peak resident memory and CPU time at two sizes, each side in a process of its own.

The naive side is what a notebook does with pandas: the same checks, joins, numbers and sort, in memory. It is given the
smaller log only. TRITOWER_BENCH_ROWS sets the sizes (default 5000000,10000000).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import timing

_OURS = """
import sys
from tritower.ingest import step
from tritower.ingest.config import IngestConfig
log, out = sys.argv[1:]
numbers = step.run(jobs=log + "/jobs.parquet", impressions=log + "/impressions", users=log + "/users.parquet", dataset=out,
                   config=IngestConfig())
result = numbers["impressions_out"]
"""

_PANDAS = """
import sys
import pandas as pd
from pathlib import Path
log, out = sys.argv[1:]
jobs = pd.read_parquet(log + "/jobs.parquet").drop_duplicates("job_id").sort_values("job_id", ignore_index=True)
shown = pd.read_parquet(log + "/impressions")
shown = shown.dropna(subset=["request_id", "ts", "user_id", "query", "job_id", "clicked"])
shown = shown[~(shown.clicked_at < shown.ts)]
jobs["job"] = jobs.index
jobs["document"] = jobs.title + ", " + jobs.company
shown = shown.merge(jobs[["job_id", "job", "document"]], on="job_id").drop_duplicates(["request_id", "job_id"])
requests = shown.groupby("request_id", as_index=False).agg(ts=("ts", "min"), user_id=("user_id", "first"),
                                                           query=("query", "first"))
requests = requests.sort_values(["ts", "request_id"], ignore_index=True)
requests["request"] = requests.index
texts = pd.Index(pd.concat([requests["query"], jobs.title, jobs.document]).unique()).sort_values()
requests["user"] = requests.user_id.factorize(sort=True)[0]
requests["query_text"] = texts.get_indexer(requests["query"])
shown["document_text"] = texts.get_indexer(shown.document)
shown = shown.drop(columns=["ts", "user_id", "query", "document"]).merge(
    requests[["request_id", "request", "ts", "user", "query_text"]], on="request_id")
shown = shown.sort_values(["request", "position", "job"], ignore_index=True)
Path(out).mkdir()
bounds = requests.ts.iloc[[int(len(requests) * 0.7), int(len(requests) * 0.85)]].tolist()
for name, part in zip(("train", "validation", "test"), (
        shown[shown.ts < bounds[0]], shown[(shown.ts >= bounds[0]) & (shown.ts < bounds[1])], shown[shown.ts >= bounds[1]])):
    part.to_parquet(out + "/" + name + ".parquet", compression="zstd")
result = len(shown)
"""


def cases() -> list[dict[str, Any]]:
    """Peak MiB and CPU seconds per million impressions at each size."""
    sizes = [int(size) for size in os.environ.get("TRITOWER_BENCH_ROWS", "5000000,10000000").split(",")]
    rows = []
    for place, size in enumerate(sizes):
        with tempfile.TemporaryDirectory() as folder:
            log = str(Path(folder) / "log")
            simulate = [sys.executable, "-m", "tritower.simulate", "--out", log, "--impressions", str(size), "--seed", "1"]
            subprocess.run(simulate, check=True, capture_output=True)
            ours = timing.measured(_OURS, log, str(Path(folder) / "ours"))
            naive = timing.measured(_PANDAS, log, str(Path(folder) / "pandas")) if place == 0 else None
        assert naive is None or naive["result"] == ours["result"]
        name = f"ingest.{size / 1e6:g}M"
        rows.append(_row(f"{name}.peak", "MiB", ours["peak_mib"], naive and naive["peak_mib"]))
        rows.append(_row(f"{name}.cpu", "CPU s", ours["cpu_s"], naive and naive["cpu_s"]))
    return rows


def _row(name: str, unit: str, ours: float, naive: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "ours": ours,
        "naive": naive,
        "peer": None,
        "unit": unit,
        "ratio_naive": naive / ours if naive else None,
        "ratio_peer": None,
        "limit_share": None,
    }
