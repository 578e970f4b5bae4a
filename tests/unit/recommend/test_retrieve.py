"""Fusion and running lists against brute force."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tritower.recommend import retrieve, sample


@given(st.lists(st.lists(st.integers(0, 30), unique=True, max_size=12), min_size=1, max_size=5), st.integers(1, 40))
def test_fusion_equals_the_definition(lists: list[list[int]], limit: int) -> None:
    total: dict[int, float] = {}
    for one in lists:
        for rank, job in enumerate(one, start=1):
            total[job] = total.get(job, 0.0) + 1 / (60 + rank)
    fused = retrieve.fuse([np.array([*one, -1], dtype=np.int64) for one in lists], limit)
    assert len(fused) == min(limit, len(total)) == len(set(fused.tolist()))
    np.testing.assert_allclose([total[job] for job in fused], sorted(total.values(), reverse=True)[:limit], rtol=1e-12)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 20), st.integers(1, 10))
def test_running_list_equals_a_full_sort(scores: list[int], limit: int, block: int) -> None:
    score = np.array([scores], dtype=np.float32)
    best = retrieve._empty(1, limit)
    for start in range(0, len(scores), block):
        best = retrieve._merge(best, score[:, start : start + block], start, limit)
    kept = best[1][0][np.isfinite(best[0][0])]
    assert score[0][kept].tolist() == sorted(scores, reverse=True)[:limit]
    assert len(set(kept.tolist())) == len(kept)


def test_lexical_vectors_forgive_a_typo() -> None:
    jobs, queries = retrieve.lexical_vectors(["Registered Nurse, Mercy", "Truck Driver, Haul Co"], ["regstered nurse", "zz"])
    similarity = (queries @ jobs.T).toarray()
    assert similarity[0, 0] > 0.4 > similarity[0, 1]
    assert not similarity[1].any()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_latest_per_user(users: list[int]) -> None:
    last = {user: request for request, user in enumerate(users)}
    chosen = sample.latest_per_user(np.arange(len(users)), np.array(users))
    assert chosen.tolist() == sorted(last.values())


def test_sample_is_seeded_and_late() -> None:
    requests = np.arange(1_000)
    first = sample.latest(requests, count=20, share=0.1, seed=3)
    assert len(first) == 20 and first.min() >= 900
    np.testing.assert_array_equal(first, sample.latest(requests, count=20, share=0.1, seed=3))
    assert (first != sample.latest(requests, count=20, share=0.1, seed=4)).any()
