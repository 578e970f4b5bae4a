"""Nothing sees the future: the fast pass against brute force, and against changes of the future."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower.features.audit import read_log, same
from tritower.features.config import FeaturesConfig
from tritower.features.feature_state import FeatureState
from tritower.features.reference import Reference
from tritower.features.tables import FeatureTables
from tritower.features.timeline import NO_TIME, Rows

from tests.support import tiny_dataset

CONFIG = FeaturesConfig(history_clicks=3, history_searches=2, positions=4, ctr_half_life_days=0.05)
MINUTE = tiny_dataset.MINUTE


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureTables, Rows]:
    folder = tiny_dataset.build(tmp_path_factory.mktemp("tiny"))
    return FeatureTables.read(folder / "dataset", folder / "embeddings"), read_log(folder / "dataset")


def check_all(tables: FeatureTables, log: Rows, config: FeaturesConfig, rows: list[int]) -> None:
    feature_state = FeatureState(tables, config)
    got_FN, reference = feature_state.features(log).values_FN, Reference(tables, log, config)
    for i in rows:
        expected = reference.row(i)
        assert set(expected) >= set(feature_state.layout.names)
        for f, name in enumerate(feature_state.layout.names):
            got = None if np.isnan(got_FN[f, i]) else float(got_FN[f, i])
            assert same(got, expected[name]), (i, name, got, expected[name])


def test_every_row_equals_brute_force(tables: tuple[FeatureTables, Rows]) -> None:
    check_all(*tables, CONFIG, list(range(len(tables[1]))))


def test_the_randomised_slice_gives_the_curve(tables: tuple[FeatureTables, Rows]) -> None:
    """More than 1,000 randomised clicks, so that the other estimate of the examination curve is used."""
    log = _random_log(np.random.default_rng(5), requests=60, per_request=90)
    log = dataclasses.replace(log, randomised=np.ones(len(log), np.bool_), clicked_at=log.ts + 7)
    check_all(tables[0], log, CONFIG, [0, 900, 2500, 4000, 5399])


def _random_log(rng: np.random.Generator, *, requests: int, per_request: int = 3) -> Rows:
    gap = rng.choice([0, 0, 1, 20, 90], requests) * MINUTE
    request = np.repeat(np.arange(requests), per_request)
    ts = (tiny_dataset.START + np.cumsum(gap))[request]
    count = len(request)
    delay = rng.choice([-1, -1, 0, 1, 60, 600], count) * MINUTE
    return Rows(
        row=np.arange(count),
        request=request,
        ts=ts,
        user=rng.integers(0, 6, requests).astype(np.int32)[request],
        job=rng.integers(0, 14, count).astype(np.int32),
        query=rng.integers(15, 24, requests).astype(np.int32)[request],
        position=rng.integers(0, 7, count).astype(np.int32),
        randomised=rng.random(count) < 0.3,
        clicked_at=np.where(delay < 0, NO_TIME, ts + delay),
        counts=np.ones(count, np.bool_),
        out=np.arange(count),
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 60), max_size=4))
def test_random_logs_equal_brute_force(tables: tuple[FeatureTables, Rows], seed: int, cuts: list[int]) -> None:
    """Random logs with ties and late clicks, fed in random batches."""
    log = _random_log(np.random.default_rng(seed), requests=20)
    whole_FN = FeatureState(tables[0], CONFIG).features(log).values_FN
    feature_state, parts = FeatureState(tables[0], CONFIG), []
    edges = [0, *sorted(cuts), len(log)]
    for start, stop in itertools.pairwise(edges):
        part = log.take(slice(start, stop))
        parts.append(feature_state.features(dataclasses.replace(part, out=np.arange(len(part)))).values_FN)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole_FN)
    check_all(tables[0], log, CONFIG, [len(log) // 3, len(log) - 1])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), at=st.integers(0, 59), shuffle=st.integers(0, 10**6))
def test_the_future_changes_nothing(tables: tuple[FeatureTables, Rows], seed: int, at: int, shuffle: int) -> None:
    """Redraw every event at or after a moment t, and every click made at or after t: no feature at or before t changes."""
    log = _random_log(np.random.default_rng(seed), requests=20)
    rng = np.random.default_rng(shuffle)
    t = log.ts[at]
    rows_at, later = log.ts <= t, log.ts > t
    other = _random_log(rng, requests=20)
    count = len(log)
    clicked_at = log.clicked_at.copy()
    free = clicked_at >= t  # clicks not yet made at t, and rows never clicked: anything at or after t may happen
    clicked_at[free] = np.where(rng.random(count) < 0.5, np.maximum(log.ts, t) + rng.integers(0, 99, count) * MINUTE, NO_TIME)[
        free
    ]
    altered = dataclasses.replace(
        log,
        ts=np.where(later, np.maximum(other.ts, t + 1), log.ts),
        job=np.where(later, other.job, log.job),
        user=np.where(later, other.user, log.user),
        query=np.where(later, other.query, log.query),
        position=np.where(rows_at & (log.ts < t), log.position, other.position),
        clicked_at=clicked_at,
    )
    altered = dataclasses.replace(altered, clicked_at=np.where(altered.clicked_at < altered.ts, altered.ts, altered.clicked_at))
    before = FeatureState(tables[0], CONFIG).features(log).values_FN[:, rows_at]
    after = FeatureState(tables[0], CONFIG).features(altered).values_FN[:, rows_at]
    np.testing.assert_array_equal(before, after)


def test_rows_out_of_order_are_refused(tables: tuple[FeatureTables, Rows]) -> None:
    from tritower.errors import DataError

    log = tables[1]
    with pytest.raises(DataError, match="time order"):
        FeatureState(tables[0], CONFIG).features(log.take(np.arange(len(log))[::-1]))


def test_the_decay_survives_decades(tables: tuple[FeatureTables, Rows], tmp_path: Path) -> None:
    """A half-life of minutes over thirty years: the reference time moves and the rates stay finite and right."""
    log = _random_log(np.random.default_rng(3), requests=30)
    years = (np.arange(len(log)) // 30) * 10 * 365 * 24 * 60 * MINUTE
    moved = dataclasses.replace(
        log, ts=log.ts + years, clicked_at=np.where(log.clicked_at == NO_TIME, NO_TIME, log.clicked_at + years)
    )
    check_all(tables[0], moved, CONFIG, [29, 30, 45, 60, 89])
