"""Kinds of search, and the searches where rankers differ."""

import numpy as np
from tritower.evaluation import disagreements
from tritower.evaluation.config import EvaluationConfig
from tritower.evaluation.rows import Rows
from tritower.evaluation.slices import Context, slices


def rows_of(clicked, score, **columns):
    """Requests of equal size, one per row of `clicked`."""
    requests, size = np.shape(clicked)
    count = requests * size
    given = {"user": np.zeros(count), "job": np.tile(np.arange(size), requests), "query_text": np.zeros(count)} | columns
    return Rows(
        row=np.arange(count), request=np.repeat(np.arange(requests), size), position=np.zeros(count, np.int16),
        clicked=np.ravel(clicked).astype(bool), randomised=np.ones(count, bool),
        score={name: np.ravel(value).astype(np.float32) for name, value in score.items()},
        **{name: np.asarray(value).astype(np.int32) for name, value in given.items()},
    )  # fmt: skip


def context(requests, jobs, **more):
    empty = {
        "known_R": np.ones(requests, bool), "shown_J": np.full(jobs, 100), "searched_T": np.full(5, 100),
        "city_R": np.full(requests, -1), "region_R": np.full(requests, -1), "city_J": np.full(jobs, -1), "regions": (),
    }  # fmt: skip
    return Context(**(empty | more))


def requests_in(mask, rows):
    return set(np.unique(rows.request[mask]).tolist())


def test_masks_hold_whole_searches():
    # 120 requests of 2 jobs; request r clicks job r % 2; requests 0 to 59 are of new users; job 1 is cold.
    clicked = np.eye(2)[np.arange(120) % 2]
    rows = rows_of(clicked, {"model": clicked})
    known = np.arange(120) >= 60
    got = slices(rows, context(120, 2, known_R=known, shown_J=np.array([50, 3])), EvaluationConfig())
    assert requests_in(got["new users (first search)"], rows) == set(range(60))
    assert requests_in(got["cold jobs clicked (shown fewer than 20 times before)"], rows) == set(range(1, 120, 2))
    assert requests_in(got["warm jobs clicked"], rows) == set(range(0, 120, 2))
    assert all(mask.reshape(-1, 2).all(axis=1).sum() * 2 == mask.sum() for mask in got.values())


def test_place_and_region():
    clicked = np.eye(2)[np.arange(120) % 2]
    rows = rows_of(clicked, {"model": clicked})
    where = context(
        120, 2, city_R=np.full(120, 7), city_J=np.array([7, 8]), region_R=np.arange(120) // 80, regions=("Ohio", "Utah")
    )
    got = slices(rows, where, EvaluationConfig(regions=1))
    assert requests_in(got["clicked in the searched city"], rows) == set(range(0, 120, 2))
    assert requests_in(got["clicked elsewhere"], rows) == set(range(1, 120, 2))
    assert requests_in(got["searched in Ohio"], rows) == set(range(80)) and "searched in Utah" not in got


def test_small_slices_are_left_out():
    clicked = np.eye(2)[np.arange(40) % 2]
    known = np.arange(40) >= 20
    assert "returning users" not in slices(rows_of(clicked, {}), context(40, 2, known_R=known), EvaluationConfig())


def test_widest_disagreements_by_hand():
    # Request 0: ours puts the click first, theirs last. Request 1: both first. Request 2: ours last, theirs second.
    clicked = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    ours = [[0.9, 0.2, 0.1], [0.1, 0.8, 0.2], [0.5, 0.4, 0.1]]
    theirs = [[0.1, 0.5, 0.3], [0.2, 0.9, 0.1], [0.3, 0.1, 0.2]]
    rows = rows_of(clicked, {"model": ours, "baseline": theirs}, query_text=np.repeat([0, 1, 2], 3))
    won, lost = disagreements.widest(rows, "model", "baseline", most=5, seed=0)
    assert [item.request for item in won] == [0] and [item.request for item in lost] == [2]
    assert won[0].ours == 1.0 and np.isclose(won[0].theirs, 1 / 2)
    assert won[0].ours_top == (0, 1, 2) and won[0].theirs_top == (1, 2, 0)


def test_a_query_appears_once():
    clicked, ours, theirs = np.tile([1, 0], (10, 1)), np.tile([0.9, 0.1], (10, 1)), np.tile([0.1, 0.9], (10, 1))
    won, lost = disagreements.widest(rows_of(clicked, {"model": ours, "baseline": theirs}), "model", "baseline", most=5, seed=0)
    assert len(won) == 1 and lost == []
