"""What a stale state costs: `python tests/bench/stale_state.py`.

A generated log is taken through the steps and the triple tower is trained on features as they should be. The searches of the
test days are then ranked as a server ranks them, by `OnlineFeatures`, with a state that lacks the last hour, day or week of
events. AUC over all rows and the mean of AP@3 over searches with a click, for searches shown in random order and for the
others; the intervals of the difference to a state that lacks nothing leave out users. Writes build/bench/stale_state.json.
"""

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from steps import Job
from tritower import logs, schema, storage
from tritower.features import step as features
from tritower.features.config import FeaturesConfig
from tritower.features.online import OnlineFeatures, Request
from tritower.metrics import auc, ranking
from tritower.ranker import documents, export
from tritower.ranker import step as ranker
from tritower.ranker.config import RankerConfig
from tritower.ranker.online import OnlineRanker
from tritower.simulate import step as simulate
from tritower.simulate.config import SimulateConfig

HOUR_US = 3_600_000_000
DELAYS = {"0 s": 0, "1 hour": HOUR_US, "1 day": 24 * HOUR_US, "1 week": 7 * 24 * HOUR_US}
_SEARCH = ("user_id", "query", "city", "region", "country")


def events(folder: Path) -> pa.Table:
    """The impressions of a dataset in the source's words, in time order, with request number and split."""
    read = {name: pq.read_table(folder / "dataset" / f"{name}.parquet") for name in ("jobs", "users", "requests", "texts")}
    parts = [pq.read_table(folder / "dataset" / "impressions" / split, partitioning=None) for split in schema.SPLITS]
    split = np.repeat(schema.SPLITS, [len(part) for part in parts])
    rows = pa.concat_tables(parts)
    columns = {f"{one}_id": read[f"{one}s"][f"{one}_id"].take(rows[one]) for one in ("request", "user", "job")}
    columns |= {name: read["requests"][name].take(rows["request"]) for name in ("city", "region", "country")}
    columns |= {"query": read["texts"]["value"].take(rows["query_text"]), "split": pa.array(split)}
    kept = ("request", "user", "ts", "clicked", "position", "clicked_at", "randomised")
    return pa.table(columns | {name: rows[name] for name in kept})


def state_before(job: Job, cut: int) -> Path:
    """The state after the last event before a time."""
    folder = job.folder / "before"
    if not (folder / "features").exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(job.folder / "dataset", folder / "dataset")
        (folder / "dataset" / storage.MARK).unlink()
        for part in (folder / "dataset" / "impressions").rglob("*.parquet"):
            rows = pq.read_table(part, partitioning=None)
            pq.write_table(rows.filter(pc.less(rows["ts"].cast(pa.int64()), cut)), part)
        places = {name: job.folder / name for name in ("embeddings", "entities")}
        config = job.config("features", FeaturesConfig)
        features.run(dataset=folder / "dataset", features=folder / "features", config=config, **places)
    return folder / "features"


class Replay:
    """A server's features while the events come `delay_us` late."""

    def __init__(self, job: Job, state: Path, rows: pa.Table, delay_us: int) -> None:
        def unknown(texts: Sequence[str]) -> Any:
            raise AssertionError(f"the catalogue lacks {list(texts)[:3]}")

        places = (job.folder / name for name in ("dataset", "embeddings", "entities"))
        self.online = OnlineFeatures.open(state, *places, embed=unknown, recognise=unknown)
        self._delay_us, self._until = delay_us, int(self.online.last_ts or 0) + 1
        clicks = rows.filter(rows["clicked"])
        self._clicks = clicks.append_column("event", pa.array(["click"] * len(clicks))).sort_by("clicked_at")
        self._shown = rows.set_column(rows.schema.get_field_index("clicked"), "clicked", pa.array([False] * len(rows)))
        self._click_at, self._shown_at = (
            table[name].cast(pa.int64()).to_numpy() for table, name in ((self._clicks, "clicked_at"), (self._shown, "ts"))
        )

    def advance(self, now: int) -> None:
        """Let in what happened before `now`, less the delay; an hour of events at a time, as any mixture gives the same."""
        end = now - self._delay_us
        while self._until < end:
            stop = min(end, self._until + HOUR_US)
            parts = []
            for table, at in ((self._shown, self._shown_at), (self._clicks, self._click_at)):
                first, last = np.searchsorted(at, [self._until, stop]).tolist()
                parts.append(table.slice(first, last - first))
            both = pa.concat_tables(parts, promote_options="default")
            if len(both):
                self.online.observe(both)
            self._until = stop


def scores(job: Job, replay: Replay, tested: pa.Table) -> np.ndarray:
    """The probability of a click of every row of the test days."""
    model = OnlineRanker.load(job.folder / "export")
    table = documents.load(job.folder / "documents", model)
    request_N, found = tested["request"].to_numpy(), []
    starts = np.flatnonzero(np.r_[True, request_N[1:] != request_N[:-1], True])
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        rows = tested.slice(start, stop - start)
        ts = rows["ts"].cast(pa.int64())[0].as_py()
        replay.advance(ts)
        jobs = rows["job_id"].to_pylist()
        asked = Request(ts=ts, **{name: rows[name][0].as_py() for name in _SEARCH})
        columns = replay.online.read(asked, jobs)
        query = model.query(replay.online.vector(asked.query))
        feature_NF = np.stack([columns[name] for name in model.names]).T
        found.append(model.score(query, table.table_JT, table.rows(jobs), feature_NF))
    return np.concatenate(found)


def figures(score_DN: dict[str, np.ndarray], tested: pa.Table) -> dict[str, Any]:
    """AUC and mAP@3 for each delay, with the interval of the difference to the first."""
    label_N, request_N, user_N = (tested[name].to_numpy() for name in ("clicked", "request", "user"))
    where = ranking.requests(request_N, label_N)
    row_N, user_Q = np.arange(len(label_N)), user_N[where.start_Q]
    users, replicas = np.unique(user_N), np.random.default_rng(0)
    group_N = replicas.permutation(100)[np.searchsorted(users, user_N) % 100]
    map_DQ = {name: ranking.per_request(score, label_N, row_N, where, seed=0).map3_Q for name, score in score_DN.items()}
    group_Q = replicas.permutation(100)[np.searchsorted(users, user_Q) % 100]
    out: dict[str, Any] = {"searches": len(np.unique(request_N)), "with_click": len(where.start_Q), "rows": len(label_N)}
    base = next(iter(score_DN))
    for name, score_N in score_DN.items():
        one = {"auc": auc.auc(score_N, label_N), "map@3": float(map_DQ[name].mean())}
        if name != base:
            left_out = {
                "auc": [
                    auc.auc(score_N[keep], label_N[keep]) - auc.auc(score_DN[base][keep], label_N[keep])
                    for keep in (group_N != group for group in range(100))
                ],
                "map@3": [float((map_DQ[name] - map_DQ[base])[group_Q != group].mean()) for group in range(100)],
            }
            for metric, values in left_out.items():  # delete-a-group jackknife (Kott 2001)
                error = float(np.sqrt(99 / 100 * np.sum((np.array(values) - np.mean(values)) ** 2)))
                difference = one[metric] - out[base][metric]
                one |= {f"{metric} difference": difference, f"{metric} half width": 1.96 * error}
        out[name] = one
    return out


def main() -> None:
    """Parse the command line, run, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--impressions", type=int, default=600_000)
    parser.add_argument("--randomised-share", type=float, default=0.3, help="share of searches shown in random order")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("build/bench/stale_state"))
    parser.add_argument("--out", type=Path, default=Path("build/bench/stale_state.json"))
    parser.add_argument("--config", type=json.loads, default={}, help='knobs per step, such as {"finetune": {}}')
    given = parser.parse_args()
    logs.setup()
    raw = given.work / "raw"
    if not raw.exists():
        shares = {"randomised_share": given.randomised_share}
        simulate.run(out=raw, config=SimulateConfig(impressions=given.impressions, seed=given.seed, **shares))
    job = Job(given.work, raw, given.config)
    job.prepare()
    read = {"features": "features", "embeddings": "embeddings"}
    job.step("ranker", ranker.train, job.config("ranker", RankerConfig), **read, model="model", scores="scores")
    places = {name: job.folder / name for name in ("features", "embeddings")}
    export.write(model=job.folder / "model", out=job.folder / "export", **places)
    towers = {"dataset": job.folder / "dataset", "embeddings": job.folder / "embeddings", "out": job.folder / "documents"}
    documents.write(ranker=OnlineRanker.load(job.folder / "export"), **towers)
    rows = events(job.folder)
    tested = rows.filter(pc.equal(rows["split"], "test"))
    first = int(pc.min(tested["ts"].cast(pa.int64())).as_py())
    state = state_before(job, first - max(DELAYS.values()))
    score_DN = {}
    for name, delay_us in DELAYS.items():
        start = time.process_time()
        score_DN[name] = scores(job, Replay(job, state, rows, delay_us), tested)
        print(f"{name}: {time.process_time() - start:.0f} CPU-s", flush=True)
    random_N = tested["randomised"].to_numpy()
    result: dict[str, Any] = {"impressions": given.impressions, "seed": given.seed}
    for name, keep_N in (("randomised", random_N), ("logged", ~random_N)):
        part = tested.filter(pa.array(keep_N))
        result[name] = figures({delay: score_N[keep_N] for delay, score_N in score_DN.items()}, part)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    for name in ("randomised", "logged"):
        for delay in DELAYS:
            print(f"{name:10s} {delay:7s}", "  ".join(f"{key} {value:+.4f}" for key, value in result[name][delay].items()))


if __name__ == "__main__":
    main()
