"""Jobs drawn beside views: who may be drawn, from where, and how often."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower.ingest.negatives import draw

from tests.support.ingest_log import Log, at

DAY = 86_400_000_000


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), views=st.integers(1, 120), count=st.integers(1, 4))
def test_every_drawn_job_is_allowed_and_regions_go_first(seed: int, views: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    user, job = rng.integers(0, 8, views), rng.integers(0, 12, views)
    ts = np.sort(rng.integers(0, 20 * DAY, views))
    region = job % 4 - 1
    near = rng.integers(-1, 3, views)
    drawn = draw(user_N=user, job_N=job, ts_N=ts, job_region_N=region, near_N=near, count=count, window_us=7 * DAY, seed=seed)
    for view in range(views):
        seen = set(job[user == user[view]])
        following = (ts > ts[view]) & (ts <= ts[view] + 7 * DAY) & (user != user[view])
        pool = set(job[following]) - seen
        close = {j for j in pool if near[view] >= 0 and j % 4 - 1 == near[view]}
        row = [int(j) for j in drawn[view] if j >= 0]
        assert len(row) == len(set(row)) == min(count, len(pool))
        assert set(row) <= pool
        assert len(set(row) & close) >= min(count, len(close))


def test_jobs_are_drawn_as_often_as_they_are_viewed() -> None:
    """One view, then 10,000 by others, a tenth of them of job 1: it is drawn about as often."""
    rng = np.random.default_rng(0)
    later = np.where(rng.random(10_000) < 0.1, 1, rng.integers(2, 10_000, 10_000))
    views = 4_000
    drawn = draw(
        user_N=np.r_[np.zeros(views, np.int64), np.ones(10_000, np.int64)],
        job_N=np.r_[np.zeros(views, np.int64), later],
        ts_N=np.arange(views + 10_000),
        job_region_N=np.full(views + 10_000, -1),
        near_N=np.full(views + 10_000, -1),
        count=1,
        window_us=DAY,
        seed=5,
    )[:views]
    share = float((drawn == 1).mean())
    assert abs(share - 0.1) < 4 * np.sqrt(0.1 * 0.9 / views)


def _views(log: Log, count: int = 60) -> None:
    log.jobs = [{"job_id": f"j{i}", "title": f"t{i}", "company": "c", "region": f"s{i % 2}"} for i in range(12)]
    log.impressions = [{"ts": at(i), "user_id": f"u{i % 7}", "job_id": f"j{(i * 5) % 12}"} for i in range(count)]


def test_a_log_of_views_becomes_requests(log: Log) -> None:
    _views(log)
    numbers = log.run(negatives=3)
    rows, requests = log.shown(), log.table("requests")
    assert json.loads((log.out / "dataset.json").read_text())["negatives"] == 3
    assert numbers["impressions_in"] == 60
    assert numbers["impressions_out"] + numbers["impressions_quarantined"] == 60
    assert numbers["impressions_out"] == len(requests)
    assert len(rows) == 4 * len(requests)
    assert set(log.reasons().values()) == {"too_few_negatives"}  # the last views have nothing after them
    views = [(int(row["user_id"][1:]), i) for i, row in enumerate(log.impressions)]
    assert len(views) == 60
    for request in requests:
        shown = [row for row in rows if row["request"] == request["request"]]
        clicked = [row for row in shown if row["clicked"]]
        assert len({row["job"] for row in shown}) == 4
        assert len(clicked) == 1
        assert clicked[0]["clicked_at"] == clicked[0]["ts"] == request["ts"]
        assert all(row["position"] is None for row in shown)


def test_repeated_views_are_dropped_and_counted(log: Log) -> None:
    _views(log)
    log.impressions += [row | {"ts": at(i + 0.5)} for i, row in enumerate(log.impressions[:10])]
    numbers = log.run(negatives=3)
    assert numbers["impressions_deduplicated"] == 10
    assert {row["ts"].minute for row in log.table("requests")} == {0}


def test_the_draw_depends_on_the_seed_alone(log: Log) -> None:
    _views(log)
    log.run(negatives=3)
    first = log.shown()
    log.impressions.reverse()
    log.run(negatives=3, threads=2)
    same = [(row["ts"], row["job"], row["clicked"]) for row in log.shown()]
    assert same == [(row["ts"], row["job"], row["clicked"]) for row in first]
    log.run(negatives=3, seed=1)
    assert [(row["ts"], row["job"], row["clicked"]) for row in log.shown()] != same


def test_rows_not_clicked_are_no_views(log: Log) -> None:
    with pytest.raises(ValueError, match="not_a_view"):
        log.run(negatives=3, max_quarantined_share=0.05)
