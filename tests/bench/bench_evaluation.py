"""Exact AUC and ranking metrics of 10M rows: ours, the way one writes it first, and the fastest library way."""

import numpy as np
import pandas as pd
import polars as pl
from sklearn.metrics import roc_auc_score
from timing import paired
from tritower.metrics import auc, ranking

ROWS = 10_000_000
PER_REQUEST = 10
SHARE = 200  # the pandas loop gets one row in SHARE


def cases() -> list[dict]:
    """`evaluation.auc` and `evaluation.map`; both answers are compared before anything is timed."""
    rng = np.random.default_rng(0)
    score = rng.beta(1, 8, ROWS).astype(np.float32)
    clicked = rng.random(ROWS) < score
    request = np.repeat(np.arange(ROWS // PER_REQUEST), PER_REQUEST)
    row = np.arange(ROWS)
    assert abs(auc.auc(score, clicked) - roc_auc_score(clicked, score)) < 1e-12
    mine, theirs, slow = ours(score, clicked, request, row), in_polars(score, clicked, request), slice(ROWS // SHARE)
    assert np.allclose(mine, theirs, atol=2e-4), (mine, theirs)  # float32 scores hold a few ties, broken differently
    assert np.allclose(
        ours(score[slow], clicked[slow], request[slow], row[slow]),
        in_pandas(score[slow], clicked[slow], request[slow]),
        atol=2e-3,
    )
    return [
        paired(
            "evaluation.auc",
            ours=lambda: auc.auc(score, clicked),
            naive=lambda: roc_auc_score(clicked, score),
        ),
        paired(
            "evaluation.map",
            ours=lambda: ours(score, clicked, request, row),
            naive=lambda: in_pandas(score[slow], clicked[slow], request[slow]),
            peer=lambda: in_polars(score, clicked, request),
            rounds=3,
            scale={"naive": SHARE},
        ),
    ]


def ours(score: np.ndarray, clicked: np.ndarray, request: np.ndarray, row: np.ndarray) -> list[float]:
    """mAP@1 and mAP@3 (nDCG@10 comes with them)."""
    per = ranking.per_request(score, clicked, row, ranking.requests(request, clicked), seed=0)
    return [per.map1_Q.mean(), per.map3_Q.mean()]


def in_pandas(score: np.ndarray, clicked: np.ndarray, request: np.ndarray) -> list[float]:
    """A loop over groupby, as most notebooks have it."""
    values = []
    for _, group in pd.DataFrame({"request": request, "score": score, "clicked": clicked}).groupby("request"):
        labels = group.sort_values("score", ascending=False)["clicked"].to_numpy()
        relevant = labels.sum()
        if relevant:
            precision = np.cumsum(labels) / np.arange(1, len(labels) + 1) * labels
            values.append([precision[:k].sum() / min(k, relevant) for k in (1, 3)])
    return np.mean(values, axis=0).tolist()


def in_polars(score: np.ndarray, clicked: np.ndarray, request: np.ndarray) -> list[float]:
    """Lazy expressions: only requests with a click, ranks over the request, one aggregation."""
    table = pl.LazyFrame({"request": request, "score": score, "clicked": clicked})
    clicks = table.filter("clicked").group_by("request").agg(pl.len().alias("relevant"))
    ranked = (
        table.join(clicks, on="request")
        .with_columns(pl.col("score").rank("ordinal", descending=True).over("request").alias("rank"))
        .filter("clicked", pl.col("rank") <= 3)
        .sort("request", "rank")
        .with_columns(pl.col("rank").cum_count().over("request").alias("hit"))
        .with_columns((pl.col("hit") / pl.col("rank")).alias("precision"))
        .group_by("request")
        .agg(
            (pl.col("rank") == 1).any().alias("first"),
            (pl.col("precision").sum() / pl.min_horizontal(pl.lit(3), pl.col("relevant").first())).alias("third"),
        )
        .select(pl.col("first").sum(), pl.col("third").sum())
        .collect()
    )
    count = clicks.select(pl.len()).collect().item()
    return [ranked["first"][0] / count, ranked["third"][0] / count]
