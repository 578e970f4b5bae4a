"""The normaliser: hand-computed maps, order kept, missing stays missing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritower.ranker import normaliser
from tritower.ranker.normaliser import Normaliser

FINITE = st.floats(-1e6, 1e6, width=32)
ANY = st.floats(width=32)  # infinities, NaN and subnormal numbers too


def test_quantile_sends_the_median_to_zero_and_quartiles_to_normal_scores():
    feature_NF = np.arange(1001, dtype=np.float32)[:, None] ** 3
    out = normaliser.fit(feature_NF, kind="quantile").apply(feature_NF[[250, 500, 750]])
    np.testing.assert_allclose(out[:, 0], [-0.6745, 0.0, 0.6745], atol=0.01)


def test_quantile_puts_a_tied_value_at_the_middle_of_its_ranks():
    feature_NF = np.array([0, 0, 0, 1], dtype=np.float32)[:, None]
    out = normaliser.fit(feature_NF, kind="quantile").apply(np.array([[0.0], [1.0]], dtype=np.float32))
    # mid ranks 1.5/4 and 3.5/4
    np.testing.assert_allclose(out[:, 0], [-0.3186, 1.1503], atol=1e-3)


def test_standard_is_log_then_mean_zero_deviation_one():
    feature_NF = np.expm1(np.array([0.0, 1.0, 2.0], dtype=np.float32))[:, None]
    out = normaliser.fit(feature_NF, kind="standard").apply(feature_NF)
    np.testing.assert_allclose(out[:, 0], [-1.2247, 0.0, 1.2247], atol=2e-3)


@pytest.mark.parametrize("kind", ["quantile", "standard"])
def test_a_constant_and_an_absent_feature_give_zero_and_missing(kind: str):
    feature_NF = np.array([[7, np.nan], [7, np.nan]], dtype=np.float32)
    out = normaliser.fit(feature_NF, kind=kind).apply(np.array([[7, np.nan], [9, 3.0]], dtype=np.float32))
    np.testing.assert_array_equal(out, np.array([[0, np.nan], [0, 0]], dtype=np.float32))


@pytest.mark.parametrize("kind", ["quantile", "standard"])
@given(fitted=hnp.arrays(np.float32, (30, 1), elements=FINITE), applied=hnp.arrays(np.float32, (20, 1), elements=FINITE))
def test_order_is_kept_and_values_are_bounded(kind: str, fitted: np.ndarray, applied: np.ndarray):
    out = normaliser.fit(fitted, kind=kind).apply(np.sort(applied, axis=0))[:, 0]
    assert np.all(np.diff(out) >= 0)
    assert np.all(np.abs(out) <= 5.001)


def interpolated(fitted: Normaliser, feature_NF: np.ndarray) -> np.ndarray:
    """The map that the class promises, feature by feature."""
    columns = [np.interp(feature_NF[:, f], fitted.knot_FK[f], fitted.value_FK[f]) for f in range(feature_NF.shape[1])]
    return np.stack(columns, axis=1).astype(np.float32)


@pytest.mark.parametrize("kind", ["quantile", "standard"])
@given(fitted=hnp.arrays(np.float32, (90, 3), elements=ANY), applied=hnp.arrays(np.float32, (40, 3), elements=ANY))
def test_it_is_interpolation_to_the_bit(kind: str, fitted: np.ndarray, applied: np.ndarray):
    maps = normaliser.fit(fitted, kind=kind)
    for feature_NF in (applied, fitted, maps.knot_FK.T.astype(np.float32)):  # the last lies on and beside every knot
        np.testing.assert_array_equal(maps.apply(feature_NF), interpolated(maps, feature_NF))


@pytest.mark.parametrize("distinct", [1, 2, 7, 8, 9, 64, 65, 1000])
def test_every_number_of_knots_is_searched_whole(distinct: int):
    random = np.random.default_rng(distinct)
    values_V = random.normal(size=distinct).astype(np.float32)
    feature_NF = random.choice(values_V, size=(3000, 2))
    maps = normaliser.fit(feature_NF, kind="quantile")
    asked_NF = np.concatenate([feature_NF, random.normal(size=(3000, 2)).astype(np.float32)])
    np.testing.assert_array_equal(maps.apply(asked_NF), interpolated(maps, asked_NF))


def test_rows_need_not_lie_side_by_side_in_memory():
    feature_NF = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    maps = normaliser.fit(feature_NF, kind="quantile")
    np.testing.assert_array_equal(maps.apply(np.asfortranarray(feature_NF)), maps.apply(feature_NF))
