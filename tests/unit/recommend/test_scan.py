"""The nearest vectors by bytes and halves: the rows and the order of brute force, whatever the vectors are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower.recommend import heads, int8, scan
from tritower.recommend.int8 import LANES


def brute(matrix: np.ndarray, query: np.ndarray, rows: np.ndarray, order: np.ndarray, limit: int) -> list[int]:
    value = (matrix.astype(np.float64) @ query.astype(np.float16).astype(np.float64)).astype(np.float32) + np.float32(0)
    return sorted(order[rows].tolist(), key=lambda place: (-value[np.flatnonzero(order == place)[0]], place))[:limit]


def found(
    matrix: np.ndarray, query: np.ndarray, rows: np.ndarray, order: np.ndarray, limit: int, width: int = 0
) -> tuple[list[int], int]:
    """Places by the scan, with heads of an arbitrary basis where a width is given, and how many were multiplied in halves."""
    bits, own = scan.bits(matrix), np.arange(len(matrix))
    codes, asked = scan.coded(bits, own), scan.vectors([query[::-1], query])
    wanted = scan.wanted(np.isin(own, rows))
    high, one = scan.bounded(codes, asked, wanted), asked.exact_VD[1]
    if width:
        basis = np.linalg.qr(np.random.default_rng(width).normal(size=(matrix.shape[1], width)))[0].T
        high = heads.bounded(heads.of_basis(np.ascontiguousarray(basis), bits, own), asked, wanted)
    keys = scan.nearest(bits, own, order, codes, one, asked.asked, 1, own[:0], high.high_VL[1], high.peak_VG[1], limit)
    exact = (matrix.astype(np.float64) @ one.astype(np.float64)).astype(np.float32)
    assert (exact[rows] <= high.high_VL[1, rows]).all()
    for group in np.unique(rows // LANES):
        values = high.high_VL[1, group * LANES : (group + 1) * LANES]
        assert values.max() == high.peak_VG[1, group]
        assert (values[~wanted[group * LANES : (group + 1) * LANES]] == np.float32(scan.LOWEST)).all()
    some = high.high_VL[1, rows]
    other = scan.nearest(bits, own, order, codes, one, asked.asked, 1, rows, some, scan.peaks(some), limit)
    assert scan.ordered(other, limit).tolist() == scan.ordered(keys, limit).tolist()
    places, values = scan.decoded(keys)
    assert dict(zip(places.tolist(), values, strict=True)) == {order[r]: exact[r] for r in np.argsort(order)[places]}
    return scan.ordered(keys, limit).tolist(), len(keys)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 40), st.integers(1, 50),
    st.sampled_from(["unit", "equal", "few", "huge", "zeros", "one large"]),
)  # fmt: skip
def test_as_by_brute_force(seed: int, rows: int, dim: int, limit: int, sort: str) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, dim))
    if sort == "few":
        matrix = matrix[rng.integers(0, min(rows, 4), size=rows)]  # ties
    if sort == "equal":
        matrix[:] = matrix[0]
    if sort == "one large":
        matrix *= np.where(rng.random((rows, dim)) < 0.05, 50, 0.01)
    if sort == "zeros":
        matrix[rng.random(rows) < 0.7] = 0
    if sort != "huge":
        matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)
    half, query = matrix.astype(np.float16), matrix[0] + 0.05 * rng.normal(size=dim)
    order = rng.permutation(rows).astype(np.int32)
    among = np.flatnonzero(rng.random(rows) < 0.8)
    wanted = brute(half, query, among, order, limit)
    assert found(half, query, among, order, limit)[0] == wanted
    assert found(half, query, among, order, limit, width=max(1, dim // 3))[0] == wanted


def test_few_are_multiplied_again() -> None:
    """What the bytes leave open is a small part: otherwise the scan would be of no use."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(20_000, 128))
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    query = rng.normal(size=128)
    best, tried = found(matrix.astype(np.float16), query / np.linalg.norm(query), np.arange(20_000), np.arange(20_000), 100)
    assert len(best) == 100 and tried < 600


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (16, 2), (37, 5)])
def test_rows_abreast_are_the_rows(rows: int, width: int) -> None:
    code = np.random.default_rng(0).integers(-127, 128, size=(rows, width)).astype(np.int8)
    abreast = int8.abreast(code)
    assert abreast.shape == (-(-rows // LANES), -(-width // 2), 2 * LANES)
    again = [[abreast[r // LANES, h // 2, 2 * (r % LANES) + h % 2] for h in range(width)] for r in range(rows)]
    np.testing.assert_array_equal(again, code)
    assert np.abs(abreast.astype(np.int64)).sum() == np.abs(code.astype(np.int64)).sum()  # and zeros


def test_heads_leave_few_rows_where_few_components_matter_and_are_left_out_where_not() -> None:
    """Vectors as those of an encoder, and vectors without any direction of their own."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(3_000, 256)) * np.exp(-np.arange(256) / 25)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    turned = (matrix @ np.linalg.qr(rng.normal(size=(256, 256)))[0]).astype(np.float16)
    made = heads.made(scan.bits(turned), np.arange(3_000))
    assert made is not None
    assert made.rest_L.max() < 0.1
    assert heads.left(made, turned.astype(np.float64)) < 0.03
    flat = rng.normal(size=(3_000, 256)) / 16
    assert heads.made(scan.bits(flat.astype(np.float16)), np.arange(3_000)) is None
    assert heads.made(scan.bits(turned[:, :255].copy()), np.arange(3_000)) is None


@pytest.mark.parametrize("count", [1, 5, 200, 3_000])
@pytest.mark.parametrize("sort", ["any", "ascending", "two values", "a spike"])
def test_leading_values_are_found_with_what_ties(count: int, sort: str) -> None:
    value = np.random.default_rng(count).normal(size=20_011).astype(np.float32)
    if sort == "ascending":
        value.sort()
    if sort == "two values":
        value = (value > 0).astype(np.float32)
    if sort == "a spike":  # where one in seven does not see it
        value[1::7] += np.float32(1e6)
    places = scan.leading(value, scan.peaks(value), count)
    assert places.tolist() == np.flatnonzero(value >= value[places].min()).tolist()
    assert value[places].min() <= np.sort(value)[-count]
    assert sort != "any" or len(places) <= 3 * count + 60


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=80), st.integers(1, 90))
def test_the_largest_of_exact_values(values: list[float], limit: int) -> None:
    value = np.array(values, np.float32)
    got = scan.ordered(scan.largest(value, scan.peaks(value), np.arange(len(value)), limit), limit)
    assert got.tolist() == sorted(range(len(value)), key=lambda n: (-(value[n] + np.float32(0)), n))[:limit]


@pytest.mark.parametrize("dim", [1, 64, 2048])
def test_the_largest_vector_does_not_overflow(dim: int) -> None:
    matrix = np.ones((3, dim), np.float16)
    matrix[1] = -1
    assert found(matrix, np.ones(dim), np.arange(3), np.arange(3), 3)[0] == [0, 2, 1]
