"""What faster precisions of the encoder do to scores: python -m tests.bench.serving_precision BUNDLE [--searches 200].

`--cosines` compares vectors instead, of more ways to make int8: a row for each way with the least and the median CPU time of a
query, the cosine to fp32 (least, mean), and the share of the ten nearest texts of the catalogue that both agree on.

Searches are pairs of words of the catalogue's texts that stand together in none, so that each is encoded; each ranks the same
1,000 jobs in each precision. A row for each: quantiles of the difference of a job's score to that in fp32, the
share of the first ten jobs that both name, the share of searches with the same first job, and the CPU time of encoding a query.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pyarrow.parquet as pq
from tokenizers import Tokenizer
from tritower import logs, storage
from tritower.encoder import backends
from tritower.encoder.buckets import Ragged
from tritower.serving.config import Precision
from tritower.serving.encoding import FILE, TextEncoder
from tritower.serving.messages import Question
from tritower.serving.ranking import Ranking

QUANTILES = {"half": 0.5, "99 %": 0.99, "99.9 %": 0.999, "largest": 1.0}
FASTER: tuple[Precision, ...] = ("fp16", "bf16", "int8")


def main() -> None:
    """Compare, and print a row for each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--cosines", action="store_true", help="of --searches queries of one to four words")
    given = parser.parse_args()
    if given.cosines:
        cosines(given.bundle, given.searches)
        return
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


def cosines(bundle: Path, count: int) -> None:
    """Print how near the vectors of each way come to those in fp32. One thread, as a server has for a query."""
    rng = np.random.default_rng(0)
    texts = pq.read_table(bundle / "dataset" / "texts.parquet", columns=["value"])["value"].to_pylist()
    words = sorted({word for text in sorted(texts)[:20_000] for word in text.lower().split()})
    queries = [" ".join(rng.choice(words, rng.integers(1, 5))) for _ in range(count)]
    facts = storage.read_json(bundle / "encoder" / FILE)
    tokenizer = Tokenizer.from_file(str(bundle / "encoder" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(int(facts["max_tokens"]))

    def tokens(some: list[str]) -> list[Any]:
        return [np.array([one.ids], np.int64) for one in tokenizer.encode_batch([facts["prompt"] + text for text in some])]

    asked, sample = tokens(queries), tokens([texts[at] for at in rng.permutation(len(texts))[:256]])
    matrix_TD = np.load(bundle / "embeddings" / "matrix.npy").astype(np.float32)
    exact_QD = None
    for name, (graph, settings) in ways(bundle / "encoder" / "graph.xml", sample).items():
        vector_QD, took = encoded(graph, settings, asked)
        exact_QD = vector_QD if exact_QD is None else exact_QD
        cosine_Q = np.einsum("qd,qd->q", exact_QD, vector_QD)
        nearest = [np.argpartition(-(one_QD @ matrix_TD.T), 10)[:, :10] for one_QD in (exact_QD, vector_QD)]
        shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*(one.tolist() for one in nearest), strict=True)])
        print(
            f"{name}: {min(took):.1f}, {np.median(took):.1f} ms, cosine {cosine_Q.min():.5f}, {cosine_Q.mean():.5f}, "
            f"nearest {shared:.3f}", flush=True,
        )  # fmt: skip


def ways(file: Path, sample: list[Any]) -> dict[str, tuple[openvino.Model, dict[str, Any]]]:
    """Name -> graph, and settings to compile it with; the first is what the others are compared with."""

    import nncf  # takes seconds, and only this wants it

    def read() -> openvino.Model:
        return openvino.Core().read_model(file)

    plain, bf16, group = (
        {"INFERENCE_PRECISION_HINT": "f32"},
        {"INFERENCE_PRECISION_HINT": "bf16"},
        "DYNAMIC_QUANTIZATION_GROUP_SIZE",
    )
    light = backends.with_int8_weights(read())
    with logs.drawn():
        even = nncf.compress_weights(read(), mode=nncf.CompressWeightsMode.INT8_SYM)
    return {
        "fp32": (read(), plain | {group: 0}),
        "bf16": (read(), bf16 | {group: 0}),
        "int8, weights alone, groups of 32": (light, plain | {group: 32}),
        "the same, one scale (symmetric), groups of 32": (even, plain | {group: 32}),
        "the same, groups of 128": (light, plain | {group: 128}),
        "the same, inputs not rounded": (light, plain | {group: 0}),
        "int8, calibrated on 256 texts, rest in bf16": (backends.quantise(read(), Ragged.of([one[0] for one in sample])), bf16),
    }


def encoded(graph: openvino.Model, settings: dict[str, Any], asked: list[Any]) -> tuple[Any, list[float]]:
    """Vectors (Q, D) of queries, and the CPU milliseconds of each; every length is inferred before."""
    one = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request, took, found = openvino.Core().compile_model(graph, "CPU", settings | one).create_infer_request(), [], []
    for length in [2, *range(1, 65)]:  # a graph whose first input has one token is at fault (TextEncoder)
        request.infer({0: np.ones((1, length), np.int64)})
    for ids_1L in asked:
        start = time.process_time()
        request.infer({0: ids_1L})
        took.append((time.process_time() - start) * 1e3)
        found.append(request.get_output_tensor(0).data[0].copy())
    return np.stack(found), took


if __name__ == "__main__":
    main()
