"""What the server answers is what training saw: the requests of the test split, one by one, each read before it is observed.

The bundle's state is that of the log up to the test split. Features equal the step's files bit for bit; scores lie within 1e-6
of those of the step `score`, which reads the same files.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import schema
from tritower.features import step as features
from tritower.features.config import FeaturesConfig
from tritower.ranker import step as ranker
from tritower.serving import bundling
from tritower.serving.messages import Question
from tritower.serving.ranking import Ranking

from tests.support import bundles
from tests.support.bundles import Run


def state_before_test(run: Run, folder: Path) -> Path:
    """The state of a dataset that lacks the test split's events."""
    dataset = folder / "dataset"
    (dataset / "impressions" / "test").mkdir(parents=True)
    for path in run.sources.dataset.glob("[!.]*.*"):
        (dataset / path.name).symlink_to(path)
    for split in ("train", "validation"):
        (dataset / "impressions" / split).symlink_to(run.sources.dataset / "impressions" / split)
    pq.write_table(schema.DATASET_IMPRESSIONS.arrow().empty_table(), dataset / "impressions" / "test" / "part-00000.parquet")
    features.run(
        dataset=dataset, embeddings=run.sources.embeddings, entities=run.sources.entities, features=folder / "features",
        config=FeaturesConfig(),
    )  # fmt: skip
    return folder / "features"


def replayed(run: Run, folder: Path) -> int:
    """Replay the test split of a run; the number of requests."""
    own = run.sources
    bundling.write(replace(own, state=state_before_test(run, folder)), folder / "bundle")
    ranking = Ranking.open(folder / "bundle")
    ranker.score(features=own.features, embeddings=own.embeddings, model=own.model, scores=folder / "scores")
    scores = dict(zip(*(pq.read_table(folder / "scores" / "test.parquet")[name].to_pylist() for name in ("row", "score")),
                      strict=True))  # fmt: skip
    rows = pq.read_table(own.features / "test").sort_by("row")
    shown = pa.concat_tables([pq.read_table(path) for path in sorted((own.dataset / "impressions" / "test").iterdir())])
    names = {what: pq.read_table(own.dataset / f"{what}s.parquet")[f"{what}_id"].to_pylist() for what in ("user", "job")}
    texts = pq.read_table(own.dataset / "texts.parquet")["value"].to_pylist()
    requests = {row["request"]: row for row in pq.read_table(own.dataset / "requests.parquet").to_pylist()}
    expected = np.stack([rows[name].to_numpy() for name in ranking._ranker.names], axis=1)
    request_N = rows["request"].to_numpy()
    for number in np.unique(request_N):
        at_n = np.flatnonzero(request_N == number)
        asked, events = requests[number], shown.take(pa.array(at_n))
        place = {name: asked[name] for name in ("city", "region", "country")}
        ids = [names["job"][job] for job in rows["job"].take(pa.array(at_n)).to_pylist()]
        question = Question(
            query=texts[asked["query_text"]], user_id=names["user"][asked["user"]], ts=round(asked["ts"].timestamp() * 1e6),
            candidates=tuple(ids), k=1000, with_features=True, **place,
        )  # fmt: skip
        scored = ranking._scored(question, question.ts or 0, ranking._jobs.find(ids))
        np.testing.assert_array_equal(
            scored.feature_NF.view(np.uint32) * ~np.isnan(scored.feature_NF), expected[at_n].view(np.uint32) *
            ~np.isnan(expected[at_n]), err_msg=f"request {number}",
        )  # fmt: skip
        given = [scores[row] for row in rows["row"].take(pa.array(at_n)).to_pylist()]
        np.testing.assert_allclose(scored.score_N, given, rtol=0, atol=1e-6)
        best = {job.job_id: job.score for job in ranking.answer(question).jobs}
        assert all(best[job_id] == score for job_id, score in zip(ids, scored.score_N.tolist(), strict=True) if job_id in best)
        columns = {
            "request_id": [asked["request_id"]] * len(ids), "ts": events["ts"], "user_id": [question.user_id] * len(ids),
            "query": [question.query] * len(ids), "job_id": ids, **{name: [value] * len(ids) for name, value in place.items()},
        } | {name: events[name] for name in ("clicked", "position", "clicked_at", "randomised")}  # fmt: skip
        kinds = {column.name: schema.arrow_type(column.type) for column in schema.RAW_IMPRESSIONS.columns}
        ranking.observe(pa.table({name: pa.chunked_array(values).cast(kinds[name]) if isinstance(values, pa.ChunkedArray)
                                  else pa.array(values, kinds[name]) for name, values in columns.items()}))  # fmt: skip
    return len(np.unique(request_N))


def test_a_test_split_is_served_as_it_was_trained(run: Run, tmp_path: Path) -> None:
    assert replayed(run, tmp_path) >= 10


@pytest.mark.slow
def test_a_longer_one(tmp_path: Path) -> None:
    assert replayed(bundles.run(tmp_path / "run", impressions=60_000), tmp_path) > 500
