"""What the files hold: schema, order, keys, times, and that they are a function of the seed."""

import dataclasses
import hashlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tritower import schema, vocabulary
from tritower.errors import ConfigError, StorageError
from tritower.simulate import log as stream
from tritower.simulate import policy, step, tables
from tritower.simulate.config import SimulateConfig

SMALL = {"impressions": 3_000, "days": 5}


def digests(place):
    files = sorted(p for p in place.rglob("*") if p.is_file())
    return {str(p.relative_to(place)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        step.run(out=tmp_path / name, config=SimulateConfig(**SMALL, seed=7, bad_rows=0.05))
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    assert {"jobs.parquet", "users.parquet", "bad_rows.json", "world/world.json", "world/requests.npz"} <= set(first)


def test_jobs_lie_around_their_cities_and_some_are_nowhere():
    """Within 25 km, five times the spread; what is missing does not move the others."""
    world, texts = step.build(SimulateConfig(**SMALL, seed=7))
    table = tables.jobs(world, texts, tables.Ids(world)).to_pandas()
    assert (table.latitude.isna() == table.longitude.isna()).all() and 0 < table.latitude.isna().mean() < 0.2
    centre = [vocabulary.coordinates()[place] for place in zip(table.city, table.region, strict=True)]
    north, east = np.array(centre).T
    apart = np.hypot(table.latitude - north, (table.longitude - east) * np.cos(np.radians(north))) * 111.2
    assert apart.max() < 25 and 2 < np.sqrt((apart**2).mean()) < 12
    assert table.groupby(["city", "region"]).latitude.nunique().min() > 1
    world.config = dataclasses.replace(world.config, coordinates_missing=0.0)
    whole = tables.jobs(world, texts, tables.Ids(world)).to_pandas()
    there = table.latitude.notna()
    assert whole.latitude.notna().all() and (whole[there] == table[there]).latitude.all()


def test_another_seed_gives_another_board(tmp_path):
    for seed in (7, 8):
        step.run(out=tmp_path / str(seed), config=SimulateConfig(**SMALL, seed=seed))
    one, two = (pd.read_parquet(tmp_path / str(seed) / "jobs.parquet") for seed in (7, 8))
    assert (one.title == two.title).mean() < 0.05
    one, two = (pd.read_parquet(tmp_path / str(seed) / "impressions") for seed in (7, 8))
    assert (one.job_id == two.job_id).mean() < 0.05


@pytest.mark.parametrize("change", [{"block_requests": 7}, {"part_requests": 13}, {"block_requests": 1, "part_requests": 50}])
def test_cutting_does_not_change_values(tmp_path, change):
    step.run(out=tmp_path / "whole", config=SimulateConfig(**SMALL, seed=7, bad_rows=0.05))
    step.run(out=tmp_path / "cut", config=SimulateConfig(**SMALL, seed=7, bad_rows=0.05, **change))
    for table in ("impressions", "truth"):
        whole, cut = (pq.read_table(tmp_path / name / table) for name in ("whole", "cut"))
        assert whole.equals(cut)
    if "part_requests" in change:
        assert len(list((tmp_path / "cut" / "impressions").iterdir())) > 1


def test_blocks_are_lazy_bounded_and_within_a_day():
    config = SimulateConfig(**SMALL, block_requests=20)
    world, texts = step.build(config)
    search = policy.index_texts(world, texts.titles, texts.queries, texts.meant_R)
    day = world.requests.ts_us // 86_400_000_000
    seen = []
    for block in stream.blocks(world, search):
        numbers = np.unique(block.request)
        assert len(numbers) <= 20
        assert len(np.unique(day[numbers])) == 1
        seen.append(numbers)
    assert (np.concatenate(seen) == np.arange(len(day))).all()
    assert next(stream.blocks(world, search)).request[0] == 0


@pytest.mark.parametrize(
    "knobs",
    [
        {"impressions": 100},
        {"impressions": 1_000, "days": 120},
        {"impressions": 1_500, "users": 1, "regions": 1, "occupations": 2},
        {"impressions": 1_500, "page_low": 1, "page_high": 1, "candidates": 1},
        {"impressions": 1_500, "page_low": 40, "page_high": 40, "days": 2},
        {"impressions": 1_500, "policy_known": 0, "policy_explore": 0, "empty_share": 1},
        {"impressions": 1_500, "vague_share": 0, "empty_share": 0, "title_noise": 1, "typo_share": 1, "ctr": 0.3},
        {"impressions": 1_500, "jobs": 3_000, "users": 50, "start": "2024-02-28", "tie_share": 1, "randomised_share": 0},
    ],
)
def test_unusual_boards_are_whole(tmp_path, knobs):
    facts = step.run(out=tmp_path / "log", config=SimulateConfig(**knobs))
    assert facts["impressions"] == knobs["impressions"]
    rows = pq.read_table(tmp_path / "log" / "impressions").to_pandas()
    assert not rows.duplicated(["request_id", "job_id"]).any()
    assert rows.ts.is_monotonic_increasing


def test_too_few_jobs_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="jobs are open on some day"):
        step.run(out=tmp_path / "log", config=SimulateConfig(impressions=1_000, jobs=20))
    assert list(tmp_path.iterdir()) == []


def test_only_a_log_or_nothing_is_replaced(tmp_path):
    config = SimulateConfig(impressions=200, days=3)
    (tmp_path / "empty").mkdir()
    step.run(out=tmp_path / "empty", config=config)
    step.run(out=tmp_path / "empty", config=config)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for place in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(StorageError, match="something else than a log"):
            step.run(out=place, config=config)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_exactly_as_many_rows_as_asked(log):
    assert len(log.rows) == log.config.impressions == log.facts["impressions"]
    assert log.facts["clicks"] == log.rows.clicked.sum()


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("jobs.parquet", schema.RAW_JOBS),
        ("users.parquet", schema.RAW_USERS),
        ("impressions", schema.RAW_IMPRESSIONS),
        ("truth", schema.TRUTH),
    ],
)
def test_tables_conform_to_the_schema(log, name, table):
    found = pq.read_table(log.place / name)
    assert found.column_names == table.names()
    for column in table.columns:
        values = found[column.name]
        wanted = schema.arrow_type(column.type)
        assert values.type == wanted or (pa.types.is_list(wanted) and values.type.value_type == wanted.value_type), column.name
        assert column.nullable or values.null_count == 0, column.name
        if column.low is not None:
            assert pa.compute.min(values).as_py() >= column.low
        if column.high is not None:
            assert pa.compute.max(values).as_py() <= column.high
    keys = found.select(list(table.key)).to_pandas()
    assert not keys.duplicated().any()


def test_rows_are_in_the_order_of_time_and_pages_are_whole(log):
    rows = log.rows
    assert rows.ts.is_monotonic_increasing
    pages = rows.groupby("request_id", sort=False)
    assert (pages.position.apply(list).map(lambda p: p == list(range(1, len(p) + 1)))).all()
    for column in ("ts", "user_id", "query", "city", "region", "randomised"):
        assert (pages[column].nunique(dropna=False) == 1).all(), column
    size = pages.size()
    assert size.iloc[:-1].between(log.config.page_low, log.config.page_high).all()
    # No request comes back later in the file.
    assert (rows.request_id != rows.request_id.shift()).sum() == len(size)


def test_different_requests_tie_in_time(log):
    first = log.rows.drop_duplicates("request_id")
    ties = (first.ts == first.ts.shift()).mean()
    assert ties > 0.5 * log.config.tie_share


def test_clicks_come_after_the_impression(log):
    rows = log.rows
    assert (rows.clicked_at.notna() == rows.clicked).all()
    delay = (rows.clicked_at - rows.ts)[rows.clicked].dt.total_seconds()
    assert delay.between(1, 3_600).all()
    assert 0.7 * log.config.click_delay_s < delay.median() < 1.4 * log.config.click_delay_s


def test_only_open_jobs_of_the_table_are_shown_to_known_users(log):
    rows = log.rows.merge(log.jobs, on="job_id", how="left", suffixes=("_asked", ""))
    assert rows.title.notna().all()
    assert ((rows.posted_at <= rows.ts) & (rows.ts < rows.expires_at)).all()
    assert log.rows.user_id.isin(log.users.user_id).all()


def test_all_days_and_their_randomised_share(log):
    first = log.rows.drop_duplicates("request_id")
    days = first.groupby(first.ts.dt.date).randomised
    assert len(days) == log.config.days
    assert (days.sum() > 0).all()
    n, share = len(first), log.config.randomised_share
    assert abs(first.randomised.mean() - share) < 4 * (share * (1 - share) / n) ** 0.5


def test_repeat_views_happen(log):
    again = log.rows.duplicated(["user_id", "job_id"]).mean()
    assert 0.05 < again < 0.7
