"""The nearest vectors by bytes and halves: the rows and the order of brute force, whatever the vectors are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower.recommend import scan


def brute(matrix: np.ndarray, query: np.ndarray, rows: np.ndarray, order: np.ndarray, limit: int) -> list[int]:
    value = (matrix.astype(np.float64) @ query.astype(np.float16).astype(np.float64)).astype(np.float32) + np.float32(0)
    return sorted(order[rows].tolist(), key=lambda place: (-value[np.flatnonzero(order == place)[0]], place))[:limit]


def found(matrix: np.ndarray, query: np.ndarray, rows: np.ndarray, order: np.ndarray, limit: int) -> tuple[list[int], int]:
    bits, own = scan.bits(matrix), np.arange(len(matrix))
    codes, asked = scan.coded(bits, own), scan.vectors([query[::-1], query])
    high, one = scan.bounded(codes, asked, rows)[1], asked.exact_VD[1]
    keys = scan.nearest(bits, own, order, codes, one, asked.asked, 1, rows, high, limit)
    exact = (matrix.astype(np.float64) @ one.astype(np.float64)).astype(np.float32)
    assert (exact[rows] <= high).all()
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
    assert found(half, query, among, order, limit)[0] == brute(half, query, among, order, limit)


def test_few_are_multiplied_again() -> None:
    """What the bytes leave open is a small part: otherwise the scan would be of no use."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(20_000, 128))
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    query = rng.normal(size=128)
    best, tried = found(matrix.astype(np.float16), query / np.linalg.norm(query), np.arange(20_000), np.arange(20_000), 100)
    assert len(best) == 100 and tried < 600


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=80), st.integers(1, 90))
def test_the_largest_of_exact_values(values: list[float], limit: int) -> None:
    value = np.array(values, np.float32)
    got = scan.ordered(scan.largest(value, np.arange(len(value)), limit), limit)
    assert got.tolist() == sorted(range(len(value)), key=lambda n: (-(value[n] + np.float32(0)), n))[:limit]


@pytest.mark.parametrize("dim", [1, 64, 2048])
def test_the_largest_vector_does_not_overflow(dim: int) -> None:
    matrix = np.ones((3, dim), np.float16)
    matrix[1] = -1
    assert found(matrix, np.ones(dim), np.arange(3), np.arange(3), 3)[0] == [0, 2, 1]
