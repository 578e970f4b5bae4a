"""The two steps on a board small enough to work out by hand."""

import datetime as dt
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower.errors import ConfigError, DataError
from tritower.recommend import step
from tritower.recommend.config import CandidatesConfig, RecommendConfig
from tritower.schema import DATASET_IMPRESSIONS, RECOMMENDATIONS, SCORES

from tests.support import board


def found(dataset: Path, embeddings: Path, out: Path, **knobs: object) -> dict[str, list[int]]:
    """Request id -> candidate jobs, in the order written."""
    step.candidates(dataset=dataset, embeddings=embeddings, candidates=out, config=CandidatesConfig(**knobs))
    requests = pq.read_table(out / "requests.parquet")
    rows = pq.read_table(out / "candidates").to_pylist()
    ids = dict(zip(requests["request"].to_pylist(), requests["request_id"].to_pylist(), strict=True))
    lists: dict[str, list[int]] = {request_id: [] for request_id in ids.values()}
    for row in rows:
        lists[ids[row["request"]]].append(row["job"])
    return lists


def test_only_jobs_active_at_the_time_of_the_search(dataset: Path, embeddings: Path, tmp_path: Path) -> None:
    lists = found(dataset, embeddings, tmp_path / "c", recent_share=1.0)
    assert {job for jobs in lists.values() for job in jobs} == {0, 1, 2, 3}


def test_order_by_fused_rank(dataset: Path, embeddings: Path, tmp_path: Path) -> None:
    lists = found(dataset, embeddings, tmp_path / "c", recent_share=1.0)
    # r0 "nurse" in Austin: j0 leads by cosine and place; j1 is second by cosine and leads or follows lexically.
    assert lists["r0"][:2] == [0, 1]
    # r1, no query and no profile: newest first, those in Austin (or, without a city, in its region) before others.
    assert lists["r1"] == [3, 2, 0, 1]
    # r2 "truck driver", wanted "driver": the two truck jobs.
    assert set(lists["r2"][:2]) == {2, 3}


def test_rows_follow_the_schema(dataset: Path, embeddings: Path, tmp_path: Path) -> None:
    step.candidates(
        dataset=dataset, embeddings=embeddings, candidates=tmp_path / "c", config=CandidatesConfig(recent_share=1.0)
    )
    table = pq.read_table(tmp_path / "c" / "candidates")
    assert table.schema.equals(DATASET_IMPRESSIONS.arrow())
    assert table["row"].to_pylist() == list(range(table.num_rows))
    assert not any(table["clicked"].to_pylist()) and table["position"].null_count == table.num_rows
    documents = pq.read_table(dataset / "jobs.parquet")["document_text"].to_pylist()
    assert table["document_text"].to_pylist() == [documents[job] for job in table["job"].to_pylist()]


def test_blocks_do_not_change_the_result(
    dataset: Path, embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs = {"recent_share": 1.0, "candidates_per_search": 3}
    whole = found(dataset, embeddings, tmp_path / "a", **knobs)
    monkeypatch.setattr(step, "_BLOCK", 1)
    assert found(dataset, embeddings, tmp_path / "b", **knobs) == whole


def test_chosen_searches(dataset: Path, embeddings: Path, tmp_path: Path) -> None:
    assert list(found(dataset, embeddings, tmp_path / "a", request_ids=("r2", "r0"))) == ["r0", "r2"]
    assert list(found(dataset, embeddings, tmp_path / "b", latest_per_user=True)) == ["r1", "r2"]
    assert list(found(dataset, embeddings, tmp_path / "c", recent_share=0.34)) == ["r2"]


def test_answered_at_the_end_of_the_log(dataset: Path, embeddings: Path, tmp_path: Path) -> None:
    requests = pq.read_table(dataset / "requests.parquet")
    late = requests.set_column(2, "ts", pa.array([board.at(0), board.at(1), board.at(30.5)], requests.schema.field("ts").type))
    pq.write_table(late.cast(requests.schema), dataset / "requests.parquet")
    knobs = {"split": "all", "recent_share": 1.0, "answer_at": "end"}
    lists = found(dataset, embeddings, tmp_path / "c", **knobs)
    assert list(lists) == ["r0", "r1", "r2"]
    assert all(5 in jobs for jobs in lists.values())  # posted on day 30
    for table in (pq.read_table(tmp_path / "c" / "requests.parquet"), pq.read_table(tmp_path / "c" / "candidates")):
        assert set(table["ts"].to_pylist()) == {board.at(30.5) + dt.timedelta(microseconds=1)}


def test_unknown_request_and_empty_split(dataset: Path, embeddings: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'nope'"):
        found(dataset, embeddings, tmp_path / "c", request_ids=("nope",))
    with pytest.raises(DataError, match="'train' has no requests"):
        found(dataset, embeddings, tmp_path / "c", split="train")
    assert not (tmp_path / "c").exists()


def scored(dataset: Path, embeddings: Path, tmp_path: Path, score_of_job: list[float]) -> dict[str, Path]:
    folder = tmp_path / "candidates"
    step.candidates(dataset=dataset, embeddings=embeddings, candidates=folder, config=CandidatesConfig(recent_share=1.0))
    rows = pq.read_table(folder / "candidates")
    scores = tmp_path / "scores"
    scores.mkdir()
    score = np.array(score_of_job, dtype=np.float32)[rows["job"].to_numpy()]
    table = pa.table({"row": rows["row"], "request": rows["request"], "score": score}).cast(SCORES.arrow())
    pq.write_table(table, scores / "candidates.parquet")
    return {"dataset": dataset, "candidates": folder, "scores": scores}


def jobs_of(path: Path, request_id: str) -> list[str]:
    rows = [row for row in pq.read_table(path).to_pylist() if row["request_id"] == request_id]
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["job_id"] for row in rows]


def test_best_first_ties_by_job_id_duplicates_collapsed(dataset: Path, embeddings: Path, tmp_path: Path) -> None:
    places = scored(dataset, embeddings, tmp_path, [0.5, 0.5, 0.25, 0.75, 0, 0])
    out = tmp_path / "recommendations.parquet"
    numbers = step.run(**places, recommendations=out, config=RecommendConfig(top_k=3))
    # j2 and j3 are one job to a reader (case and white space apart): the better of the two stands for both.
    assert jobs_of(out, "r0") == ["j3", "j0", "j1"]
    assert numbers == {"searches": 3, "recommendations": 9, "duplicates": 3}
    assert pq.read_schema(out).equals(RECOMMENDATIONS.arrow())

    step.run(**places, recommendations=out, config=RecommendConfig(top_k=4, collapse_duplicates=False))
    assert jobs_of(out, "r0") == ["j3", "j0", "j1", "j2"]


def test_scores_of_other_candidates_are_refused(dataset: Path, embeddings: Path, tmp_path: Path) -> None:
    places = scored(dataset, embeddings, tmp_path, [0.5] * 6)
    file = places["scores"] / "candidates.parquet"
    pq.write_table(pq.read_table(file).slice(1), file)
    with pytest.raises(DataError, match="do not match"):
        step.run(**places, recommendations=tmp_path / "out.parquet", config=RecommendConfig())
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("knobs", [{"searches": 0}, {"recent_share": 0.0}, {"seed": -1}, {"candidates_per_search": 0}])
def test_knobs_out_of_range(knobs: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(knobs))):
        CandidatesConfig(**knobs)


def test_searches_without_an_open_advert_are_said(
    dataset: Path, embeddings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = pq.read_table(dataset / "jobs.parquet")
    expired = pa.array([board.at(-2)] * jobs.num_rows, jobs.schema.field("expires_at").type)
    column = jobs.schema.get_field_index("expires_at")
    pq.write_table(jobs.set_column(column, "expires_at", expired), dataset / "jobs.parquet")
    config = CandidatesConfig(recent_share=1.0)
    numbers = step.candidates(dataset=dataset, embeddings=embeddings, candidates=tmp_path / "c", config=config)
    assert (numbers["searches"], numbers["searches_without_candidates"], numbers["candidates"]) == (3, 3, 0)
    assert (
        "3 of 3 searches get no recommendation: no advert is open at 2026-03-03 00:00:00 UTC; the last expired 2026-02-27"
        in (caplog.text)
    )


def test_nothing_is_said_where_every_search_has_jobs(
    dataset: Path, embeddings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = CandidatesConfig(recent_share=1.0)
    numbers = step.candidates(dataset=dataset, embeddings=embeddings, candidates=tmp_path / "c", config=config)
    assert numbers["searches_without_candidates"] == 0
    assert not [record for record in caplog.records if record.name == step.logger.name]


def test_folders_named_like_columns_change_nothing(dataset: Path, embeddings: Path, tmp_path: Path) -> None:
    odd = tmp_path / "clicked=true" / "user=7" / "[ab]"
    shutil.copytree(dataset, odd / "dataset")
    answers = []
    for place, root in ((tmp_path, dataset), (odd, odd / "dataset")):
        places = scored(root, embeddings, place, [0.5, 0.5, 0.25, 0.75, 0, 0])
        step.run(**places, recommendations=place / "r.parquet", config=RecommendConfig(top_k=3))
        answers.append(pq.ParquetFile(place / "r.parquet").read())
    assert answers[0].num_rows == 9 and answers[0].equals(answers[1])
