"""Retrieval of 200 jobs out of 100,000 for one search, and reasons for ten results.

Documents are titles of the vocabulary with companies; a text's vector is the sum of its words' and of noise, so that documents
lie together as real ones do. Their principal components fall off as those of an encoder's vectors do; `uniform` has vectors
without any direction of their own, for which the index has no heads. Searches have a query, a profile, past clicks and a place.

`serving.retrieve` compares the six lists by cosine: ours (heads, bytes, then halves) against numpy (float32 products and
`argpartition`, naive) and faiss's flat index with a selector of the open jobs (peer). `full_scan` is how many times as long
ours takes without heads. `p50_ms` is the whole call, with n-grams, clicks after similar queries and fusion, `sq8_ms` what
faiss's `SQ8 direct signed` takes for the three vectors alone, and `sq8_recall` which share of the best 100 by `SQ8` and halves
are right (ours: all of them). `filtered_ms` is the whole call with a filter that one job in a hundred passes.
`serving.explain` compares exact Shapley values with a loop over coalitions.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import bench_ranker_join as join
import faiss
import numpy as np
import pyarrow as pa
from timing import cpu_seconds, paired
from tritower.features import catalogue
from tritower.ranker import export
from tritower.ranker.online import OnlineRanker
from tritower.recommend import retrieve, scan
from tritower.recommend.clicks import Clicks
from tritower.recommend.index import Index
from tritower.recommend.retrieve import Conditions, Search
from tritower.schema import document_text
from tritower.serving import explain
from tritower.vocabulary import tables

JOBS, DIM, LIMIT, SEARCHES, CLICKS, USERS = int(os.environ.get("JOBS", 100_000)), 384, 200, 20, 50_000, 5_000
# Of all-MiniLM-L6-v2, tuned by `finetune` on a simulated log, and 100,000 documents of titles and companies.
ENERGY = {8: 0.723, 16: 0.775, 32: 0.833, 64: 0.896, 96: 0.932, 128: 0.955, 192: 0.98}
NOW = 1_770_000_000_000_000
DAY = 86_400_000_000


def cases() -> list[dict[str, Any]]:
    """`serving.retrieve`, the same with uniform vectors, and `serving.explain`."""
    faiss.omp_set_num_threads(1)
    return [retrieval("serving.retrieve", ENERGY), retrieval("serving.retrieve.uniform", {}), explanation()]


def retrieval(name: str, energy: dict[int, float]) -> dict[str, Any]:
    """Ours, numpy and faiss for the same searches.

    Args:
        energy: for `board`.
    """
    random = np.random.default_rng(0)
    start = time.process_time()
    jobs, documents, matrix_TD, queries = board(random, energy)
    made = time.process_time() - start
    index = Index.build(jobs, documents, matrix_TD, np.arange(JOBS))
    build_s = time.process_time() - start - made
    clicks = log(random, queries, matrix_TD)
    searches = [search(random, queries, matrix_TD) for _ in range(SEARCHES)]
    wide_JD = matrix_TD[:JOBS].astype(np.float32)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(wide_JD)
    given = [(index, *dense(one, index, clicks)) for one in searches]

    def ours() -> list[dict[str, np.ndarray]]:
        return [retrieve._dense(*one, LIMIT) for one in given]

    without = dataclasses.replace(index, heads=None)
    full = [(without, *one[1:]) for one in given]

    def full_scan() -> list[dict[str, np.ndarray]]:
        return [retrieve._dense(*one, LIMIT) for one in full]

    def naive() -> list[dict[str, np.ndarray]]:
        return [by_numpy(wide_JD, one[1:]) for one in given]

    def peer() -> list[dict[str, np.ndarray]]:
        return [by_faiss(flat, one[1:]) for one in given]

    for other in (naive(), peer()):
        for one, two in zip(ours(), other, strict=True):
            assert all(len(np.intersect1d(one[name], two[name])) >= len(one[name]) - 4 for name in one)
    for one, two in zip(ours(), full_scan(), strict=True):
        assert all(np.array_equal(one[name], two[name]) for name in one)
    row = paired(name, ours=ours, naive=naive, peer=peer, unit=f"CPU s per {SEARCHES} searches", rounds=5)
    whole = milliseconds([lambda one=one: retrieve.retrieve(one, index, clicks, limit=LIMIT) for one in searches])
    rare = index.region_J == index.region_J[0]
    rare &= np.arange(JOBS) % 50 == 0
    filtered = [Search(**{**vars(one), "conditions": Conditions(allowed_J=rare)}) for one in searches]
    narrow = milliseconds([lambda one=one: retrieve.retrieve(one, index, clicks, limit=LIMIT) for one in filtered])
    sizes = [*index.codes.arrays, *index.words, index.posted_J, index.expires_J, index.order_J, index.text_J]
    if index.heads:
        sizes += index.heads[:-2]
    held = sum(array.nbytes for array in sizes) / JOBS + 2 * DIM + 4 * 4
    scans = [statistics.median(cpu_seconds(one) for _ in range(5)) for one in (ours, full_scan)]
    return row | sq8(wide_JD, matrix_TD, searches) | {
        "heads": index.heads is not None, "full_scan": scans[1] / scans[0], "p50_ms": whole, "goal_ms": 4.0,
        "filtered_ms": narrow, "filtered_share": float(rare.mean()),
        "build_s": build_s, "bytes_per_job": held, "jobs": JOBS,
    }  # fmt: skip


def board(random: np.random.Generator, energy: dict[int, float]) -> tuple[pa.Table, list[str], np.ndarray, list[str]]:
    """Jobs, documents, the vectors of documents and, behind them, of queries, and the queries.

    Args:
        energy: which share of the squared length the first components have, by their number; empty = all have the same.
    """
    number_D = np.arange(DIM + 1)
    spread_D = np.sqrt(np.diff(np.interp(number_D, [0, *energy, DIM], [0, *energy.values(), 1]))).astype(np.float32)
    turn_DD = np.linalg.qr(random.normal(size=(DIM, DIM)))[0].astype(np.float32)
    titles, companies = tables.titles().column("title").to_pylist(), tables.companies()
    chosen = [titles[n] for n in random.integers(len(titles), size=JOBS)]
    company = [companies[n] for n in random.integers(len(companies), size=JOBS)]
    documents = [document_text(*pair) for pair in zip(chosen, company, strict=True)]
    queries = list(dict.fromkeys(titles[n].lower() for n in random.integers(len(titles), size=4_000)))
    texts = [*documents, *queries]
    number: dict[str, int] = {}
    words = [[number.setdefault(word.strip(",").lower(), len(number)) for word in text.split()] for text in texts]
    vector_WD = random.normal(size=(len(number), DIM)).astype(np.float32) * spread_D
    matrix_TD = np.empty((len(texts), DIM), np.float16)
    for row, own in enumerate(words):
        one_D = vector_WD[own].sum(axis=0) + random.normal(size=DIM).astype(np.float32) * spread_D
        matrix_TD[row] = (one_D / np.linalg.norm(one_D)) @ turn_DD
    region = random.integers(50, size=JOBS)
    age = random.integers(0, 60, size=JOBS) * DAY
    jobs = pa.table({
        "job_id": [f"j{n:07d}" for n in range(JOBS)], "company": company,
        "city": [f"city {n}" for n in region * 20 + random.integers(20, size=JOBS)], "region": [f"region {n}" for n in region],
        "country": ["US"] * JOBS, "posted_at": pa.array(NOW - age, pa.timestamp("us", tz="UTC")),
        "expires_at": pa.array(NOW - age + 55 * DAY, pa.timestamp("us", tz="UTC")),
    })  # fmt: skip
    return jobs, documents, matrix_TD, queries


def log(random: np.random.Generator, queries: list[str], matrix_TD: np.ndarray) -> Clicks:
    """Clicks of the last month."""
    return Clicks.build(
        user_E=pa.array([f"u{n}" for n in random.integers(USERS, size=CLICKS)]),
        job_E=random.integers(JOBS, size=CLICKS), query_text_E=random.integers(len(queries), size=CLICKS),
        clicked_us_E=NOW - random.integers(1, 30 * DAY, size=CLICKS), text_T=pa.array(queries), matrix_TD=matrix_TD[JOBS:],
    )  # fmt: skip


def search(random: np.random.Generator, queries: list[str], matrix_TD: np.ndarray) -> Search:
    """A returning user's."""
    query, region = int(random.integers(len(queries))), int(random.integers(50))
    return Search(
        ts_us=NOW, query=queries[query], query_D=matrix_TD[JOBS + query],
        profile_XD=matrix_TD[random.integers(JOBS, size=3)], user_id=f"u{random.integers(USERS)}",
        city=f"city {region * 20 + random.integers(20)}", region=f"region {region}",
    )  # fmt: skip


def dense(one: Search, index: Index, clicks: Clicks) -> tuple[Any, ...]:
    """What the lists by cosine are made of."""
    open_L = retrieve._open_jobs(one, index)
    vectors = (
        retrieve._halves(one.query_D, index), retrieve._profile(one.profile_XD, index), retrieve._history(one, index, clicks)
    )  # fmt: skip
    return open_L, *retrieve._places(one, index, open_L), *vectors


def by_numpy(wide_JD: np.ndarray, given: tuple[Any, ...]) -> dict[str, np.ndarray]:
    """Products with all jobs, and the best of each list."""
    open_L, city_P, region_P, query_D, profile_D, history_D = given
    row_R = np.flatnonzero(open_L)
    score = {name: one for name, one in (("query", query_D), ("profile", profile_D), ("history", history_D)) if one is not None}
    score = {name: wide_JD @ one for name, one in score.items()}
    near = score.get("history", score["query"])
    out = {name: best(row_R, one[row_R]) for name, one in score.items()}
    out |= {name: best(at, score["query"][at]) for name, at in (("city", city_P), ("region", region_P))}
    return out | {"near": best(region_P, near[region_P])}


def best(row_R: np.ndarray, score_R: np.ndarray) -> np.ndarray:
    """The jobs with the largest scores, best first."""
    if len(score_R) > LIMIT:
        chosen = np.argpartition(-score_R, LIMIT)[:LIMIT]
        row_R, score_R = row_R[chosen], score_R[chosen]
    return row_R[np.lexsort((row_R, -score_R))]


def by_faiss(flat: Any, given: tuple[Any, ...]) -> dict[str, np.ndarray]:
    """A search for each list, among the jobs that belong to it."""
    open_L, city_P, region_P, query_D, profile_D, history_D = given
    row_R = np.flatnonzero(open_L)
    asked = [("query", query_D, row_R), ("city", query_D, city_P), ("region", query_D, region_P)]
    asked += [("profile", profile_D, row_R)] if profile_D is not None else []
    asked += [("history", history_D, row_R)] if history_D is not None else []
    asked.append(("near", query_D if history_D is None else history_D, region_P))
    out = {}
    for name, vector_D, rows in asked:
        among = faiss.SearchParameters(
            sel=faiss.IDSelectorBitmap(np.packbits(np.isin(np.arange(JOBS), rows), bitorder="little"))
        )
        found = flat.search(vector_D[None], LIMIT, params=among)[1][0]
        out[name] = found[found >= 0]
    return out


def sq8(wide_JD: np.ndarray, matrix_TD: np.ndarray, searches: list[Search]) -> dict[str, float]:
    """faiss's bytes for three vectors, the best 120 of each multiplied again; recall of the best 100, and ours."""
    scale = 127 / np.abs(wide_JD).max()
    index = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT)
    index.add(np.rint(wide_JD * scale))
    asked_SD = np.array([one.query_D for one in searches], np.float32)
    coded_SD = np.rint(asked_SD * scale)  # it multiplies bytes with bytes
    found = index.search(coded_SD, 120)[1]
    hit = ours = 0
    codes, bits = scan.coded(scan.bits(matrix_TD), np.arange(JOBS)), scan.bits(matrix_TD)
    rows = np.arange(JOBS)
    for query_D, near in zip(asked_SD, found, strict=True):
        exact_J = wide_JD.astype(np.float64) @ query_D.astype(np.float64)
        wanted = np.lexsort((rows, -exact_J.astype(np.float32)))[:100]
        hit += len(np.intersect1d(near[np.argsort(-exact_J[near])][:100], wanted))
        one = scan.vectors([query_D])
        high = scan.bounded(codes, one, scan.wanted(np.ones(JOBS, np.bool_)))
        keys = scan.nearest(
            bits, rows, rows, codes, one.exact_VD[0], one.asked, 0, rows[:0], high.high_VL[0], high.peak_VG[0], 100
        )
        ours += len(np.intersect1d(scan.ordered(keys, 100), wanted))
    three = milliseconds([lambda n=n: index.search(coded_SD[n : n + 3], 120) for n in range(len(searches) - 3)])
    return {"sq8_ms": three, "sq8_recall": hit / (100 * len(searches)), "recall": ours / (100 * len(searches))}


def explanation() -> dict[str, Any]:
    """Ten results of 1,000 candidates, three networks, every group different; against one call for each coalition."""
    random = np.random.default_rng(0)
    loaded = join.model(random, 3)
    names = [feature.name for group in catalogue.GROUPS.values() for feature in group]
    loaded.names[:] = names[:: len(names) // join.FEATURES][: join.FEATURES]
    ranker = OnlineRanker(*export.pieces(loaded, "0"))
    table_JT = ranker.documents(random.normal(size=(1_000, 2 * DIM)))
    feature_NF, row_N = join.candidates(random).T, np.arange(1_000)
    query = ranker.query(random.normal(size=DIM))
    score_N = ranker.score(query, table_JT, row_N, feature_NF)
    top = np.argsort(-score_N)[:10].tolist()

    def ours() -> list[Any]:
        return explain.explain(ranker, query, table_JT, row_N, feature_NF, score_N, top)

    def naive() -> None:
        for job in top:
            game = explain._Game(ranker, row_N, feature_NF, job, explain.median(score_N))
            for column, row in zip(game.feature_FC.T, game.row_C, strict=True):
                ranker.score(query, table_JT, np.array([row]), column[None])

    row = paired("serving.explain", ours=ours, naive=naive, unit="CPU s per 10 results", rounds=5)
    return row | {"p50_ms": milliseconds([ours] * 20), "goal_ms": 4.0, "groups": len(ours()[0])}


def milliseconds(functions: list[Callable[[], Any]], rounds: int = 10) -> float:
    """Median of this thread's CPU time over all functions, called in turn."""
    times = []
    for _ in range(rounds):
        for function in functions:
            start = time.thread_time()
            function()
            times.append(1e3 * (time.thread_time() - start))
    return statistics.median(times)
