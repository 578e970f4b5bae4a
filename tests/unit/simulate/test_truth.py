"""The truth table is what clicks are drawn from, and what `truth.relevance` recomputes."""

import math
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats
from tritower.errors import ArtifactError, StorageError
from tritower.simulate import relevance as click_model
from tritower.simulate import step, truth
from tritower.simulate.config import SimulateConfig
from tritower.simulate.world import Jobs, Requests, Users, World, load


def test_click_rates_equal_the_truth(log):
    rows = log.rows
    group = pd.qcut(rows.click_probability, 20, labels=False, duplicates="drop")
    p = rows.click_probability.astype(float)
    expected, variance = p.groupby(group).sum(), (p * (1 - p)).groupby(group).sum()
    z = (rows.clicked.groupby(group).sum() - expected) / np.sqrt(variance)
    assert (z**2).sum() < stats.chi2.ppf(1 - 1e-5, len(z))
    assert abs(rows.clicked.sum() - p.sum()) < 4.5 * math.sqrt((p * (1 - p)).sum())
    assert abs(rows.clicked.mean() - log.config.ctr) < 0.015


def test_click_probability_is_examination_times_relevance(log):
    expected = log.rows.relevance.astype(float) * log.rows.position.astype(float) ** -log.config.examination_decay
    np.testing.assert_allclose(log.rows.click_probability, expected, rtol=1e-6)


def test_examination_curve_is_recovered_from_counts(shuffled):
    pages = shuffled.rows.groupby("position")
    clicks, looked = pages.clicked.sum(), pages.relevance.sum()
    expected = np.arange(1, len(clicks) + 1) ** -shuffled.config.examination_decay
    spread = np.sqrt(clicks.clip(lower=1)) / looked
    assert (np.abs(clicks / looked - expected) < 4.5 * spread).all()
    assert expected[9] == pytest.approx(0.35, abs=0.005)


def test_the_best_ranking_is_good_and_far_from_certain(shuffled):
    rank = stats.rankdata(shuffled.rows.relevance)
    clicks = shuffled.rows.clicked
    area = (rank[clicks].mean() - (clicks.sum() + 1) / 2) / (~clicks).sum()
    assert 0.80 < area < 0.90


def test_position_says_nothing_of_relevance_in_random_order_only(log, shuffled):
    def link(rows):
        logit = np.log(rows.relevance / (1 - rows.relevance))
        page = rows.request_id
        centred = [v - v.groupby(page).transform("mean") for v in (logit, rows.position)]
        return float(np.corrcoef(*centred)[0, 1])

    assert abs(link(shuffled.rows)) < 4.5 / math.sqrt(len(shuffled.rows))
    assert link(log.rows[~log.rows.randomised]) < -0.1


def test_random_order_shows_the_same_jobs(tmp_path):
    """On the first day, before clicks change what the board thinks is popular."""
    pages = []
    for share in (0.0, 1.0):
        step.run(out=tmp_path / str(share), config=SimulateConfig(impressions=3_000, days=3, randomised_share=share))
        rows = pd.read_parquet(tmp_path / str(share) / "impressions")
        rows = rows[rows.ts < rows.ts.min().normalize() + pd.Timedelta(days=1)]
        pages.append(rows.groupby("request_id").job_id.apply(list))
    assert (pages[0].map(sorted) == pages[1].map(sorted)).all()
    assert (pages[0] != pages[1]).mean() > 0.99


def test_truth_is_recomputed_to_the_bit_in_any_batch(log):
    table = pq.read_table(log.place / "truth").to_pandas()
    world = truth.open_world(log.place)
    whole = truth.relevance(world, table.request_id, table.job_id)
    assert (whole == table.relevance.to_numpy()).all()
    order = np.random.default_rng(0).permutation(len(table))
    mixed = truth.relevance(world, table.request_id.to_numpy()[order], table.job_id.to_numpy()[order])
    assert (mixed == whole[order]).all()
    for row in (0, 1, 17, len(table) - 1):
        assert (
            truth.relevance(world, table.request_id[row : row + 1].tolist(), table.job_id[row : row + 1].tolist()) == whole[row]
        )


def test_any_pair_has_a_truth(log):
    requests = log.rows.request_id.drop_duplicates().tolist()[:50]
    jobs = log.jobs.job_id.tolist()
    values = truth.relevance(log.place / "world", np.repeat(requests, len(jobs)).tolist(), jobs * len(requests))
    assert ((values > 0) & (values < 1)).all()
    # What the board shows is better than what it could have shown at random.
    assert log.rows.relevance.mean() > 1.5 * values.mean()


def test_add_keeps_rows_and_appends_one_column(log, tmp_path):
    source, target = tmp_path / "r.parquet", tmp_path / "t.parquet"
    rows = pq.read_table(log.place / "impressions").slice(100, 40)
    pq.write_table(rows, source)
    assert truth.add(world=log.place, recommendations=source, out=target, impressions=log.place / "impressions") == 40
    found = pq.read_table(target)
    assert found.column_names == [*rows.column_names, "true_probability"]
    assert found["true_probability"].to_pylist() == log.rows.relevance[100:140].tolist()


def test_foreign_rows_and_worlds_are_refused(log, shuffled, tmp_path):
    world = truth.open_world(log.place)
    for request, job in (("r99999999", "j0000001"), ("r00000000", "j9999999"), ("x", "j0000001"), ("r00000000", "")):
        with pytest.raises(ArtifactError, match="not an id of this world"):
            truth.relevance(world, [request], [job])
    with pytest.raises(ArtifactError, match="other users made them"):
        truth.add(
            world=log.place,
            recommendations=log.place / "impressions/part-00000.parquet",
            out=tmp_path / "t.parquet",
            impressions=shuffled.place / "impressions",
        )
    assert not (tmp_path / "t.parquet").exists()
    with pytest.raises(StorageError):
        load(tmp_path)


def test_a_world_of_another_format_is_refused(log, tmp_path):
    shutil.copytree(log.place / "world", tmp_path / "world")
    text = (tmp_path / "world/world.json").read_text().replace('"format": 1', '"format": 99')
    (tmp_path / "world/world.json").write_text(text)
    with pytest.raises(ArtifactError, match="format 99"):
        load(tmp_path / "world")


def pair(**change):
    """A world of one user, one request and one job; `change` sets fields as table_field."""

    def i(*values):
        return np.array(values, np.int32)

    def f(*values):
        return np.array(values, np.float32)

    day = 86_400_000_000
    tables = {
        "jobs": {
            "occupation": i(0), "variant": i(0), "seniority": i(2), "city": i(0), "region": i(0), "remote": np.array([False]),
            "company": i(0), "industry": i(0), "reputation": f(0), "appeal": f(0), "category": i(0),
            "posted_us": np.array([0]), "expires_us": np.array([100 * day]),
        },
        "users": {
            "seniority": f(2), "city": i(0), "career": i(0), "second_career": i(0), "remote_minded": f(1),
            "taste_industry_US": f(0)[:, None], "taste_work_UD": f(0, 0)[None, :], "activity": np.array([1.0]),
        },
        "requests": {
            "user": i(0), "ts_us": np.array([0]), "occupation": i(0), "variant": i(0), "city": i(0), "region": i(0),
            "query": i(0), "page": np.array([10], np.int16), "randomised": np.array([False]),
        },
    }  # fmt: skip
    for name, value in change.items():
        table, _, field = name.partition("_")
        tables[table][field] = value
    related = np.array([[1, 0.4], [0.4, 1]], np.float32)
    return World(
        config=SimulateConfig(),
        jobs=Jobs(**tables["jobs"]),
        users=Users(**tables["users"]),
        requests=Requests(**tables["requests"]),
        relatedness_OO=related,
        speciality_VD=np.array([[1, 0], [0.6, 0.8]], np.float32),
        intercept=-3.0,
    )


ONE = np.array([0])
W = SimulateConfig()
SAME = W.weight_occupation + W.weight_speciality + W.weight_city


@pytest.mark.parametrize(
    ("change", "utility"),
    [
        ({}, SAME),
        ({"jobs_occupation": ONE + 1}, 0.4 * (W.weight_occupation + W.weight_speciality) + W.weight_city),
        ({"jobs_variant": ONE + 1}, W.weight_occupation + 0.6 * W.weight_speciality + W.weight_city),
        ({"jobs_city": ONE + 1}, SAME - W.weight_city + W.weight_region),
        ({"jobs_city": ONE + 1, "jobs_region": ONE + 1}, SAME - W.weight_city),
        (
            {"jobs_city": ONE + 1, "jobs_region": ONE + 1, "jobs_remote": np.array([True])},
            SAME - W.weight_city + W.weight_remote,
        ),
        ({"jobs_seniority": ONE + 4}, SAME - 2 * W.weight_seniority),
        ({"jobs_appeal": np.array([2], np.float32)}, SAME + 2 * W.weight_appeal),
        ({"jobs_reputation": np.array([-1], np.float32)}, SAME - W.weight_company),
        ({"users_taste_industry_US": np.array([[2]], np.float32)}, SAME + W.weight_taste * 2 / math.sqrt(2)),
        ({"users_taste_work_UD": np.array([[3, 5]], np.float32)}, SAME + W.weight_taste * 3 / math.sqrt(2)),
        ({"requests_ts_us": np.array([9 * 86_400_000_000])}, SAME - W.weight_age * math.log(10)),
    ],
)
def test_relevance_by_hand(change, utility):
    world = pair(**change)
    assert click_model.utility(world, ONE, ONE)[0] == pytest.approx(utility, abs=1e-5)
    assert click_model.relevance(world, ONE, ONE)[0] == pytest.approx(1 / (1 + math.exp(3 - utility)), abs=1e-6)
