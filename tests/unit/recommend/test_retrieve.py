"""Fusion, every list, filters and updates against brute force."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritower import storage
from tritower.errors import ArtifactError
from tritower.recommend import heads, retrieve, sample
from tritower.recommend.clicks import Clicks
from tritower.recommend.index import Index
from tritower.recommend.retrieve import Conditions
from tritower.storage import manifest

from tests.support import catalogue

WIDE = 2 * heads.WIDTH + 1  # wide enough for heads, and no multiple of what is multiplied at once


@given(st.lists(st.lists(st.integers(0, 30), unique=True, max_size=12), min_size=1, max_size=5), st.integers(1, 40))
def test_fusion_equals_the_definition(lists: list[list[int]], limit: int) -> None:
    total: dict[int, float] = {}
    for one in lists:
        for rank, job in enumerate(one, start=1):
            total[job] = total.get(job, 0.0) + 1 / (60 + rank)
    fused = retrieve.fuse([np.array(one, dtype=np.int64) for one in lists], limit)
    assert len(fused) == min(limit, len(total)) == len(set(fused.tolist()))
    np.testing.assert_allclose([total[job] for job in fused], sorted(total.values(), reverse=True)[:limit], rtol=1e-12)


@pytest.mark.parametrize(("limit", "dim"), [(7, 24), (500, 24), (7, WIDE)])
def test_every_list_equals_brute_force(limit: int, dim: int) -> None:
    board = catalogue.board(1, dim=dim)
    index, clicks, seen = board.index(), board.log(), set()
    assert (index.heads is not None) == (dim == WIDE)
    for search in catalogue.searches(board, 2, 80):
        wanted = catalogue.lists(board, search, limit)
        found = {name: one.tolist() for name, one in retrieve.lists(search, index, clicks, limit).items()}
        assert found == wanted
        seen |= {name for name, one in found.items() if one}
    assert seen == set(retrieve.LISTS)


@pytest.mark.parametrize(
    "conditions",
    [
        Conditions(city=" AUSTIN"),
        Conditions(region="tx", country="us"),
        Conditions(posted_since=catalogue.us(catalogue.NOW) - 20 * 86_400_000_000),
        Conditions(without_companies=("acme", "Nobody", "")),
        Conditions(city="Atlantis"),
        Conditions(allowed_J=np.arange(120) % 10 == 3),
    ],
    ids=["city", "region and country", "posted since", "company excluded", "unknown place", "any other"],
)
def test_filters_are_exact(conditions: Conditions) -> None:
    board = catalogue.board(3)
    index, clicks, total = board.index(), board.log(), 0
    for search in catalogue.searches(board, 4, 25, conditions=conditions):
        wanted = catalogue.lists(board, search, 9)
        assert {name: one.tolist() for name, one in retrieve.lists(search, index, clicks, 9).items()} == wanted
        total += sum(map(len, wanted.values()))
    assert total == 0 if conditions.city == "Atlantis" else total > 200


def test_jobs_come_as_numbers_in_the_fused_order() -> None:
    board = catalogue.board(5)
    index, clicks = board.index(), board.log()
    ids = sorted(board.jobs["job_id"].to_pylist())
    for search in catalogue.searches(board, 6, 20):
        places = retrieve.fuse(list(retrieve.lists(search, index, clicks, 10).values()), 10)
        assert index.ids(retrieve.retrieve(search, index, clicks, limit=10)) == [ids[place] for place in places]


def test_clicks_named_in_the_search_take_the_place_of_the_users() -> None:
    board = catalogue.board(5)
    index, clicks = board.index(), board.log()
    search = catalogue.searches(board, 6, 1)[0]
    past = clicks.of_user("user-3", search.ts_us)
    assert len(past)
    named, known = (
        retrieve.retrieve(retrieve.Search(ts_us=search.ts_us, **who), index, clicks, limit=20)
        for who in ({"user_id": "user-9", "clicked": past}, {"user_id": "user-3"})
    )
    assert named.tolist() == known.tolist()


@pytest.mark.parametrize("dim", [24, WIDE])
def test_a_saved_index_gives_the_same_lists(tmp_path: Path, dim: int) -> None:
    board = catalogue.board(7, dim=dim)
    index, clicks = board.index(), board.log()
    index.save(tmp_path / "index")
    clicks.save(tmp_path / "clicks")
    assert (tmp_path / "index" / "heads_abreast.npy").exists() == (dim == WIDE)
    again, clicks_again = Index.open(tmp_path / "index"), Clicks.open(tmp_path / "clicks")
    for search in catalogue.searches(board, 8, 20):
        one = retrieve.retrieve(search, index, clicks, limit=30)
        assert one.tolist() == retrieve.retrieve(search, again, clicks_again, limit=30).tolist()


def test_an_index_without_heads_as_older_bundles_hold_it_gives_the_same_lists(tmp_path: Path) -> None:
    board = catalogue.board(7, dim=WIDE)
    index, clicks = board.index(), board.log()
    assert index.heads is not None
    older = dataclasses.replace(index, heads=None)
    older.save(tmp_path / "index")
    facts = storage.read_json(tmp_path / "index" / "index.json")
    del facts["heads_abreast"]
    facts["heads"] = 1.0  # as an index says whose heads stand row by row
    storage.write_json(tmp_path / "index" / "index.json", facts)
    manifest.write(tmp_path / "index")
    again = Index.open(tmp_path / "index")
    assert again.heads is None
    for search in catalogue.searches(board, 8, 20):
        one, two = (retrieve.retrieve(search, given, clicks, limit=15).tolist() for given in (index, again))
        assert one == two


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    catalogue.board(7).index().save(tmp_path / "index")
    file = tmp_path / "index" / "codes_code_JD.npy"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ArtifactError, match="codes_code_JD"):
        Index.open(tmp_path / "index")


@pytest.mark.parametrize(("parts", "dim"), [(1, 24), (4, 24), (4, WIDE)])
def test_an_updated_index_is_as_one_built_anew(tmp_path: Path, parts: int, dim: int) -> None:
    """Half of the catalogue, then the rest and changes of what was there, in one or more deltas."""
    whole, before = catalogue.board(9, dim=dim), catalogue.board(10, dim=dim)
    changed = before.jobs.set_column(0, "job_id", whole.jobs["job_id"])  # the first 60 jobs were other adverts once
    start = catalogue.Board(
        changed.slice(0, 60), before.documents[:60], before.text_J[:60], before.matrix_TD, before.texts, 0, []
    ).index()
    start.save(tmp_path / "index")
    index = Index.open(tmp_path / "index")
    for part in np.array_split(np.random.default_rng(1).permutation(len(whole.documents)), parts):
        documents, vectors = [whole.documents[job] for job in part], whole.matrix_TD[whole.text_J[part]]
        index = index.updated(whole.jobs.take(pa.array(part)), documents, vectors)
    anew = whole.index()
    assert (index.heads is not None) == (dim == WIDE)
    for search in catalogue.searches(whole, 11, 40):
        one, two = (retrieve.lists(search, one, None, 15) for one in (index, anew))
        assert {name: places.tolist() for name, places in one.items()} == {
            name: places.tolist() for name, places in two.items()
        }
    assert sorted(index.job_ids.to_pylist()) == sorted(anew.job_ids.to_pylist())


def test_ids_and_numbers() -> None:
    index = catalogue.board(9).index()
    ids = index.job_ids.to_pylist()
    assert index.find([ids[5], "job-9999", ids[0], ""]).tolist() == [5, -1, 0, -1]
    assert index.ids(np.array([3, 1])) == [ids[3], ids[1]]


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
