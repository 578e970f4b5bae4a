"""Ingest and features inside an enforced memory limit: `python tests/bench/limited.py [--rows 10000000] [--limit-mib 2048]`.

A simulated log goes through both steps twice: in a memory cgroup with that limit (page cache counts, the kernel kills what
exceeds it), and without. The outputs must be the same bytes. Needs the right to make a cgroup (root, version 1 or 2).
Results: build/bench/limited.json.
"""

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timing

ROOT = Path("/sys/fs/cgroup")
DIM = 384


def main() -> None:
    """Make the log, run it limited and unlimited, compare, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="impressions (10000000)")
    parser.add_argument("--limit-mib", type=int, default=2048, help="of the cgroup (2048)")
    parser.add_argument("--folder", type=Path, help="for everything; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, memory_cgroup(options.limit_mib << 20) as group:
        place = Path(folder)
        simulate = [sys.executable, "-m", "tritower.simulate", "--out", str(place / "log"), "--impressions", str(options.rows)]
        subprocess.run(simulate, check=True, capture_output=True)
        result: dict[str, Any] = {"impressions": options.rows, "limit_mib": options.limit_mib}
        for name, join in (("limited", group), ("unlimited", None)):
            result[name] = {}
            for step in ("ingest", "features"):
                result[name][step] = run(step, place, place / name, join)
                print(name, step, result[name][step], flush=True)
            result[name]["sha256"] = checksum(place / name)
        result["same"] = result["limited"]["sha256"] == result["unlimited"]["sha256"]
    out = Path("build/bench/limited.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    sys.exit(0 if result["same"] else "the limited run gave something else")


@contextlib.contextmanager
def memory_cgroup(limit: int) -> Iterator[Path]:
    """A cgroup whose processes together may hold `limit` bytes, with no swap beyond them."""
    is_first = (ROOT / "memory" / "memory.limit_in_bytes").exists()
    group = (ROOT / "memory" if is_first else ROOT) / f"tritower-{os.getpid()}"
    if not is_first:
        with contextlib.suppress(OSError):
            (ROOT / "cgroup.subtree_control").write_text("+memory")
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if is_first else "memory.max")).write_text(str(limit))
    except OSError as error:
        sys.exit(f"no memory cgroup can be made here ({error}): run as root, or in a container with --memory")
    for swap, value in (("memory.memsw.limit_in_bytes", str(limit)), ("memory.swap.max", "0")):
        with contextlib.suppress(OSError):
            if (group / swap).exists():
                (group / swap).write_text(value)
    try:
        yield group
    finally:
        group.rmdir()


def run(step: str, place: Path, out: Path, group: Path | None) -> dict[str, float]:
    """One step in a process of its own, which joins `group` before it starts; its peak resident MiB and CPU seconds."""
    if step == "features":
        embed(place, out / "dataset")

    def join() -> None:
        if group:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    command = [sys.executable, __file__, "one", step, str(place), str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, preexec_fn=join)
    if done.returncode:
        killed = " (killed: the limit)" if done.returncode == -9 else ""
        sys.exit(f"{step} ended with {done.returncode}{killed}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def one(step: str, place: Path, out: Path) -> None:
    """The step with default knobs, in this process."""
    start = time.perf_counter()
    if step == "ingest":
        from tritower.ingest import step as ingest
        from tritower.ingest.config import IngestConfig

        log = place / "log"
        uris = {"jobs": f"{log}/jobs.parquet", "users": f"{log}/users.parquet", "impressions": f"{log}/impressions"}
        ingest.run(**uris, dataset=out / "dataset", config=IngestConfig())
    else:
        from tritower.features import step as features
        from tritower.features.config import FeaturesConfig

        places = {"dataset": out / "dataset", "embeddings": place / "embeddings", "features": out / "features"}
        features.run(**places, config=FeaturesConfig())
    used = timing.spent()
    print(json.dumps({
        "peak_mib": round(used["peak_mib"]), "cpu_s": round(used["cpu_s"], 1),
        "wall_s": round(time.perf_counter() - start, 1),
    }))  # fmt: skip


def embed(place: Path, dataset: Path) -> None:
    """Random unit vectors in place of an encoder's, for the texts of the dataset."""
    import numpy as np
    import pyarrow.parquet as pq

    if (place / "embeddings").exists():
        return
    texts = pq.read_metadata(dataset / "texts.parquet").num_rows
    (place / "embeddings").mkdir()
    rng = np.random.default_rng(0)
    matrix = np.lib.format.open_memmap(place / "embeddings" / "matrix.npy", "w+", np.float16, (texts, DIM))
    for first in range(0, texts, 65_536):
        vectors = rng.normal(size=(min(65_536, texts - first), DIM)).astype(np.float32)
        matrix[first : first + len(vectors)] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    matrix.flush()
    encoder = {"hash": "random", "dim": DIM, "texts": texts}
    (place / "embeddings" / "encoder.json").write_text(json.dumps(encoder))


def checksum(folder: Path) -> str:
    """SHA-256 over the names and bytes of all tables and arrays."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.suffix in (".parquet", ".npy")):
        digest.update(str(file.relative_to(folder)).encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        one(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
