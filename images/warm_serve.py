"""Answer a search as the server does, so that its image holds the machine code of that as well (see warm.py).

    NUMBA_CACHE_DIR=folder python warm_serve.py

The ranker's weights are random and small: of the kernels only the types matter. Nothing here needs torch.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import warm
from tritower import storage
from tritower.encoder import transformer
from tritower.entities.config import EntitiesConfig
from tritower.entities.recognise import recogniser
from tritower.features.online import OnlineFeatures, Request
from tritower.ranker.online import VERSION, OnlineRanker

RNG = np.random.default_rng(0)


def main(root: Path) -> None:
    """One search, its clicks, and a search after them; what is written under `root` is of no use."""
    warm.main(root)
    _encoder(root)
    dataset = root / "dataset"
    online = OnlineFeatures.open(
        root / "features", dataset, root / "embeddings", root / "entities",
        embed=_embed, recognise=recogniser(EntitiesConfig(), []),
    )  # fmt: skip
    jobs = pq.read_table(dataset / "jobs.parquet", columns=["job_id"])["job_id"].to_pylist()[:50]
    ranker = _ranker(online.names)
    table_JT = ranker.documents(_embed(jobs))
    now = (online.last_ts or 0) + 1
    for query in ("senior registerd nurse, java", ""):
        request = Request(ts=now, user_id="somebody", query=query, city="Austin", region="TX", country="US")
        columns = online.read(request, jobs)
        feature_NF = np.stack([columns[name] for name in online.names]).T
        ranker.score(ranker.query(_embed([query])[0]), table_JT, np.arange(len(jobs)), feature_NF)
        event = {"request_id": "r", "user_id": "somebody", "query": query, "job_id": jobs[0], "clicked": True}
        online.observe(pa.Table.from_pylist([event | {"ts": now}]).cast(_EVENT))
        now += 1


_EVENT = pa.schema(
    [(name, pa.string()) for name in ("request_id", "user_id", "query", "job_id")]
    + [("clicked", pa.bool_()), ("ts", pa.timestamp("us", "UTC"))]
)


def _encoder(folder: Path) -> None:
    """A text through an encoder of one layer."""
    shape = {"layers": 1, "heads": 2, "dim": 32, "inner": 32, "words": 8, "positions": 8}
    half, single = transformer.sizes_of(**shape)
    np.save(folder / transformer.HALVES, np.zeros(half, np.uint16))
    np.save(folder / transformer.SINGLES, np.ones(single, np.float32))
    storage.write_json(folder / transformer.FACTS, shape | {"epsilon": 1e-12})
    transformer.Transformer(folder).warm(4)


def _embed(texts: Any) -> Any:
    vector_XD = RNG.normal(size=(len(texts), warm.DIM)).astype(np.float32)
    return vector_XD / np.linalg.norm(vector_XD, axis=1, keepdims=True)


def _ranker(names: list[str]) -> OnlineRanker:
    """A random network with every part that one may have."""
    width, head, classes, features = 4, 5, 3, len(names)
    layers = {
        "interaction.0": (width, 2 * features + 2), "interaction_to_head": (head, width), "head.0": (width, head),
        "logit": (1, width), "cross.down.0": (2, 2 * features), "cross.up.0": (2 * features, 2),
    }  # fmt: skip
    for side in ("query", "document"):
        layers |= {f"{side}.tower.0": (width, warm.DIM), f"{side}.to_class": (classes, width)}
    own = {f"0.{name}.weight": RNG.normal(size=shape).astype(np.float32) for name, shape in layers.items()}
    own |= {f"0.{name}.bias": np.zeros(shape[0], np.float32) for name, shape in layers.items() if "down" not in name}
    own |= {f"0.{side}.to_head": RNG.normal(size=(head, width)).astype(np.float32) for side in ("query", "document")}
    own |= {"0.relatedness": np.eye(classes, dtype=np.float32)}
    fitted = warm.normaliser.fit(np.ones((2, features), np.float32), kind="quantile")
    own |= {"normaliser.knot": fitted.knot_FK, "normaliser.value": fitted.value_FK}
    facts = {
        "version": VERSION, "model": "", "encoder": {"dim": warm.DIM}, "features": names, "descriptions": False, "members": 1,
        "examination": [],
    }  # fmt: skip
    return OnlineRanker(facts, own)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
