"""A small evaluated log on disk: dataset, features, scores of three rankers, truth."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tritower import schema

EXAMINATION = np.array([1.0, 0.7, 0.5, 0.4, 0.3, 0.3, 0.25, 0.2])


def write_log(
    root: Path, *, requests: int = 3000, seed: int = 0, random_share: float = 0.5, skill: float = 1.0, users: int = 400
) -> Path:
    """Test requests of 8 jobs; scores are relevance blurred by noise: the model least, the baseline most."""
    rng = np.random.default_rng(seed)
    size = len(EXAMINATION)
    jobs, queries = 300, 60
    request = np.repeat(np.arange(requests), size)
    user = rng.integers(0, users, requests)
    job = np.concatenate([rng.choice(jobs, size, replace=False) for _ in range(requests)])
    logit = rng.normal(-1.5, 1.2, requests * size) + 0.5 * np.repeat(rng.normal(size=users)[user], size)
    relevance = 1 / (1 + np.exp(-logit))
    randomised = np.repeat(rng.random(requests) < random_share, size)
    policy = np.where(randomised, 0, logit) + rng.normal(size=len(logit))
    position = (np.argsort(np.argsort(-policy.reshape(requests, size), axis=1), axis=1) + 1).ravel()
    clicked = rng.random(len(logit)) < relevance * EXAMINATION[position - 1]
    root.mkdir(parents=True, exist_ok=True)
    query = np.repeat(rng.integers(0, queries, requests), size)
    ts = pa.array(request * 1_000_000, pa.timestamp("us", tz="UTC"))
    split = np.where(np.arange(requests) < requests // 2, "train", "test")
    columns = {
        "row": np.arange(len(request)), "request": request, "ts": ts, "user": np.repeat(user, size).astype(np.int32),
        "job": job.astype(np.int32), "query_text": query.astype(np.int32), "document_text": (queries + job).astype(np.int32),
        "position": position.astype(np.int16), "clicked": clicked, "randomised": randomised,
    }  # fmt: skip
    keys = pa.table([pa.array(columns[c.name]) for c in schema.FEATURE_KEYS.columns], schema=schema.FEATURE_KEYS.arrow())
    for name in ("train", "test"):
        folder = root / "features" / name
        folder.mkdir(parents=True)
        pq.write_table(keys.filter(pa.array(np.repeat(split == name, size))), folder / "part-0000.parquet")
    (root / "features" / "features.json").write_text('{"features": []}')
    test = np.repeat(split == "test", size)
    for ranker, noise in (("model", 0.4 / skill), ("baseline", 1.5), ("baseline_cos", 1.0)):
        blurred = logit + rng.normal(scale=noise, size=len(logit))
        score = (1 / (1 + np.exp(-blurred))).astype(np.float32)
        (root / ranker).mkdir()
        table = pa.table([columns["row"][test], request[test], score[test]], schema=schema.SCORES.arrow())
        pq.write_table(table, root / ranker / "test.parquet")
        (root / ranker / "scores.json").write_text(json.dumps({"model": ranker}))
    _write_dataset(root / "dataset", requests, jobs, users, queries, user, query[::size], randomised[::size], split, ts.take(
        pa.array(np.arange(0, len(request), size))))  # fmt: skip
    shuffled = rng.permutation(len(request))
    (root / "truth").mkdir()
    truth = [
        pa.array([f"q{r}" for r in request[shuffled]]),
        pa.array([f"j{j}" for j in job[shuffled]]),
        pa.array(relevance[shuffled], pa.float32()),
        pa.array((relevance * EXAMINATION[position - 1])[shuffled], pa.float32()),
    ]
    pq.write_table(pa.table(truth, schema=schema.TRUTH.arrow()), root / "truth" / "part-0000.parquet")
    return root


def _write_dataset(folder, requests, jobs, users, queries, user, query, randomised, split, ts):
    folder.mkdir()
    region = pa.array([f"r{i % 5}" for i in range(jobs)])
    values = {
        "job": np.arange(jobs), "job_id": [f"j{j}" for j in range(jobs)], "title": [f"Title {j}" for j in range(jobs)],
        "company": [f"Company {j % 7}" for j in range(jobs)], "city": [f"City {j % 11}" for j in range(jobs)],
        "country": region, "title_text": queries + np.arange(jobs),
        "document_text": queries + np.arange(jobs), "company_key": np.arange(jobs) % 7,
    }  # fmt: skip
    _write(folder / "jobs.parquet", schema.DATASET_JOBS, values, jobs)
    values = {
        "request": np.arange(requests), "request_id": [f"q{r}" for r in range(requests)], "ts": ts, "user": user,
        "query_text": query, "city": [f"City {r % 11}" for r in range(requests)], "randomised": randomised, "split": split,
    }  # fmt: skip
    _write(
        folder / "users.parquet",
        schema.DATASET_USERS,
        {"user": np.arange(users), "user_id": [f"u{u}" for u in range(users)]},
        users,
    )
    _write(folder / "requests.parquet", schema.DATASET_REQUESTS, values, requests)
    texts = queries + jobs
    flags = {"is_query": np.arange(texts) < queries, "is_title": np.arange(texts) >= queries}
    values = {
        "text": np.arange(texts), "value": [f"query {t}" if t < queries else f"Title {t - queries}" for t in range(texts)],
        **flags, "is_document": flags["is_title"], "is_profile": np.zeros(texts, bool), "is_description": np.zeros(texts, bool),
    }  # fmt: skip
    _write(folder / "texts.parquet", schema.DATASET_TEXTS, values, texts)


def _write(path, table, values, count):
    columns = [
        pa.array(values[c.name], schema.arrow_type(c.type)) if c.name in values else pa.nulls(count, schema.arrow_type(c.type))
        for c in table.columns
    ]
    pq.write_table(pa.table(columns, schema=table.arrow()), path)
