"""Cosines are exact sums, rounded once: so the processor that numba compiles for cannot change them."""

import hashlib
import math
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower import half
from tritower.features import similarity

_V3 = {
    "NUMBA_CPU_NAME": "x86-64-v3",
    "NUMBA_CPU_FEATURES": "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+xsave",
}
_V2 = {"NUMBA_CPU_NAME": "ivybridge", "NUMBA_CPU_FEATURES": "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+avx,+f16c,+xsave"}


def unit_vectors(seed: int, texts: int, dims: int) -> np.ndarray:
    """Rows of about length 1 as halves; some values are so small that they are denormal."""
    rng = np.random.default_rng(seed)
    wide = rng.normal(size=(texts, dims)) * 10.0 ** rng.integers(-6, 1, (texts, dims))
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float16)


def exact(left_D: np.ndarray, right_D: np.ndarray) -> np.float32:
    """The sum of products, rounded once to float64 and then to float32."""
    return np.float32(math.fsum(left_D.astype(float) * right_D.astype(float)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 64, 384, 1024]))
def test_a_cosine_is_the_exact_sum_of_the_products(seed, dims):
    vector_TD = unit_vectors(seed, 6, dims)
    left_N, right_N = np.array([0, 1, 2, 5], np.int32), np.array([3, 4, 2, 5], np.int32)
    cosine_N = np.zeros(4, np.float32)
    similarity.pair_cosine(left_N, right_N, vector_TD.view(np.uint16), np.zeros(6, np.int32), cosine_N)
    wanted_N = [min(np.float32(1), exact(vector_TD[a], vector_TD[b])) for a, b in zip(left_N, right_N, strict=True)]
    assert cosine_N.tolist() == wanted_N

    past_HD = np.zeros((8, dims), np.float32)
    past_HD[:5] = vector_TD[:5]
    product_2H = np.zeros((2, 8), np.float32)
    half.products(vector_TD.view(np.uint16), 5, 0, past_HD, 5, product_2H)
    wanted_2H = [[exact(vector_TD[row], vector_TD[h]) for h in range(5)] for row in (5, 0)]
    assert product_2H[:, :5].tolist() == wanted_2H


_PROGRAM = """
import hashlib
import numpy as np
from tritower.features import history, rings
from tritower.features.timeline import NO_TIME, Rows, Timeline

rng = np.random.default_rng(0)
vector = rng.integers(-2**20, 2**20, (300, 384)).astype(np.float64)
half = (vector / np.sqrt((vector * vector).sum(axis=1, keepdims=True))).astype(np.float16).view(np.uint16)
n, number = 4_000, np.arange(300, dtype=np.int32)
request = np.arange(n) // 10
ts = np.sort(rng.integers(0, 10**12, n // 10))[request]
clicked = rng.random(n) < 0.3
columns = {
    "row": np.arange(n), "request": request, "ts": ts, "user": rng.integers(0, 20, n // 10).astype(np.int32)[request],
    "job": rng.integers(0, 300, n).astype(np.int32), "query": rng.integers(0, 300, n // 10).astype(np.int32)[request],
    "position": np.ones(n, np.int16), "randomised": np.zeros(n, bool), "counts": np.ones(n, bool),
    "clicked_at": np.where(clicked, ts + 10**6, NO_TIME), "out": np.arange(n),
}
rows = Rows(**{name: columns[name] for name in Rows.__dataclass_fields__})
batch = Timeline().start(rows)
jobs = history.Jobs(rings.Vectors(half, half[:0]), number, np.stack([number % 7] * 3))
out = np.full((9, n), np.nan, np.float32)
history.History(20, clicks=16, half_life_days=2.0).read(batch, jobs, out)
assert np.isfinite(out[:3]).any()
print(hashlib.sha256(out.tobytes()).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the two processors named are x86-64")
def test_histories_are_equal_to_the_bit_with_and_without_fma_and_wide_registers(tmp_path):
    found = set()
    for processor in (_V3, _V2):
        environment = os.environ | processor | {"NUMBA_CACHE_DIR": str(tmp_path / processor["NUMBA_CPU_NAME"])}
        done = subprocess.run([sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.strip()) == len(hashlib.sha256().hexdigest())
        found.add(done.stdout.strip())
    assert len(found) == 1
