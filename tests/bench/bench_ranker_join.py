"""Scores of one search's 1,000 candidates with cached document towers: the export against torch, eager, on cached towers.

One network of the default config, with features, classes and descriptions as in the demo's model. The candidates are like
those of real searches: of 70 features 11 are missing for all of them, 9 for some, 13 have one value for all. `p50_ms` is CPU
time with the query tower computed before, `least_ms` the least; `query_ms` is the query tower's median. `ranker.join_members`
has three networks.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from timing import paired
from tritower.ranker import documents, export, normaliser
from tritower.ranker.artifact import Artifact
from tritower.ranker.config import RankerConfig
from tritower.ranker.network import ClickModel
from tritower.ranker.online import OnlineRanker
from tritower.ranker.scoring import Scorer

DIM, FEATURES, CLASSES, JOBS, CANDIDATES, SEARCHES = 384, 70, 193, 20_000, 1000, 20
ABSENT, PARTLY, CONSTANT = slice(0, 11), slice(11, 20), slice(20, 33)
CALLS = 300


def cases() -> list[dict]:
    """`ranker.join` and `ranker.join_members`."""
    torch.set_num_threads(1)
    return [compare("ranker.join", members=1), compare("ranker.join_members", members=3)]


def compare(name: str, *, members: int) -> dict[str, Any]:
    """Ours, and the step's scorer for the same rows."""
    random = np.random.default_rng(0)
    loaded = model(random, members)
    texts_TD = random.normal(size=(2 * JOBS + SEARCHES, DIM))
    texts_TD = (texts_TD / np.linalg.norm(texts_TD, axis=1, keepdims=True)).astype(np.float16)
    ranker, scorer = OnlineRanker(*export.pieces(loaded, "0")), Scorer(loaded, texts_TD)
    text_J = np.arange(JOBS)
    table_JT = np.concatenate(
        [ranker.documents(documents.vectors(texts_TD, part, JOBS + part)) for part in np.array_split(text_J, 10)]
    )
    searches = [(2 * JOBS + n, random.choice(JOBS, CANDIDATES, replace=False), candidates(random)) for n in range(SEARCHES)]
    queries = [ranker.query(texts_TD[query]) for query, _, _ in searches]
    turns = {"ours": 0, "naive": 0}

    def ours() -> np.ndarray:
        n = turns["ours"] = (turns["ours"] + 1) % SEARCHES
        _, row_N, feature_FN = searches[n]
        return ranker.score(queries[n], table_JT, row_N, feature_FN.T)

    def naive() -> np.ndarray:
        n = turns["naive"] = (turns["naive"] + 1) % SEARCHES
        query, row_N, feature_FN = searches[n]
        texts = np.full(CANDIDATES, query), row_N
        return scorer.score(*texts, np.ascontiguousarray(feature_FN.T), (JOBS + row_N)[:, None].astype(np.int32))

    for _ in range(SEARCHES):  # fills the scorer's caches too
        np.testing.assert_allclose(ours(), naive(), rtol=0, atol=1e-6)
    row = paired(name, ours=lambda: repeat(ours), naive=lambda: repeat(naive), unit="CPU s per 20 searches", rounds=7)
    times = {
        "ours": milliseconds(ours),
        "torch": milliseconds(naive),
        "query": milliseconds(lambda: ranker.query(texts_TD[-1])),
    }
    p50 = {name: statistics.median(taken) for name, taken in times.items()}
    goal = {"p50_ms": p50["ours"], "least_ms": min(times["ours"]), "goal_ms": 1.0 * members}
    return row | goal | {"p50_torch_ms": p50["torch"], "query_ms": p50["query"]}


def repeat(function: Callable[[], Any]) -> None:
    """Every search once."""
    for _ in range(SEARCHES):
        function()


def milliseconds(function: Callable[[], Any]) -> list[float]:
    """This thread's CPU time for each of some calls: on an idle core, what the clock on the wall says."""
    times = []
    for _ in range(CALLS):
        start = time.thread_time()
        function()
        times.append(1e3 * (time.thread_time() - start))
    return times


def candidates(random: np.random.Generator) -> np.ndarray:
    """Features (F, N) of one search's candidates."""
    feature_FN = random.normal(size=(FEATURES, CANDIDATES)).astype(np.float32)
    feature_FN[ABSENT] = np.nan
    feature_FN[PARTLY][random.random(feature_FN[PARTLY].shape) < 0.4] = np.nan
    feature_FN[CONSTANT] = feature_FN[CONSTANT, :1]
    return feature_FN


def model(random: np.random.Generator, members: int) -> Artifact:
    """Random weights; every part counts."""
    config = replace(
        RankerConfig(),
        network=replace(RankerConfig().network, occupation_classes=CLASSES),
        training=replace(RankerConfig().training, members=members),
    )
    torch.manual_seed(0)
    networks = [ClickModel(config.network, dim=DIM, features=FEATURES).eval() for _ in range(members)]
    with torch.no_grad():
        for network in networks:
            for weight in network.parameters():
                weight += 0.02 * torch.randn_like(weight)
    fitted = normaliser.fit(random.normal(size=(5000, FEATURES)).astype(np.float32), kind="quantile")
    return Artifact(config, [f"f{n}" for n in range(FEATURES)], {"hash": "0", "dim": DIM}, fitted, networks)
