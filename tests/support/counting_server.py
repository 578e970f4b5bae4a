"""A server that counts events, as a process: the features of a small board (`counted_board.py`) behind the real doors.

    python -m tests.support.counting_server FOLDER CONFIG FEED [--torn NUMBER] [--worker]

`/record` gives the last record that it has counted. Each process also says so below the folder TOLD, in `PID.json`: the record,
when it last looked into the journal, and the hash of its features. With `--torn` it is killed when it has written half of that
record.
"""

import contextlib
import hashlib
import json
import os
import signal
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from tritower import child, logs, processes, storage
from tritower import config as knobs
from tritower.errors import TritowerError
from tritower.serving import server, workers
from tritower.serving.config import ServeConfig
from tritower.serving.feed import Feed, FeedConfig
from tritower.serving.messages import Answer, Question, RankedJob, Versions
from tritower.serving.records import MAGIC
from tritower.serving.service import Service
from tritower.serving.tailing import Known

from tests.support.counted_board import opened, values

TOLD = "TOLD"
"""The variable of the environment that names the folder."""


class Counting:
    """Counts, and ranks jobs as they come."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.online = folder, opened(folder)
        self.observe = self.online.observe
        self.versions = Versions(bundle="b", name="main", model="m", encoder="e", catalogue="c", state="")

    def known(self) -> Known:
        return Known.read(self._folder / "state")

    def answer(self, question: Question) -> Answer:
        jobs = tuple(
            RankedJob(job_id=job, rank=rank, score=0.0, title="", company="")
            for rank, job in enumerate(question.candidates or (), 1)
        )
        return Answer(request_id=question.request_id, ts=question.ts or 0, jobs=jobs, versions=self.versions)


class One:
    """Holds it."""

    def __init__(self, folder: Path, feed: Feed) -> None:
        self.main, self._feed = Counting(folder), feed
        feed.attach(self.main)  # type: ignore[arg-type]

    def get(self, name: str | None = None) -> Counting:
        if name not in (None, "main"):
            raise KeyError(name)
        return self.main

    def mount(self, app: FastAPI, service: Service) -> None:
        @app.get("/record")
        def record() -> int:
            return self._feed._followers["main"].lag().last_record

        if TOLD in os.environ:
            threading.Thread(target=self._tell, args=(Path(os.environ[TOLD]),), daemon=True).start()

    def _tell(self, folder: Path) -> None:
        """Again and again, as it may be killed at any time; the features when there is something new."""
        record, digest, follower = -1, "", self._feed._followers["main"]
        while True:
            looked, now = follower._progress.read_at, follower.lag().last_record
            if now != record:
                record, digest = now, hashlib.sha256(values(self.main.online)).hexdigest()
            storage.write_json(folder / f"{os.getpid()}.json", {"looked": looked, "record": record, "digest": digest})
            time.sleep(0.1)


def tear(number: int) -> None:
    """Be killed in the middle of writing a record."""
    plain = os.write

    def write(handle: int, data: bytes) -> int:
        at = len(MAGIC) if data[: len(MAGIC)] == MAGIC else 0
        if len(data) > at + 28 and struct.unpack_from("<IIQ", data, at)[2] == number:
            plain(handle, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(handle, data)

    os.write = write


def main(arguments: list[str]) -> int:
    folder, text, feeding = arguments[:3]
    config = knobs.from_dict(ServeConfig, text)
    logs.setup()
    if "--torn" in arguments:
        tear(int(arguments[arguments.index("--torn") + 1]))
    try:
        if config.workers > 1 and "--worker" not in arguments:
            workers.serve(processes.module("tests.support.counting_server", folder, text, feeding, "--worker"), config)
            return 0
        with contextlib.closing(Feed(knobs.from_dict(FeedConfig, feeding))) as feed:
            holder = One(Path(folder), feed)
            server.run(holder, {}, config, mounts=[feed.mount, holder.mount])  # type: ignore[arg-type]
    except TritowerError as error:
        print(*logs.lines(error), sep="\n", file=sys.stderr, flush=True)
        child.report(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))


def command(folder: Path, feed: dict[str, Any], *, torn: int = 0, **config: Any) -> list[str]:
    """The command line of such a server, on a free port of loopback."""
    knobs_ = json.dumps({"port": 0, "rate_per_s": 0, "linger_s": 0} | config)
    more = ["--torn", str(torn)] if torn else []
    return processes.module("tests.support.counting_server", str(folder), knobs_, json.dumps(feed), *more)
