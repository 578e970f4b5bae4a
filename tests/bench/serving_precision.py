"""What faster precisions of the encoder do to scores: python -m tests.bench.serving_precision BUNDLE [--searches 200].

Searches are pairs of words of the catalogue's texts that stand together in none, so that each is encoded; each ranks the same
1,000 jobs in fp32, bf16 and int8. A row for each precision: quantiles of the difference of a job's score to that in fp32, the
share of the first ten jobs that both name, the share of searches with the same first job, and the CPU time of encoding a query.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from tritower.serving.config import Precision
from tritower.serving.encoding import TextEncoder
from tritower.serving.messages import Question
from tritower.serving.ranking import Ranking

QUANTILES = {"half": 0.5, "99 %": 0.99, "99.9 %": 0.999, "largest": 1.0}
FASTER: tuple[Precision, ...] = ("bf16", "int8")


def main() -> None:
    """Compare, and print a row for each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--searches", type=int, default=200)
    given = parser.parse_args()
    asked = questions(given.bundle, given.searches)
    exact = ranked(given.bundle, "fp32", asked)
    print(f"fp32: {encoding_ms(given.bundle, 'fp32', asked):.2f} ms of CPU for a query, median")
    for precision in FASTER:
        figures = compared(exact, ranked(given.bundle, precision, asked))
        ms = encoding_ms(given.bundle, precision, asked)
        print(f"{precision}: {ms:.2f} ms,", ", ".join(f"{name} {value:.2g}" for name, value in figures.items()), flush=True)


def questions(bundle: Path, count: int, candidates: int = 1_000) -> list[Question]:
    """Searches that no text of the catalogue equals."""
    rng = np.random.default_rng(0)
    texts = set(pq.read_table(bundle / "dataset" / "texts.parquet", columns=["value"])["value"].to_pylist())
    jobs = pq.read_table(bundle / "dataset" / "jobs.parquet", columns=["job_id"])["job_id"].to_pylist()
    words = sorted({word for text in sorted(texts)[:20_000] for word in text.lower().split()})
    asked = []
    while len(asked) < count:
        query = " ".join(rng.choice(words, 2))
        if query not in texts:
            some = rng.permutation(len(jobs))[:candidates]
            asked.append(Question(query=query, candidates=tuple(jobs[job] for job in some), k=candidates, ts=2 * 10**15))
    return asked


def ranked(bundle: Path, precision: Precision, asked: list[Question]) -> list[dict[str, float]]:
    """Of each search the scores by job, best first."""
    ranking = Ranking.open(bundle, precision=precision)
    return [{job.job_id: job.score for job in ranking.answer(question).jobs} for question in asked]


def compared(exact: list[dict[str, float]], near: list[dict[str, float]]) -> dict[str, float]:
    """How far apart two rankings of the same searches are."""
    pairs = list(zip(exact, near, strict=True))
    # Of adverts that read alike only the best is named, which may be another one.
    apart_N = np.array([abs(a[job] - b[job]) for a, b in pairs for job in a.keys() & b.keys()])
    tops = [(list(a)[:10], list(b)[:10]) for a, b in pairs]
    figures: dict[str, Any] = {name: float(np.quantile(apart_N, share)) for name, share in QUANTILES.items()}
    figures["top 10"] = float(np.mean([len(set(a) & set(b)) / len(a) for a, b in tops]))
    figures["same first"] = float(np.mean([a[0] == b[0] for a, b in tops]))
    return figures


def encoding_ms(bundle: Path, precision: Precision, asked: list[Question]) -> float:
    """CPU milliseconds of this thread for a query, median."""
    encoder, took = TextEncoder(bundle / "encoder", precision, kept=0), []
    encoder.warm(16)
    for question in asked:
        start = time.thread_time()
        encoder([question.query])
        took.append((time.thread_time() - start) * 1e3)
    return float(np.median(took))


if __name__ == "__main__":
    main()
