"""Past clicks: what counts, and that nothing from the search's own time on does."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower.recommend import clicks
from tritower.recommend.clicks import Clicks

MATRIX_TD = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float16)
TEXT_J = np.array([5, 4, 3, 2])
EVENTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 5), st.integers(0, 9)), max_size=25)


def table(events: list[tuple[int, int, int, int]]) -> Clicks:
    columns = np.array(sorted(events, key=lambda event: event[3]), dtype=np.int64).reshape(-1, 4).T
    return Clicks(user_E=columns[0], job_E=columns[1], query_text_E=columns[2], clicked_us_E=columns[3])


@given(EVENTS, st.integers(0, 2), st.integers(0, 10))
def test_centroid_of_earlier_clicks(events: list[tuple[int, int, int, int]], user: int, ts: int) -> None:
    (got,) = clicks.centroids(table(events), np.array([user]), np.array([ts]), MATRIX_TD, TEXT_J)
    documents = [MATRIX_TD[TEXT_J[job]].astype(np.float64) for who, job, _, when in events if who == user and when < ts]
    if not documents:
        assert not got.any()
        return
    mean = np.mean(documents, axis=0)
    np.testing.assert_allclose(got, mean / np.linalg.norm(mean), atol=2e-4)


@settings(max_examples=200)
@given(EVENTS, st.integers(0, 5), st.integers(0, 10))
def test_votes_of_earlier_clicks(events: list[tuple[int, int, int, int]], query: int, ts: int) -> None:
    query_SD = MATRIX_TD[[query]].astype(np.float32)
    (got,) = clicks.voted(table(events), query_SD, np.array([ts]), MATRIX_TD, limit=3)
    votes: dict[int, float] = {}
    for _, job, text, when in events:
        cosine = float(query_SD[0].astype(np.float64) @ MATRIX_TD[text].astype(np.float64))
        if when < ts and cosine > 0:
            votes[job] = votes.get(job, 0.0) + cosine**4
    assert len(got) == min(3, len(votes)) and set(got.tolist()) <= votes.keys()
    ranked = sorted(votes.values(), reverse=True)[:3]
    np.testing.assert_allclose([votes[job] for job in got.tolist()], ranked, rtol=1e-4)


@given(EVENTS, EVENTS, st.integers(0, 10))
def test_nothing_from_the_search_on_counts(
    events: list[tuple[int, int, int, int]], later: list[tuple[int, int, int, int]], ts: int
) -> None:
    changed = events + [(user, job, text, ts + when) for user, job, text, when in later]
    query_SD, when_S = MATRIX_TD[[0]].astype(np.float32), np.array([ts])
    one, two = (clicks.voted(table(log), query_SD, when_S, MATRIX_TD, limit=4)[0] for log in (events, changed))
    assert one.tolist() == two.tolist()
    one, two = (clicks.centroids(table(log), np.array([1]), when_S, MATRIX_TD, TEXT_J) for log in (events, changed))
    np.testing.assert_array_equal(one, two)


def test_a_search_without_a_query_gets_no_votes() -> None:
    assert (
        clicks.voted(table([(0, 1, 2, 0)]), np.zeros((1, 3), np.float32), np.array([5]), MATRIX_TD, limit=4)[0].tolist() == []
    )
