"""Benches of the feature kernels: counters in time, string similarity, histories; and the memory of the whole step.

The log is synthetic: popular jobs and active users follow a power law; 20 rows per request; 7 % are clicked, up to an hour
later.
"""

import heapq
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import timing
from rapidfuzz import distance, fuzz
from tritower import schema
from tritower.features import counters, history, rings, step, strings
from tritower.features.config import FeaturesConfig
from tritower.features.online import OnlineFeatures, Request
from tritower.features.pairs import PairIndex
from tritower.features.timeline import NO_TIME, Rows, Timeline

BATCH = 131_072
ROWS, PER_REQUEST = 1_000_000, 20
HALF_LIFE_US = 7 * counters.DAY_US
SIZES = {"job": 20_000, "occupation": 400, "company": 3_000, "query": 8_000}


def log(rows: int, seed: int = 0, *, users: int = 40_000, jobs: int = SIZES["job"]) -> Rows:
    """A synthetic log over 28 days."""
    rng = np.random.default_rng(seed)
    request = np.arange(rows) // PER_REQUEST
    requests = int(request[-1]) + 1
    ts = 1_700_000_000_000_000 + np.sort(rng.integers(0, 28 * counters.DAY_US, requests))
    clicked = rng.random(rows) < 0.07
    query = power_law(rng, SIZES["query"], requests)
    delay = (rng.lognormal(3.2, 1.2, rows) * 1e6).clip(1e6, 3.6e9).astype(np.int64)
    return Rows(
        row=np.arange(rows), request=request, ts=ts[request], user=power_law(rng, users, requests)[request],
        job=shown_jobs(rng, query[request], jobs), query=query[request],
        position=(np.arange(rows) % PER_REQUEST + 1).astype(np.int32), randomised=(request % 10 == 0),
        clicked_at=np.where(clicked, ts[request] + delay, NO_TIME), counts=np.ones(rows, np.bool_), out=np.arange(rows),
    )  # fmt: skip


def power_law(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """Numbers below `size`, the popular first, density falling as a power of the rank."""
    return np.minimum(size - 1, (size * rng.random(count) ** 2.5)).astype(np.int32)


def shown_jobs(rng: np.random.Generator, query_N: np.ndarray, jobs: int) -> np.ndarray:
    """Jobs for a search: mostly of the occupation it means (job modulo occupations), some of its neighbours, a few of any."""
    of = (query_N * 7 + np.abs(rng.normal(0, 2, len(query_N))).astype(np.int64)) % SIZES["occupation"]
    any_N = rng.random(len(query_N)) < 0.05
    of[any_N] = rng.integers(0, SIZES["occupation"], int(any_N.sum()))
    return (power_law(rng, jobs // SIZES["occupation"], len(query_N)) * SIZES["occupation"] + of).astype(np.int32)


class CounterRun:
    """The counters over a log, batch by batch, with the gathers and pair numbers that the step needs for them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.occupation_J = np.arange(SIZES["job"], dtype=np.int32) % SIZES["occupation"]
        self.company_J = power_law(rng, SIZES["company"], SIZES["job"])
        self.base_L = np.cumsum([0, *SIZES.values()])

    def __call__(self, rows: Rows) -> np.ndarray:
        """The features of the last batch."""
        line, pairs = Timeline(), PairIndex()
        state = counters.Counters(int(self.base_L[-1]), positions=64, half_life_days=7.0, prior_impressions=20.0)
        for start in range(0, len(rows), BATCH):
            part = rows.take(slice(start, start + BATCH))
            part = Rows(**{**vars(part), "out": np.arange(len(part))})
            batch = line.start(part)
            out_FN = np.full((len(counters.names()), len(part)), np.nan, np.float32)
            keys_LN, keys_LC = self.keys(batch.rows, pairs), self.keys(batch.clicks, pairs)
            state.reserve(int(self.base_L[-1]) + pairs.used)
            state.read(batch, keys_LN, keys_LC, out_FN)
            state.finish(line.finish(batch))
        return out_FN

    def keys(self, rows: Rows, pairs: PairIndex) -> np.ndarray:
        occupation_N = self.occupation_J[rows.job]
        own = (rows.job, occupation_N, self.company_J[rows.job], rows.query, pairs.numbers(rows.query, occupation_N))
        return np.stack([key_N + base for key_N, base in zip(own, self.base_L, strict=True)])

    def as_dicts(self, rows: Rows) -> list[tuple[float, ...]]:
        """The same features in plain Python: a dict per level and a heap of clicks; the prior and the curve held fixed."""
        tables: list[dict[Any, list[float]]] = [defaultdict(lambda: [0.0] * 6) for _ in range(5)]
        clicks: list[tuple[int, int]] = []
        keys = self.named_keys(rows)
        columns = [column.tolist() for column in (rows.ts, rows.clicked_at, rows.position)]
        out, waiting, now, unit = [], 0, -1, 1.0
        curve, strength, prior = [0.1 / (p + 1) for p in range(64)], 20.0, 1.4
        for i, (t, clicked_at, _) in enumerate(zip(*columns, strict=True)):
            if t != now:
                now, unit = t, 2.0 ** ((t - columns[0][0]) / HALF_LIFE_US)
                while columns[0][waiting] < t:
                    weight = 2.0 ** ((columns[0][waiting] - columns[0][0]) / HALF_LIFE_US)
                    for table, key in zip(tables, keys[waiting], strict=True):
                        entry = table[key]
                        if not entry[0]:
                            entry[5] = columns[0][waiting]
                        entry[0] += 1
                        entry[2] += weight
                        entry[4] += curve[columns[2][waiting]]
                    waiting += 1
                while clicks and clicks[0][0] < t:
                    at, j = heapq.heappop(clicks)
                    weight = 2.0 ** ((at - columns[0][0]) / HALF_LIFE_US)
                    for table, key in zip(tables, keys[j], strict=True):
                        entry = table[key]
                        entry[1] += 1
                        entry[3] += weight
            values: list[float] = []
            for table, key in zip(tables, keys[i], strict=True):
                n, c, nd, cd, e, _first = table[key]
                values += [math.log1p(n), math.log1p(c)]
                if n:
                    values += [
                        (c + prior) / (n + strength),
                        (cd + prior * unit) / (nd + strength * unit),
                        (c + prior) / (e + prior),
                    ]
            out.append(tuple(values))
            if clicked_at != NO_TIME:
                heapq.heappush(clicks, (clicked_at, i))
        return out

    def named_keys(self, rows: Rows) -> list[tuple[Any, ...]]:
        job, query = rows.job.tolist(), rows.query.tolist()
        occupation, company = self.occupation_J[rows.job].tolist(), self.company_J[rows.job].tolist()
        return list(zip(job, occupation, company, query, zip(query, occupation, strict=True), strict=True))

    def as_pandas(self, rows: Rows) -> pd.DataFrame:
        """Impressions, clicks and smoothed rate of the five levels by cumcount and merge_asof (15 of the features)."""
        occupation = self.occupation_J[rows.job].astype(np.int64)
        pair = rows.query.astype(np.int64) * SIZES["occupation"] + occupation
        levels = {
            "job": rows.job,
            "occupation": occupation,
            "company": self.company_J[rows.job],
            "query": rows.query,
            "pair": pair,
        }
        frame = pd.DataFrame({"ts": rows.ts, **levels})
        clicks = pd.DataFrame({"ts": rows.clicked_at, **levels})[rows.clicked_at != NO_TIME].sort_values("ts")
        for level in levels:
            # The first row of an instant carries the count before it; the others of that instant take it over.
            shown = frame.groupby(level, sort=False).cumcount()
            frame[f"{level}_shown"] = shown.groupby([frame[level], frame["ts"]], sort=False).transform("first")
            clicks["n"] = clicks.groupby(level, sort=False).cumcount() + 1
            joined = pd.merge_asof(
                frame[["ts", level]], clicks[["ts", level, "n"]], on="ts", by=level, allow_exact_matches=False
            )
            frame[f"{level}_clicks"] = joined["n"].fillna(0).to_numpy()
            frame[f"{level}_ctr"] = (frame[f"{level}_clicks"] + 1.4) / (frame[f"{level}_shown"] + 20)
        return frame


def bench_counters() -> dict[str, Any]:
    run, rows = CounterRun(), log(ROWS)
    share = 20
    part = rows.take(slice(0, ROWS // share))
    features = len(counters.names())
    return timing.paired(
        "features.counters", unit=f"CPU s per {ROWS:,} rows x {features} features",
        ours=lambda: run(rows), naive=lambda: run.as_dicts(part), peer=lambda: run.as_pandas(rows),
        scale={"naive": share, "peer": features / 15}, rounds=3,
    )  # fmt: skip


def texts(count: int, low: int, high: int, seed: int) -> list[str]:
    """Texts of `low` to `high` words of a small vocabulary."""
    rng = np.random.default_rng(seed)
    words = [
        "senior",
        "registered",
        "nurse",
        "night",
        "shift",
        "truck",
        "driver",
        "cdl",
        "java",
        "software",
        "engineer",
        "manager",
    ]
    words += [
        f"{a}{b}" for a in ("assist", "operat", "technic", "account", "market") for b in ("ant", "or", "ian", "ing", "er")
    ]
    return [" ".join(rng.choice(words, rng.integers(low, high))) for _ in range(count)]


def distinct(values: Sequence[str]) -> list[str]:
    """The values, those that came before with their number behind: a dataset has each text once."""
    out: dict[str, None] = {}
    for number, value in enumerate(values):
        out[f"{value} {number}" if value in out else value] = None
    return list(out)


def bench_strings() -> dict[str, Any]:
    """Three scorers over a million rows at 3.6 repeats per pair, in batches of the step's size."""
    rng = np.random.default_rng(0)
    rows, share = 1_000_000, 40
    queries, titles = texts(4_000, 1, 4, 1), texts(20_000, 2, 7, 2)
    # Requests of 20 rows; every request is repeated 3.6 times on average, at random moments.
    requests, distinct = rows // PER_REQUEST, int(rows / PER_REQUEST / 3.6)
    query = rng.integers(0, len(queries), distinct).astype(np.int32)
    shown = rng.integers(0, len(titles), (distinct, PER_REQUEST)).astype(np.int32)
    pick = rng.permutation(np.concatenate([np.arange(distinct), rng.integers(0, distinct, requests - distinct)]))
    left, right = np.repeat(query[pick], PER_REQUEST), shown[pick].ravel()
    columns = pa.array(queries), pa.array(titles)

    def ours() -> None:
        scorer = strings.PairScorer(*map(strings.words, columns), ("token_set", "partial", "jaro_winkler"), strings.Cache(3))
        for start in range(0, rows, BATCH):
            part = slice(start, start + BATCH)
            scorer.scores(left[part], right[part], np.empty((3, len(left[part])), np.float32))

    def loop() -> None:
        for q, t in zip(left[: rows // share].tolist(), right[: rows // share].tolist(), strict=True):
            a, b = queries[q], titles[t]
            fuzz.token_set_ratio(a, b), fuzz.partial_ratio(a, b), distance.JaroWinkler.normalized_similarity(a, b)

    frame = pd.DataFrame({"q": [queries[q] for q in left[: rows // 200]], "t": [titles[t] for t in right[: rows // 200]]})

    def apply() -> None:
        frame.apply(lambda r: fuzz.token_set_ratio(r["q"], r["t"]), axis=1)
        frame.apply(lambda r: fuzz.partial_ratio(r["q"], r["t"]), axis=1)
        frame.apply(lambda r: distance.JaroWinkler.normalized_similarity(r["q"], r["t"]), axis=1)

    return timing.paired(
        "features.strings", unit=f"CPU s per {rows:,} rows x 3 scorers (peer: pandas apply)",
        ours=ours, naive=loop, peer=apply, scale={"naive": share, "peer": 200}, rounds=3,
    )  # fmt: skip


def bench_history() -> dict[str, Any]:
    """Nine features of past clicks over 384 dimensions; naive: one user's clicks after the other in numpy."""
    rows = log(ROWS, jobs=20_000)
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(20_000, 384)).astype(np.float32)
    matrix = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    traits_3J = rng.integers(0, 500, (3, 20_000)).astype(np.int32)
    number = np.arange(20_000, dtype=np.int32)
    jobs = history.Jobs(rings.Vectors(matrix.view(np.uint16), matrix[:0].view(np.uint16)), number, traits_3J)

    # The timeline is common to all groups and timed with the counters.
    line, batches = Timeline(), []
    for start in range(0, len(rows), BATCH):
        part = rows.take(slice(start, start + BATCH))
        batches.append(line.start(Rows(**{**vars(part), "out": np.arange(len(part))})))
        line.finish(batches[-1])
    out_FN = np.full((9, BATCH), np.nan, np.float32)

    def ours() -> None:
        past = history.History(40_000, clicks=16, half_life_days=14.0)
        for batch in batches:
            past.read(batch, jobs, out_FN)

    share = 20

    def naive() -> None:
        mine: dict[int, list[tuple[int, int]]] = defaultdict(list)
        part = rows.take(slice(0, ROWS // share))
        for at, user, job in sorted(zip(part.clicked_at.tolist(), part.user.tolist(), part.job.tolist(), strict=True)):
            if at != NO_TIME:
                mine[user].append((at, job))
        for t, user, job in zip(part.ts.tolist(), part.user.tolist(), part.job.tolist(), strict=True):
            past = [entry for entry in mine[user] if entry[0] < t][-16:]
            if past:
                vectors_HD = matrix[[j for _, j in past]].astype(np.float32)
                product_H = vectors_HD @ matrix[job].astype(np.float32)
                weight_H = np.exp2([(at - past[-1][0]) / (2 * HALF_LIFE_US) for at, _ in past])
                float(product_H.max()), float(product_H[-1])
                float(weight_H @ product_H / np.linalg.norm(weight_H @ vectors_HD))
                [sum(trait_J[j] == trait_J[job] for _, j in past) for trait_J in (*traits_3J, number)]

    row = timing.paired(
        "features.history",
        unit=f"CPU s per {ROWS:,} rows x 9 features",
        ours=ours,
        naive=naive,
        scale={"naive": share},
        rounds=3,
    )
    return row | {"rows_per_cpu_s": ROWS / row["ours"]}


def write_dataset(folder: Path, rows: int) -> None:
    """A dataset of `rows` impressions with the same jobs, users and texts whatever the size, and random vectors."""
    rng = np.random.default_rng(0)
    jobs, users, queries = SIZES["job"], 40_000, SIZES["query"]
    names = distinct([*texts(queries, 1, 4, 1), *texts(jobs, 2, 7, 2)])
    titles = names[queries:]
    values = distinct([*names, *(f"{title}, company {j % SIZES['company']}" for j, title in enumerate(titles))])
    tables = {
        "texts": {
            "text": range(len(values)), "value": values, "is_query": [t < queries for t in range(len(values))],
            "is_title": [queries <= t < queries + jobs for t in range(len(values))],
        },
        "jobs": {
            "job": range(jobs), "job_id": [f"j{j}" for j in range(jobs)], "title": titles,
            "company": [f"company {j % SIZES['company']}" for j in range(jobs)],
            "occupation": [f"occupation {j % SIZES['occupation']}" for j in range(jobs)],
            "title_text": range(queries, queries + jobs), "document_text": range(queries + jobs, queries + 2 * jobs),
            "company_key": [j % SIZES["company"] for j in range(jobs)], "city": [f"city {j % 300}" for j in range(jobs)],
        },
        "users": {
            "user": range(users), "user_id": [f"u{u}" for u in range(users)],
            "interest_texts": [[int(t)] for t in rng.integers(queries, queries + jobs, users)],
            "past_title_texts": [[]] * users,
        },
    }  # fmt: skip
    schemas = {"texts": schema.DATASET_TEXTS, "jobs": schema.DATASET_JOBS, "users": schema.DATASET_USERS}
    for name, columns in tables.items():
        write_table(folder / "dataset" / f"{name}.parquet", schemas[name].arrow(), columns)
    embeddings = folder / "embeddings"
    embeddings.mkdir()
    vectors = rng.normal(size=(len(values), 384)).astype(np.float32)
    np.save(embeddings / "matrix.npy", (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16))
    (embeddings / "encoder.json").write_text("{}")
    (folder / "dataset" / "dataset.json").write_text("{}")
    write_log(folder / "dataset", rows)


def write_log(folder: Path, rows: int) -> None:
    """The impressions in parts of up to a million rows, each 28 days after the one before, and their requests."""
    chunk, requests = min(1_000_000, rows // (3 * PER_REQUEST) * PER_REQUEST), []
    for split in schema.SPLITS:
        (folder / "impressions" / split).mkdir(parents=True)
    for start in range(0, rows, chunk):
        part = log(min(chunk, rows - start), seed=start)
        shift, first = start // chunk * 28 * counters.DAY_US, start // PER_REQUEST
        clicked = part.clicked_at != NO_TIME
        time = pa.timestamp("us", tz="UTC")
        columns = {
            "row": part.row + start, "request": part.request + first, "ts": pa.array(part.ts + shift, time), "user": part.user,
            "job": part.job, "query_text": part.query, "document_text": part.job + SIZES["query"] + SIZES["job"],
            "position": part.position.astype(np.int16), "clicked": clicked, "randomised": part.randomised,
            "clicked_at": pa.array(part.clicked_at + shift, mask=~clicked).cast(time),
        }  # fmt: skip
        split = schema.SPLITS[min(2, 3 * start // rows)]
        write_table(
            folder / "impressions" / split / f"part-{start // chunk:05d}.parquet", schema.DATASET_IMPRESSIONS.arrow(), columns
        )
        one = slice(None, None, PER_REQUEST)
        requests.append({"request": part.request[one] + first, "query_text": part.query[one], "user": part.user[one]})
    merged = {name: np.concatenate([part[name] for part in requests]) for name in requests[0]}
    count = len(merged["request"])
    ids, city = pa.array(merged["request"]).cast(pa.string()), pa.array(["city 7"]).take(pa.array(np.zeros(count, np.int32)))
    write_table(folder / "requests.parquet", schema.DATASET_REQUESTS.arrow(), merged | {"request_id": ids, "city": city})


def write_table(path: Path, kind: pa.Schema, columns: dict[str, Any]) -> None:
    """A table of `kind`; columns that are not given are null, or false."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = len(next(iter(columns.values())))
    arrays = []
    for field in kind:
        empty = pa.nulls(rows, field.type) if field.nullable else pa.nulls(rows, pa.int8()).fill_null(0)
        values = columns.get(field.name, empty)
        array = values if isinstance(values, pa.Array) else pa.array(values)
        if field.name == "ts" and field.name not in columns:
            array = pa.array(np.zeros(rows, np.int64))
        arrays.append(array.cast(field.type))
    pq.write_table(pa.Table.from_arrays(arrays, schema=kind), path, row_group_size=131_072)  # as ingest writes them


RUN = """
import sys
from tritower.features import step
from tritower.features.config import FeaturesConfig
folder = sys.argv[1]
step.run(dataset=folder + "/dataset", embeddings=folder + "/embeddings", features=folder + "/features", config=FeaturesConfig())
"""


def peak(rows: int) -> tuple[float, float]:
    """Peak resident MiB and CPU seconds (with start-up) of the whole step over `rows` impressions, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), rows)
        used = timing.measured(RUN, folder)
    return used["peak_mib"], used["cpu_s"]


def bench_memory() -> dict[str, Any]:
    """The step at 1M and at `TRITOWER_BENCH_ROWS` (default 4M) impressions of the same jobs, users and texts."""
    large = int(os.environ.get("TRITOWER_BENCH_ROWS", "4000000"))
    (small_mib, _), (large_mib, large_s) = peak(1_000_000), peak(large)
    return {
        "name": "features.memory", "ours": large_mib, "naive": small_mib, "peer": None, "ratio_naive": small_mib / large_mib,
        "ratio_peer": None, "limit_share": None, "unit": f"MiB peak at {large:,} rows (naive: ours at 1,000,000)",
        "rows_per_cpu_s": large / large_s,
    }  # fmt: skip


def recognised(texts: Sequence[str]) -> pa.Table:
    """As a recogniser would: a word of each text as TITLE, another as SKILL."""
    labels = ("TITLE", "SKILL")
    words = [
        (number, label, word) for number, text in enumerate(texts) for label, word in zip(labels, text.split(), strict=False)
    ]
    number, label, value = ([row[at] for row in words] for at in range(3))
    columns = {"text": number, "label": label, "value": value, "start": [0] * len(words), "end": [1] * len(words)}
    return pa.table(columns, schema=schema.ENTITIES.arrow())


def write_online(folder: Path, rows: int) -> None:
    """A dataset as above with entities, and the state after its log."""
    write_dataset(folder, rows)
    values = pq.read_table(folder / "dataset" / "texts.parquet")["value"].to_pylist()
    (folder / "entities").mkdir()
    pq.write_table(recognised(values), folder / "entities" / "entities.parquet")
    step.run(
        dataset=folder / "dataset", embeddings=folder / "embeddings", entities=folder / "entities",
        features=folder / "features", config=FeaturesConfig(),
    )  # fmt: skip


def bench_online() -> dict[str, Any]:
    """One request and 1,000 jobs, all features, on one core; every request with another user and query of the log's kind.

    `ours` is the median CPU time of a read, in ms, of the thread that reads.
    """
    rng, candidates, requests = np.random.default_rng(0), 1_000, 300
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_online(folder, 300_000)
        parts = [folder / part for part in ("features", "dataset", "embeddings", "entities")]
        online = OnlineFeatures.open(*parts, embed=lambda texts: np.ones((len(texts), 384)) / 384**0.5, recognise=recognised)
    words = texts(SIZES["query"], 1, 4, 1)
    query = rng.permutation(len(words))[: requests + 20]
    used = []
    for number, at in enumerate(query.tolist()):
        shown = rng.permutation(SIZES["job"])[:candidates]
        request = Request(ts=1_800_000_000_000_000 + number, user_id=f"u{rng.integers(40_000)}", query=words[at], city="city 7")
        ids = [f"j{job}" for job in shown.tolist()]
        start = time.thread_time()
        online.read(request, ids)
        used.append((time.thread_time() - start) * 1e3)
    used = sorted(used[20:])
    return {
        "name": "features.online", "ours": used[len(used) // 2], "naive": None, "peer": None, "ratio_naive": None,
        "ratio_peer": None, "limit_share": None, "p95": used[int(0.95 * len(used))], "least": used[0],
        "unit": f"CPU ms per read of {candidates:,} jobs x {len(online.names)} features, median",
    }  # fmt: skip


def cases() -> list[dict[str, Any]]:
    """All rows of this bench."""
    return [bench_counters(), bench_strings(), bench_history(), bench_online(), bench_memory()]
