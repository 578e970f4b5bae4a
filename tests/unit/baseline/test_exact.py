"""Exact arithmetic: right values, and equal bits whatever the matrix library's kernel, the threads and numpy's instructions."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritower.baseline import exact, projection
from tritower.errors import ArtifactError

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.integers(1, 300), st.sampled_from([1e-20, 1.0, 1e20]))
def test_a_product_is_the_exact_sum_of_its_rounded_operands(seed, terms, scale):
    """In whatever order: the sum of fractions is the reference, and both operands keep 20 bits at least."""
    rng = np.random.default_rng(seed)
    left_NK, right_KM = rng.normal(size=(3, terms)) * scale, rng.normal(size=(terms, 2))
    found = exact.product(left_NK, right_KM)
    order = rng.permutation(terms)
    assert np.array_equal(found, exact.product(left_NK[:, order], right_KM[order]))
    bound = terms * np.abs(left_NK).max() * np.abs(right_KM).max() * 2.0**-19
    reference = [sum(Fraction(a) * Fraction(b) for a, b in zip(left_NK[1], right_KM[:, m], strict=True)) for m in range(2)]
    assert np.abs(found[1] - np.array(reference, float)).max() <= bound


@given(SEEDS, st.integers(1, 12))
def test_eigenvectors_of_a_symmetric_matrix(seed, size):
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    matrix = matrix + matrix.T
    value_W, vector_WW = exact.eigen(matrix)
    np.testing.assert_allclose(np.sort(value_W), np.linalg.eigvalsh(matrix), atol=1e-12)
    np.testing.assert_allclose(matrix @ vector_WW, vector_WW * value_W, atol=1e-12)
    np.testing.assert_allclose(vector_WW.T @ vector_WW, np.eye(size), atol=1e-13)


def test_principal_directions_are_those_of_a_library():
    rng = np.random.default_rng(0)
    turned, _ = np.linalg.qr(rng.normal(size=(60, 60)))
    rows_ND = (rng.normal(size=(9_000, 60)) / np.sqrt(np.arange(1, 61)) + 0.3) @ turned.T
    mean_D = exact.mean(rows_ND)
    np.testing.assert_allclose(mean_D, rows_ND.mean(axis=0), atol=1e-10)
    moment_DD = exact.moments(rows_ND, mean_D)
    np.testing.assert_allclose(moment_DD, np.cov(rows_ND.T, bias=True) * len(rows_ND), atol=1e-4 * len(rows_ND))
    found = exact.principal(moment_DD, 5)
    library = np.linalg.eigh(moment_DD)[1][:, ::-1][:, :5]
    np.testing.assert_allclose(np.abs((found * library).sum(axis=0)), 1, atol=1e-3)
    np.testing.assert_allclose(found.T @ found, np.eye(5), atol=1e-5)


def test_directions_that_the_data_lack_are_zero():
    plane_ND = np.random.default_rng(0).normal(size=(50, 2)) @ np.array([[0.6, 0.8, 0, 0], [0, 0, 1.0, 0]])
    found = exact.principal(exact.moments(plane_ND, exact.mean(plane_ND)), 4)
    lengths = np.linalg.norm(found, axis=0)
    np.testing.assert_allclose(lengths, [1, 1, 0, 0], atol=1e-6)
    assert not exact.principal(np.zeros((3, 3)), 2).any()


@given(st.floats(-800, 800))
def test_sigmoid_is_what_the_mathematical_library_says(x):
    reference = float(1 / (1 + np.exp(np.longdouble(-np.clip(x, -700, 700)))))
    assert abs(float(exact.sigmoid(np.array([x]))[0]) - reference) <= 4e-16 * reference + 1e-300


@given(st.floats(1e-6, 1 - 1e-6))
def test_log_odds_undo_the_sigmoid(share):
    assert abs(float(exact.sigmoid(np.array([exact.log_odds(share)]))[0]) - share) < 1e-15


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e3])
def test_vectors_that_no_encoder_writes_are_refused(value):
    matrix_TD = np.eye(6, dtype=np.float32)
    matrix_TD[5, 0] = value
    text_N = np.arange(5)
    maps = projection.fit(matrix_TD, text_N, text_N, text_N, components=2, limit=100, seed=0)
    with pytest.raises(ArtifactError, match="not finite vectors of about unit length"):
        maps.columns(matrix_TD, text_N, np.full(5, 5), text_N)


# Which of OpenBLAS's kernels this processor can run.
_CPU = Path("/proc/cpuinfo")
_FLAGS = set(re.findall(r"^flags\s*:(.*)$", _CPU.read_text(), re.MULTILINE)[0].split()) if _CPU.exists() else set()
_KERNELS = {"Prescott": "pni", "Haswell": "avx2", "Zen": "avx2", "SkylakeX": "avx512vl"}
_PROGRAM = """
import hashlib, json, sys
import numpy as np
from tritower.baseline import exact, projection, step
from tritower.baseline.config import BaselineConfig

def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()

root, out, threads = sys.argv[1:]
rng = np.random.default_rng(0)
vector = rng.integers(-2**20, 2**20, (600, 384)).astype(np.float64)
vector = (vector / np.sqrt((vector * vector).sum(axis=1, keepdims=True))).astype(np.float16)
query, document, about = rng.integers(0, 600, (3, 2_000))
maps = projection.fit(vector, query, document, about, components=8, limit=500, seed=0)
config = BaselineConfig(
    variant="full", rounds=30, search_trials=2, search_rounds=20, components=4, position_rounds=1, threads=int(threads)
)
step.run(
    features=root + "/features", embeddings=root + "/embeddings", model=out + "/model", scores=out + "/scores", config=config
)
scores = [open(out + f"/scores/{split}.parquet", "rb").read() for split in ("validation", "test")]
model = json.load(open(out + "/model/baseline.json"))
model["config"].pop("threads")
wide = vector.astype(np.float32)
print(json.dumps({
    "columns": digest(maps.columns(vector, query, document, about)),
    "maps": [digest(part) for part in vars(maps).values()],
    "scores": [hashlib.sha256(part).hexdigest() for part in scores],
    "model": model,
    "library": digest(wide @ wide[:64].T),
}))
"""


@pytest.mark.slow
def test_rivals_are_equal_to_the_bit_on_every_kernel_and_any_number_of_threads(log, tmp_path):
    """A plain product of the library is not: without that the test would prove nothing."""
    runs = [
        {"OPENBLAS_CORETYPE": name, "OPENBLAS_NUM_THREADS": str(1 + at % 2), "threads": str(1 + at % 3)}
        for at, name in enumerate(name for name, flag in _KERNELS.items() if flag in _FLAGS)
    ]
    old = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR"} if "avx512_bf16" in _FLAGS else {}
    runs.append({"OPENBLAS_NUM_THREADS": "2", "threads": "2", "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4", **old})

    def run(at):
        knobs = dict(runs[at])
        command = [sys.executable, "-c", _PROGRAM, str(log[0]), str(tmp_path / str(at)), knobs.pop("threads")]
        done = subprocess.run(command, env=os.environ | knobs, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, range(len(runs))))
    library = {result.pop("library") for result in results}
    if len(runs) > 3:
        assert len(library) > 1
    for settings, result in zip(runs, results, strict=True):
        assert result == results[0], settings
