"""Questions that a new version must answer before it gets requests: a part of the bundle, asked by whoever deploys it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tritower import storage

FILE = "questions.json"
_MOST, _K = 10, 3


def write(dataset: Path, out: Path) -> int:
    """Write the searches that were made most often, at the log's end, as POST /rank takes them; their number.

    One with candidates is among them, which needs no retrieval. Ties go by the query's number, so that the same dataset gives
    the same bytes.

    Args:
        dataset: written by ingest.
        out: folder to write.
    """
    places = ["city", "region", "country"]
    requests = pq.read_table(dataset / "requests.parquet", columns=["query_text", "ts", *places])
    last = pc.max(requests["ts"].cast(pa.int64())).as_py()  # adverts run out: asked later, the same search finds fewer
    counted = requests.group_by(["query_text", *places]).aggregate([([], "count_all")])
    order = [("count_all", "descending"), ("query_text", "ascending"), *((one, "ascending") for one in places)]
    best = counted.sort_by(order).slice(0, _MOST).to_pylist()
    texts = pq.read_table(dataset / "texts.parquet", columns=["text", "value"])
    wanted = pa.array([one["query_text"] for one in best], texts["text"].type)
    value = dict(zip(*(column.to_pylist() for column in texts.filter(pc.is_in(texts["text"], wanted)).columns), strict=True))
    found = [
        {
            "query": value[one["query_text"]],
            "k": _K,
            "ts": last,
            **{place: one[place] for place in places if one[place] is not None},
        }
        for one in best
        if one["query_text"] in value
    ]
    jobs = pq.read_table(dataset / "jobs.parquet", columns=["job_id"]).slice(0, _K)["job_id"].to_pylist()
    found.append({"query": found[0]["query"] if found else "", "k": _K, "ts": last, "candidates": jobs})
    out.mkdir()
    storage.write_json(out / FILE, found)
    return len(found)
