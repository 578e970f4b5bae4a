"""Tiles of products: every number of rows, both kinds of numbers, sums in the order of their terms."""

import numpy as np
import pytest
from numpy.typing import NDArray
from tritower import products
from tritower.numba_cache import njit


@njit
def _dense(value_MK, panel_PK16, out_MN):  # type: ignore[no-untyped-def]
    rows, terms = value_MK.shape
    value, out, columns = value_MK.ctypes.data, out_MN.ctypes.data, out_MN.shape[1]
    for p in range(len(panel_PK16)):
        to, panel = out + 64 * p, panel_PK16[p].ctypes.data
        if panel_PK16.itemsize == 2:
            products.half_column(rows, to, columns, value, terms, 1, panel, 16, terms)
        else:
            products.column(rows, to, columns, value, terms, 1, panel, 16, terms)


def multiplied(value_MK: NDArray[np.float32], weight_KN: NDArray[np.float32], dtype: type) -> NDArray[np.float32]:
    panels = products.panels(weight_KN, dtype)
    out_MN = np.full((len(value_MK), products.padded(weight_KN.shape[1])), np.nan, np.float32)
    _dense(value_MK, panels.view(np.uint16) if dtype is np.float16 else panels, out_MN)
    return out_MN


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 18, 31])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_any_number_of_rows(rows: int, dtype: type) -> None:
    rng = np.random.default_rng(rows)
    value_MK, weight_KN = rng.normal(size=(rows, 37)).astype(np.float32), rng.normal(size=(37, 41)).astype(np.float32)
    expected_MN = value_MK.astype(np.float64) @ weight_KN.astype(dtype).astype(np.float64)
    found_MN = multiplied(value_MK, weight_KN, dtype)
    np.testing.assert_allclose(found_MN[:, :41], expected_MN, rtol=0, atol=2e-5)
    assert not found_MN[:, 41:].any()


def test_sums_have_one_order_whatever_the_tile() -> None:
    """A row's bits do not depend on the rows beside it, and are those of fused sums one after the other."""
    rng = np.random.default_rng(0)
    value_MK, weight_KN = rng.normal(size=(13, 200)).astype(np.float32), rng.normal(size=(200, 16)).astype(np.float32)
    together = multiplied(value_MK, weight_KN, np.float32)
    for row in range(13):
        np.testing.assert_array_equal(multiplied(value_MK[row : row + 1], weight_KN, np.float32)[0], together[row])
    exact = np.zeros((13, 16))
    for k in range(200):  # a product of two float32 is exact in float64, so only the sum is rounded twice
        exact = (exact + value_MK[:, k : k + 1].astype(np.float64) * weight_KN[k]).astype(np.float32).astype(np.float64)
    assert np.mean(exact.astype(np.float32) == together) > 0.99


def test_no_rows_write_nothing() -> None:
    assert multiplied(np.empty((0, 5), np.float32), np.ones((5, 16), np.float32), np.float32).shape == (0, 16)
