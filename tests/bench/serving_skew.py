"""Skew: what a server answers against what training saw: python -m tests.bench.serving_skew [--requests 10000].

A generated log of 330,000 impressions, half of its requests kept for the test, goes through the steps with their default
settings (tuned encoder, entities, three networks); that takes a while and is kept below --work. Then a server process that
knows the log up to the test split is asked the requests of that split over HTTP, oldest first, each before its events are sent.

Prints for all requests: features compared, how many differ in a bit, quantiles of the distance of the scores to the step's.
Then, for requests with a query that nobody typed before the split, of a server whose catalogue lacks these queries, so that it
encodes and recognises them, in each precision: features that differ though no vector enters them, quantiles of the scores'
distance, and what share of the first ten jobs found without candidates is that of the server that knows the queries' vectors.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tritower import logs, storage
from tritower.encoder import step as encoder
from tritower.encoder.config import EmbedConfig, FinetuneConfig
from tritower.entities import step as entities
from tritower.entities.config import EntitiesConfig
from tritower.features import step as features
from tritower.features.config import FeaturesConfig
from tritower.ingest import step as ingest
from tritower.ingest.config import IngestConfig
from tritower.ranker import step as ranker
from tritower.ranker.config import RankerConfig
from tritower.serving import bundling
from tritower.serving.bundling import Sources
from tritower.serving.config import Precision
from tritower.simulate import step as simulate
from tritower.simulate.config import SimulateConfig

from tests.support import skew

QUANTILES = {"half": 0.5, "99 %": 0.99, "99.9 %": 0.999, "largest": 1.0}
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
TOP = 10


def main() -> None:
    """Prepare, replay, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--encoded", type=int, default=1_000, help="requests with new queries to ask in each precision")
    parser.add_argument("--impressions", type=int, default=330_000)
    parser.add_argument("--work", type=Path, default=Path("build/bench/serving_skew"))
    given = parser.parse_args()
    logs.setup()
    run = prepared(given.work, given.impressions)
    shown, names = skew.split(run, given.work, given.requests)
    state = skew.before_test(run, given.work / "before")
    known, unknown = given.work / "bundle", given.work / "bundle_without"
    once(known, lambda out: bundling.write(replace(run, state=state), out))
    fewer = skew.without_new_queries(run, given.work / "without")
    once(unknown, lambda out: bundling.write(replace(fewer, state=state), out))
    with skew.serving(known, given.work / "server") as server:
        told("all, vectors as in training", skew.replayed(server, shown, names))
    new = [one for one in shown if one.is_new]
    asked = {id(one) for one in new[:: max(1, len(new) // max(1, given.encoded))][: given.encoded]}
    tops = of_some(known, given.work / "server", "fp32", shown, names, asked).tops
    facts = storage.read_json(run.features / "features.json")["features"]
    of_vectors = {one["name"] for one in facts if one["needs_embeddings"]}
    for precision in PRECISIONS:
        found = of_some(unknown, given.work / "server", precision, shown, names, asked)
        told(f"new queries, {precision}", found, of_vectors)
        shared = [len(set(a) & set(b)) / max(len(a), 1) for a, b in zip(tops, found.tops, strict=True)]
        print(
            f"    first {TOP} in common {np.mean(shared):.4f}, the same {np.mean([one == 1 for one in shared]):.3f}", flush=True
        )


def of_some(
    bundle: Path, folder: Path, precision: Precision, shown: list[skew.Shown], names: list[str], asked: set[int]
) -> skew.Found:
    """Some requests, and the events of all."""
    with skew.serving(bundle, folder, precision) as server:
        return skew.replayed(server, shown, names, asked=lambda one: id(one) in asked, top=TOP)


def told(what: str, found: skew.Found, of_vectors: frozenset[str] | set[str] = frozenset()) -> None:
    """Print what a replay found."""
    plain = {name: count for name, count in found.differ.items() if name not in of_vectors}
    print(f"{what}: {found.requests:,} requests, {len(found.apart):,} jobs, {found.values:,} features")
    also = f" (of those that a vector enters, {sum(found.differ.values()) - sum(plain.values()):,})" if of_vectors else ""
    print(f"    differ in a bit: {sum(plain.values()):,} {plain or ''}{also}")
    quantiles = ", ".join(f"{name} {np.quantile(found.apart, share):.2g}" for name, share in QUANTILES.items())
    print(f"    score differs by: {quantiles}", flush=True)


def once(place: Path, make: Callable[[Path], Any]) -> Path:
    """A folder that is made unless it is there; the steps write theirs whole or not at all."""
    if not place.exists():
        make(place)
    return place


def prepared(work: Path, impressions: int) -> Sources:
    """The outputs of the steps with default settings, as far as they are not there from an earlier call."""
    log, dataset, embeddings, found = (work / name for name in ("log", "dataset", "embeddings", "entities"))
    tuned, counted, model = work / "encoder", work / "features", work / "model"
    config = SimulateConfig(impressions=impressions)
    once(log, lambda out: simulate.run(out=out, config=config))
    raw = {name: str(log / place) for name, place in _RAW.items()}
    once(dataset, lambda out: ingest.run(**raw, dataset=out, config=IngestConfig(test_share=0.5)))
    once(tuned, lambda out: encoder.finetune(dataset=dataset, model=out, config=FinetuneConfig()))
    once(embeddings, lambda out: encoder.embed(dataset=dataset, embeddings=out, encoder=tuned, config=EmbedConfig()))
    once(found, lambda out: entities.run(dataset=dataset, entities=out, config=EntitiesConfig()))
    parts = {"dataset": dataset, "embeddings": embeddings, "entities": found}
    once(counted, lambda out: features.run(**parts, features=out, config=FeaturesConfig()))
    rows = {"features": counted, "embeddings": embeddings}
    once(model, lambda out: ranker.train(**rows, model=out, scores=work / "trained_scores", config=RankerConfig()))
    return Sources(model=model, encoder=tuned, features=counted, **parts)


_RAW = {"jobs": "jobs.parquet", "impressions": "impressions", "users": "users.parquet"}

if __name__ == "__main__":
    main()
