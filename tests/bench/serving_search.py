"""What a whole search costs on a bundle, in this process: python -m tests.bench.serving_search BUNDLE [--searches 200].

Queries are pairs of words that stand together in no text of the catalogue, so each is encoded and recognised; who searches is
drawn from the bundle's users. A row for searches that bring 1,000 candidates and one for those that bring none, whose
candidates are retrieved from the whole catalogue: CPU milliseconds of the thread that answers (least, median, the 90th
percentile), of which to encode and retrieve (median), and how many jobs are ranked.
`python -m tests.bench.serving_size 100000 --folder FOLDER` leaves a bundle of 100,000 jobs.
"""

import argparse
import dataclasses
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from tritower.serving import moment
from tritower.serving.messages import Question
from tritower.serving.ranking import Ranking

from tests.bench.serving_precision import encoding_ms, questions

WARM = 20


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--searches", type=int, default=200)
    given = parser.parse_args()
    ranking = Ranking.open(given.bundle)
    ranking.warm()
    users = pq.read_table(given.bundle / "dataset" / "users.parquet", columns=["user_id"])["user_id"].to_pylist()
    drawn = np.random.default_rng(1).choice(users, 2 * (given.searches + WARM))
    now = moment.last_event(ranking.versions.state)  # the adverts of the log are open then
    asked = [
        dataclasses.replace(question, user_id=str(user), k=10, ts=now)
        for question, user in zip(questions(given.bundle, len(drawn)), drawn, strict=True)
    ]
    encode = encoding_ms(given.bundle, "auto", asked[:100])
    print(f"{len(ranking._jobs):,} jobs, load {os.getloadavg()[0]:.1f}; to encode {encode:.2f} ms of CPU", flush=True)
    bring, retrieve = asked[: len(asked) // 2], asked[len(asked) // 2 :]
    tell("1,000 candidates given", ranking, bring)
    tell("candidates retrieved", ranking, [dataclasses.replace(question, candidates=None) for question in retrieve])


def tell(what: str, ranking: Ranking, asked: list[Question]) -> None:
    """Print a row."""
    took: dict[str, list[float]] = {"all": [], "retrieve": []}
    found, ranked = ranking._found, []

    def clocked(*arguments: Any) -> list[str]:
        start = time.thread_time()
        jobs = found(*arguments)
        took["retrieve"].append((time.thread_time() - start) * 1e3)
        ranked.append(len(jobs))
        return jobs

    ranking._found = clocked  # type: ignore[method-assign]
    try:
        for question in asked:
            start = time.thread_time()
            ranking.answer(question)
            took["all"].append((time.thread_time() - start) * 1e3)
    finally:
        ranking._found = found  # type: ignore[method-assign]
    times = took["all"][WARM:]
    least, median, high = min(times), statistics.median(times), float(np.quantile(times, 0.9))
    of_it = (
        f", encode and retrieve {statistics.median(took['retrieve'][WARM:]):.1f}, {statistics.mean(ranked):.0f} jobs"
        if ranked
        else ""
    )
    print(f"{what}: {least:.1f}, {median:.1f}, {high:.1f} ms{of_it}", flush=True)


if __name__ == "__main__":
    main()
