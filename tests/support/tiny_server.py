"""A server whose ranking takes no time: for what HTTP, threads, workers and swaps do, whatever ranks.

    python -m tests.support.tiny_server FOLDER CONFIG [--worker]

A bundle of it is a folder whose `bundle.json` says {"version", "jobs", "pause_s", "held"}: no question is answered while the
file `held` is there. `broken` makes it one that is refused.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from tritower import child, logs, processes, storage
from tritower import config as knobs
from tritower.errors import ArtifactError, DataError, TritowerError
from tritower.serving import server, watching, workers
from tritower.serving.config import ServeConfig
from tritower.serving.messages import Answer, Question, RankedJob, Reason, Versions


class TinyRanking:
    """Ranks jobs by how many of the query's letters their ids have; each answer says its version in every job's title."""

    def __init__(self, facts: dict[str, Any], name: str) -> None:
        if "broken" in facts:
            raise ArtifactError("the part 'ranker' is damaged", where="ranker/join.json", remedy="Copy it again.")
        self.jobs, self.pause_s = tuple(facts.get("jobs", ("nurse-1", "nurse-2", "cook-1"))), facts.get("pause_s", 0.0)
        self.held = Path(facts["held"]) if "held" in facts else None
        version = facts["version"]
        self.versions = Versions(bundle=version, name=name, model="m", encoder="e", catalogue="c", state="2026-01-01T00:00:00Z")

    def answer(self, question: Question) -> Answer:
        if question.query == "fault":
            raise RuntimeError("a fault of ours")
        if question.filters.near is not None:
            raise DataError("the jobs have no coordinates", where="filters.near", remedy="Leave it out.")
        time.sleep(self.pause_s)
        while self.held and self.held.exists():
            time.sleep(0.01)
        given = self.jobs if question.candidates is None else question.candidates
        known = [job for job in given if job in self.jobs]
        best = sorted(known, key=lambda job: (-len(set(job) & set(question.query)), job))[: question.k]
        jobs = tuple(
            RankedJob(
                job_id=job, rank=rank, score=1 / (1 + rank), title=self.versions.bundle, company="",
                features=(0.1 * len(job), float("nan")) if question.with_features else None,
                reasons=(Reason(group="words", value=0.5),) if question.explain else None,
            )
            for rank, job in enumerate(best, 1)
        )  # fmt: skip
        unknown = tuple(job for job in given if job not in self.jobs)
        ts = time.time_ns() // 1000 if question.ts is None else question.ts
        return Answer(
            request_id=question.request_id, ts=ts, jobs=jobs, versions=self.versions, unknown=unknown,
            features=("length", "luck") if question.with_features else (),
            median_score=0.5 if question.explain else None,
        )  # fmt: skip


class TinyHolder:
    """Holds one of them."""

    def __init__(self, location: str) -> None:
        self._held = {"main": self._read(location, "main")}

    def get(self, name: str | None = None) -> TinyRanking:
        return self._held[name or "main"]

    def swap(self, location: str, name: str = "main") -> None:
        self._held[name] = self._read(location, name)

    def _read(self, location: str, name: str) -> TinyRanking:
        return TinyRanking(storage.read_json(Path(location) / "bundle.json"), name)


def write(folder: Path, **facts: Any) -> Path:
    """Put a bundle there, or another in its place."""
    folder.mkdir(parents=True, exist_ok=True)
    storage.write_json(folder / "bundle.json", facts)
    return folder


def main(arguments: list[str]) -> int:
    location, text = arguments[:2]
    config = knobs.from_dict(ServeConfig, text)
    logs.setup()
    try:
        if config.workers > 1 and "--worker" not in arguments:
            workers.serve(processes.module("tests.support.tiny_server", location, text, "--worker"), config)
        else:
            seen = watching.tag(location)
            server.run(TinyHolder(location), {"main": (location, seen)}, config)
    except TritowerError as error:
        print(*logs.lines(error), sep="\n", file=sys.stderr, flush=True)
        child.report(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))


def command(location: Path, **config: Any) -> list[str]:
    """The command line of such a server, on a free port of loopback."""
    return processes.module("tests.support.tiny_server", str(location), json.dumps({"port": 0, "rate_per_s": 0} | config))
