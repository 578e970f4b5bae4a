"""The components as plain calls."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from kfp.dsl import HTML, Dataset
from tritower.recommend.component import candidates, recommend
from tritower.schema import RECOMMENDATIONS, SCORES

from tests.support import board


def test_candidates_then_recommend(tmp_path: Path) -> None:
    dataset = Dataset(uri=str(board.write_dataset(tmp_path / "dataset")))
    embeddings = Dataset(uri=str(board.write_embeddings(tmp_path / "embeddings")))
    chosen = Dataset(uri=str(tmp_path / "candidates"))
    # Numbers inside a dict parameter arrive as floats.
    knobs = {"recent_share": 1.0, "candidates_per_search": 2.0}
    candidates.python_func(dataset=dataset, embeddings=embeddings, candidates=chosen, config=knobs)
    counts = {"searches": 3, "searches_without_candidates": 0, "candidates": 6, "candidates_per_search": 2.0}
    assert chosen.metadata.items() >= counts.items()
    assert chosen.metadata.keys() - counts.keys() == {"code_version", "image_tag"}

    rows = pq.read_table(Path(chosen.path) / "candidates")
    scores = Dataset(uri=str(tmp_path / "scores"))
    Path(scores.path).mkdir()
    table = pa.table({"row": rows["row"], "request": rows["request"], "score": [0.5] * 6}).cast(SCORES.arrow())
    pq.write_table(table, Path(scores.path) / "candidates.parquet")
    best = Dataset(uri=str(tmp_path / "recommendations"))
    page = HTML(uri=str(tmp_path / "page.html"))
    out = {"recommendations": best, "recommendations_report": page}
    recommend.python_func(dataset=dataset, candidates=chosen, scores=scores, **out, config={"top_k": "1"})
    text = Path(page.path).read_text()
    assert "3 jobs recommended for 3 searches</bdi></h1>" in text and text.count("<li><bdi>") == 3
    assert text.count("· 50.0%") == 3
    assert best.metadata["searches"] == best.metadata["recommendations"] == 3
    assert pq.read_schema(best.path).equals(RECOMMENDATIONS.arrow())
