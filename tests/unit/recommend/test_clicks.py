"""Past clicks: what counts, that nothing from the search's own time on does, and that new clicks are as old ones."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from tritower.recommend import clicks, scan
from tritower.recommend.clicks import Clicks

MATRIX_TD = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float16)
MATRIX_TD /= np.linalg.norm(MATRIX_TD.astype(np.float32), axis=1, keepdims=True).astype(np.float16)
TEXTS = ["", "cook", "nurse", "driver", "clerk", "night nurse"]
TEXT_J, ORDER_J = np.array([5, 4, 3, 2]), np.array([2, 0, 3, 1])
Events = list[tuple[int, int, int, int]]
EVENTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 5), st.integers(0, 9)), max_size=25)


def table(events: Events) -> Clicks:
    user, job, query, when = np.array(events, dtype=np.int64).reshape(-1, 4).T
    return Clicks.build(
        user_E=pa.array([f"u{one}" for one in user], pa.string()), job_E=job, query_text_E=query, clicked_us_E=when,
        text_T=pa.array(TEXTS), matrix_TD=MATRIX_TD,
    )  # fmt: skip


def add(log: Clicks, events: Events) -> Clicks:
    for user, job, query, when in events:
        log.add(f"u{user}", job, TEXTS[query], MATRIX_TD[query] if TEXTS[query] else None, when)
    return log


def answers(log: Clicks) -> list[list[int]]:
    voted = [log.voted(MATRIX_TD[text], ts, ORDER_J).tolist() for text in range(1, 6) for ts in (0, 4, 10)]
    return [*voted, *(sorted(log.of_user(f"u{user}", ts).tolist()) for user in range(4) for ts in (0, 4, 10))]


@given(EVENTS, st.integers(0, 2), st.integers(0, 10))
def test_centroid_of_earlier_clicks(events: Events, user: int, ts: int) -> None:
    got = clicks.centroid(table(events).of_user(f"u{user}", ts), scan.bits(MATRIX_TD), TEXT_J)
    documents = [MATRIX_TD[TEXT_J[job]].astype(np.float64) for who, job, _, when in events if who == user and when < ts]
    if not documents:
        assert not got.any()
        return
    mean = np.mean(documents, axis=0)
    np.testing.assert_array_equal(got, (mean / np.linalg.norm(mean)).astype(np.float16))


@settings(max_examples=100)
@given(EVENTS, st.integers(1, 5), st.integers(0, 10))
def test_votes_of_earlier_clicks(events: Events, query: int, ts: int) -> None:
    got = table(events).voted(MATRIX_TD[query], ts, ORDER_J)
    votes: dict[int, float] = {}
    for _, job, text, when in events:
        cosine = float(np.float32(MATRIX_TD[query].astype(np.float64) @ MATRIX_TD[text].astype(np.float64)))
        if when < ts and cosine > 0 and TEXTS[text]:
            votes[job] = votes.get(job, 0.0) + cosine**4
    assert got.tolist() == sorted(votes, key=lambda job: (-round(votes[job], 12), ORDER_J[job]))


@given(EVENTS, EVENTS, st.integers(0, 10))
def test_nothing_from_the_search_on_counts(events: Events, later: Events, ts: int) -> None:
    changed = events + [(user, job, text, ts + when) for user, job, text, when in later]
    one, two = (table(log).voted(MATRIX_TD[1], ts, ORDER_J).tolist() for log in (events, changed))
    assert one == two
    one, two = (sorted(table(log).of_user("u1", ts).tolist()) for log in (events, changed))
    assert one == two


def test_later_queries_do_not_crowd_out_earlier_ones() -> None:
    """More nearer queries than there are neighbours, all of them asked later: the one asked before still votes."""
    texts = ["far", *(f"near {n}" for n in range(clicks.NEIGHBOURS))]
    matrix_TD = np.array([[0.6, 0.8], *[[1.0, 0.0]] * clicks.NEIGHBOURS], np.float16)
    log = Clicks.build(
        user_E=pa.array(["u"] * len(texts)), job_E=np.arange(len(texts)), query_text_E=np.arange(len(texts)),
        clicked_us_E=np.array([1, *[9] * clicks.NEIGHBOURS]), text_T=pa.array(texts), matrix_TD=matrix_TD,
    )  # fmt: skip
    assert log.voted(np.array([1.0, 0.0]), 5, np.arange(len(texts))).tolist() == [0]
    assert len(log.voted(np.array([1.0, 0.0]), 10, np.arange(len(texts)))) == clicks.NEIGHBOURS


@given(EVENTS, EVENTS)
def test_added_clicks_are_as_built_ones(events: Events, more: Events) -> None:
    assert answers(add(table(events), more)) == answers(table(events + more))


def test_what_was_added_is_saved(tmp_path: Path) -> None:
    events = [(n % 3, n % 4, n % 6, n % 10) for n in range(24)]
    add(table(events[:9]), events[9:]).save(tmp_path / "clicks")
    assert answers(Clicks.open(tmp_path / "clicks")) == answers(table(events))
    again = add(Clicks.open(tmp_path / "clicks"), events)
    assert answers(again) == answers(table(events + events))


def test_forgotten_users_have_no_past(tmp_path: Path) -> None:
    events = [(n % 3, n % 4, n % 6, n % 10) for n in range(24)]
    log = add(table(events[:9]), events[9:])
    votes = [log.voted(MATRIX_TD[text], 10, ORDER_J).tolist() for text in range(1, 6)]
    assert log.forget("u1") == 8 and log.forget("u1") == 0 and log.forget("nobody") == 0
    log.save(tmp_path / "clicks")
    for one in (log, Clicks.open(tmp_path / "clicks")):
        assert not len(one.of_user("u1", 10)) and len(one.of_user("u2", 10))
        assert [one.voted(MATRIX_TD[text], 10, ORDER_J).tolist() for text in range(1, 6)] == votes
    log.add("u1", 2, "", None, 3)
    assert log.of_user("u1", 10).tolist() == [2]


def test_a_search_without_a_query_gets_no_votes() -> None:
    assert not len(table([(0, 1, 2, 0)]).voted(np.zeros(3), 5, ORDER_J))
