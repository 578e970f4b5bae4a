"""What it costs to take events and to follow them.

    python -m tests.bench.serving_events [--seconds 8] [--followers 2] [--poll 0.5] [--no-store]

One server takes events (fsync before each answer), others follow its journal, each a process with the features of a small
board. For batches of 1, 20 and 1,000 events, and for 1 and 8 clients: p50 and p99 of `POST /events`, events a second, CPU time
of the writer (its own counting included) and of a follower for an event, and the lag of the followers: from a record's being
taken to its being in their features, by `tritower_events_lag_seconds`. Then, one event at a time, the same lag seen from
outside: from the answer of `POST /events` until `/record` of the follower has it. What /metrics say is compared with what was
sent.

The same with a journal in an S3 store on loopback, and in one that speaks Google's API; both share the machine, and have no
network to cross. On a busy machine read the CPU time, not the rest.
"""

import argparse
import contextlib
import functools
import itertools
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from tests.support import counted_board, counting_server, gcs
from tests.support.s3 import client as s3_client
from tests.support.s3 import s3_server
from tests.support.serving_process import Served, served, until

BATCHES = (1, 20, 1_000)
_TS = 1_900_000_000_000_000
_numbers = itertools.count()


def main() -> None:
    """Take all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--followers", type=int, default=2)
    parser.add_argument("--poll", type=float, default=0.5, help="seconds between a follower's looks")
    parser.add_argument("--no-store", action="store_true")
    given = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; {given.followers} followers look every {given.poll:g} s"
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        board = counted_board.build(Path(folder) / "board")
        places = {"this machine": str(Path(folder) / "journal")}
        if not given.no_store:
            places |= stack.enter_context(_stores(Path(folder)))
        for name, location in places.items():
            with _running(board, Path(folder) / name, location, given.followers, given.poll) as (writer, followers):
                _load(writer, followers, 1, 20, 1.0)  # the kernels that count are compiled with the first record
                for clients, batch in itertools.product((1, 8), BATCHES):
                    seconds = given.seconds if name == "this machine" else given.seconds / 2
                    print(
                        f"{name}, {clients} clients, {batch}: {_load(writer, followers, clients, batch, seconds)}", flush=True
                    )
                print(f"{name}, one event at a time: {_one_by_one(writer, followers, 40)}", flush=True)
                print(f"{name}: {_compared(writer, followers)}, load {os.getloadavg()[0]:.1f}", flush=True)


@contextlib.contextmanager
def _stores(folder: Path) -> Iterator[dict[str, str]]:
    store = gcs.Store()
    with s3_server(folder / "s3.log") as url, gcs.served(store) as address:
        s3_client(url).create_bucket(Bucket="bucket")
        os.environ |= {"TRITOWER_S3_ENDPOINT": url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        os.environ["STORAGE_EMULATOR_HOST"] = address
        yield {"S3 on loopback": "s3://bucket/journal", "Google's API on loopback": "gs://bucket/journal"}


@contextlib.contextmanager
def _running(board: Path, folder: Path, location: str, followers: int, poll_s: float) -> Iterator[tuple[Served, list[Served]]]:
    with contextlib.ExitStack() as stack:
        start = functools.partial(counting_server.command, board)
        writer = stack.enter_context(served(start({"journal": location}), folder / "writer"))
        feed = {"journal": location, "takes_events": False, "poll_s": poll_s}
        yield writer, [stack.enter_context(served(start(feed), folder / f"follower-{i}")) for i in range(followers)]


def _body(batch: int) -> bytes:
    """A search's rows, or those of several; no event comes twice."""
    rows = []
    for _ in range(batch):
        number = next(_numbers)
        rows.append(
            {
                "request_id": f"bench-{number // 20}", "ts": _TS + number, "user_id": f"u{number // 20 % 1_000}",
                "query": "night nurse", "job_id": f"j{number % 14}", "position": number % 20 + 1, "city": "Boston",
                "region": "MA", "country": "US",
            } | ({"event": "click"} if number % 20 == 19 else {})
        )  # fmt: skip
    return json.dumps({"events": rows}).encode()


def _load(writer: Served, followers: list[Served], clients: int, batch: int, seconds: float) -> str:
    took, lock, sent, ready = list[float](), threading.Lock(), [0], threading.Barrier(clients + 1)
    before, lags = [_cpu_s(one) for one in (writer, *followers)], _histogram(followers)

    def post() -> None:
        with httpx.Client(base_url=writer.address, timeout=120) as client:
            ready.wait()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                with lock:
                    body = _body(batch)
                began = time.perf_counter()
                answer = client.post("/events", content=body, headers={"Content-Type": "application/json"})
                answer.raise_for_status()
                with lock:
                    took.append(time.perf_counter() - began)
                    sent[0] += answer.json()["taken"]

    threads = [threading.Thread(target=post) for _ in range(clients)]
    for thread in threads:
        thread.start()
    ready.wait()
    start = time.monotonic()
    for thread in threads:
        thread.join()
    wall = time.monotonic() - start
    _level(writer, followers)
    cpu_us = [1e6 * (_cpu_s(one) - b) / sent[0] for one, b in zip((writer, *followers), before, strict=True)]
    p50, p99 = np.percentile(took, [50, 99]) * 1_000
    low, high = (_quantile(lags, _histogram(followers), share) for share in (0.5, 0.99))
    return (
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, {sent[0] / wall:,.0f} events/s, CPU for an event {cpu_us[0]:,.0f} us, "
        f"of a follower {np.mean(cpu_us[1:]):,.0f} us; lag p50 {low:.2f} s, p99 {high:.2f} s"
    )


def _one_by_one(writer: Served, followers: list[Served], count: int) -> str:
    seen, lags = list[float](), _histogram(followers)
    with httpx.Client(timeout=120) as client:
        for _ in range(count):
            client.post(f"{writer.address}/events", content=_body(1), headers={"Content-Type": "application/json"})
            acknowledged = time.monotonic()
            record = _record(writer)
            for one in followers:
                while _record(one, client) < record:
                    time.sleep(0.002)
                seen.append(time.monotonic() - acknowledged)
            time.sleep(0.037)  # not in step with the followers' looks
    p50, p99 = np.percentile(seen, [50, 99])
    told = [_quantile(lags, _histogram(followers), share) for share in (0.5, 0.99)]
    return f"lag from outside p50 {p50:.2f} s, p99 {p99:.2f} s; by /metrics {told[0]:.2f} s, {told[1]:.2f} s"


def _compared(writer: Served, followers: list[Served]) -> str:
    """What /metrics say against what was sent."""
    what = 'tritower_events_counted{what="applied_events"'
    journaled = writer.figure('tritower_events{what="journaled"')
    until(lambda: all(one.figure(what) == journaled for one in (writer, *followers)))
    until(lambda: all(one.figure("tritower_events_record") == _record(writer) for one in (writer, *followers)))
    until(lambda: all(one.figure("tritower_events_behind_seconds") == 0 for one in (writer, *followers)))
    return f"{journaled:,.0f} events journaled and counted by all, record {_record(writer):,} everywhere, nobody behind"


def _record(one: Served, client: httpx.Client | None = None) -> int:
    return int((client or httpx).get(f"{one.address}/record", timeout=120).json())


def _level(writer: Served, followers: list[Served]) -> None:
    until(lambda: all(_record(one) >= _record(writer) for one in followers))


def _histogram(followers: list[Served]) -> dict[float, float]:
    """Records by the bucket of their lag, of all followers together."""
    found: dict[float, float] = {}
    for one in followers:
        for line in httpx.get(f"{one.address}/metrics", timeout=120).text.splitlines():
            if line.startswith("tritower_events_lag_seconds_bucket"):
                bound = float(line.partition('le="')[2].partition('"')[0])
                found[bound] = found.get(bound, 0.0) + float(line.rpartition(" ")[2])
    return found


def _quantile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """As Prometheus has it: even within a bucket."""
    counts = sorted((bound, after[bound] - before.get(bound, 0.0)) for bound in after)
    wanted, low, below = share * counts[-1][1], 0.0, 0.0
    for bound, count in counts:
        if count >= wanted:
            return low if bound == float("inf") else low + (bound - low) * (wanted - below) / max(1.0, count - below)
        low, below = bound, count
    return low


def _cpu_s(running: Served) -> float:
    used: Any = psutil.Process(running.process.popen.pid).cpu_times()
    return float(used.user + used.system)


if __name__ == "__main__":
    main()
