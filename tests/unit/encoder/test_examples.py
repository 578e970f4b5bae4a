from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from tritower import vocabulary
from tritower.encoder import finetuning, quality, tables
from tritower.encoder.batching import Collator, epoch_batches
from tritower.encoder.config import FinetuneConfig
from tritower.encoder.titles import pairs
from tritower.encoder.triplets import Clicks, Shown, cap, clicks_of, mine


def shown(*rows: tuple[int, int, int, int, int, bool]) -> Shown:
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Shown(*(column.astype(np.int64) for column in columns[:5]), columns[5].astype(bool))


#            request user query document position clicked
LOG = shown(
    (0, 1, 10, 20, 1, False),
    (0, 1, 10, 21, 2, True),
    (0, 1, 10, 22, 3, False),
    (1, 2, 11, 23, 1, True),  # nothing was passed over
    (2, 1, 0, 20, 1, True),  # the empty query
    (2, 1, 0, 21, 2, False),
    (3, 3, 12, 20, 1, False),
    (3, 3, 12, 24, 2, True),
    (3, 3, 12, 24, 3, False),  # the text of a clicked document
)


def test_clicks_by_hand() -> None:
    clicks = clicks_of(LOG, negatives=3, skipped_above=False, empty_query=0, seed=1)
    assert list(zip(clicks.user_C, clicks.anchor_C, clicks.positive_C, strict=True)) == [(1, 10, 21), (3, 12, 24)]
    assert set(clicks.negative_CK[0]) == {20, 22}
    assert set(clicks.negative_CK[1]) == {20}


def test_skipped_above_takes_only_what_stood_higher() -> None:
    clicks = clicks_of(LOG, negatives=2, skipped_above=True, empty_query=0, seed=1)
    assert clicks.negative_CK.tolist() == [[20, 20], [20, 20]]


def clicks_from(users: list[int], seed: int) -> Clicks:
    number = np.arange(len(users))
    priority = np.random.default_rng(seed).permutation(len(users))
    return Clicks(np.array(users, np.int64), number, number, number[:, None], priority)


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), max_size=40), st.integers(1, 5), st.integers(1, 12), st.integers(0, 40), st.integers(0, 9))
def test_capping_parts_equals_capping_all(users: list[int], per_user: int, total: int, at: int, seed: int) -> None:
    every = clicks_from(users, seed)
    whole = cap(every, per_user=per_user, total=total)
    first = cap(every.take(np.arange(len(users)) < at), per_user=per_user, total=total)
    parts = Clicks.concatenate([first, every.take(np.arange(len(users)) >= at)])
    assert cap(parts, per_user=per_user, total=total).anchor_C.tolist() == whole.anchor_C.tolist()
    assert len(whole) <= total
    assert all(count <= per_user for count in np.bincount(whole.user_C)) if len(whole) else True


def test_mined_negatives_are_near_and_never_clicked_for_the_query() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    anchor, positive = np.repeat(np.arange(10), 2), 10 + np.arange(20)
    clicks = Clicks(anchor, anchor, positive, 30 + random.integers(0, 30, (20, 1)), np.arange(20))
    mined = mine(clicks, vectors, negatives=3, skip=0, depth=8)
    for a, p, negatives in zip(anchor, positive, mined.negative_CK, strict=True):
        assert not set(negatives) & set(positive[anchor == a])
        if set(negatives) != set(clicks.negative_CK[p - 10]):
            assert (vectors[negatives] @ vectors[a] < 0.95 * (vectors[a] @ vectors[p])).all()


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 9), st.integers(0, 3))
def test_batches_hold_each_click_at_most_once_and_like_lengths(count: int, size: int, epoch: int) -> None:
    lengths = np.random.default_rng(count).integers(3, 30, (count, 2))
    batches = epoch_batches(lengths, size, seed=1, epoch=epoch)
    used = np.concatenate(batches).tolist() if batches else []
    assert len(used) == len(set(used)) == count // size * size
    anchors = np.arange(count) % 7
    spread = epoch_batches(lengths, size, seed=1, epoch=epoch, anchor_C=anchors)
    assert sorted(len(batch) for batch in spread) == [size] * (count // size)


def test_collator_encodes_each_text_once() -> None:
    tokens = {i: np.arange(i, dtype=np.int32) + 1 for i in range(1, 6)}
    rows = [{"anchor": 2, "positive": 3, "negatives": [5, 4]}, {"anchor": 2, "positive": 4, "negatives": [3, 5]}]
    batch = Collator(tokens, pad=0)(rows)
    assert batch["anchor_input_ids"].tolist() == [[1, 2]]
    assert batch["document_input_ids"].tolist() == [[1, 2, 3, 0, 0], [1, 2, 3, 4, 0], [1, 2, 3, 4, 5]]
    assert batch["document_attention_mask"].sum(1).tolist() == [3, 4, 5]
    assert batch["label"].tolist() == [[0, 0, 2, 1], [0, 1, 0, 2]]


def test_measures_by_hand() -> None:
    log = shown((0, 0, 0, 1, 1, False), (0, 0, 0, 2, 2, True), (1, 0, 0, 1, 1, True), (1, 0, 0, 3, 2, False))
    vectors = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6], [0, 1]], np.float32)
    figures = quality.measure(quality.HeldOut(log, np.array([1, 2, 3])), vectors)
    assert figures == pytest.approx(
        {"triplet_accuracy": 1.0, "auc_shown": 0.875, "map_shown": 1.0, "map_jobs": 0.75, "recall@10_jobs": 1.0}
    )


def test_held_out_searches_have_clicks_and_passes() -> None:
    data = quality.held_out(LOG, np.array([20, 21, 22, 23, 24, 25]), requests=10, jobs=4, empty_query=0, seed=0)
    assert set(data.shown.request_N) == {0, 3}
    assert {21, 24} <= set(data.document_M) and len(data.document_M) == 4


def test_title_map_is_the_mean_of_average_precisions() -> None:
    random = np.random.default_rng(0)
    queries, titles = random.normal(size=(4, 5)).astype(np.float32), random.normal(size=(9, 5)).astype(np.float32)
    relevant = random.random((4, 9)) < 0.3
    relevant[2] = False
    expected = np.mean([average_precision_score(r, titles @ q) for q, r in zip(queries, relevant, strict=True) if r.any()])
    assert quality.title_map(queries, titles, relevant) == pytest.approx(expected)


def test_the_judged_titles_that_ship() -> None:
    judged = tables.judged_titles(Path(__file__).parents[2] / "data" / "avature_jobtitle")
    assert (len(judged.queries), len(judged.titles), int(judged.relevant_QM.sum())) == (105, 2619, 2420)


@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_blocks_hold_whole_requests_whatever_their_size(dataset: Path, rows: int) -> None:
    blocks = list(tables.shown(dataset, "train", rows))
    seen = [set(block.request_N.tolist()) for block in blocks]
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert sum(len(block.request_N) for block in blocks) == 4 * len(set().union(*seen))


def test_only_randomised_requests_are_read_when_asked_for(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    log = make_dataset(tmp_path / "dataset", randomised=0.3)
    found = Shown.concatenate(list(tables.shown(log, "validation", 5, randomised=True)))
    assert set(found.request_N % 10) == {0, 1, 2}
    assert len(found.request_N) == 4 * len(set(found.request_N))
    assert len(Shown.concatenate(list(tables.shown(make_dataset(tmp_path / "none"), "train", randomised=True))).request_N) == 0


def test_pairs_of_titles_by_hand() -> None:
    titles = ["nurse", "RN", "cook", "chef", "baker", "manager", "manager", "diver"]
    occupations = ["29", "29", "35", "35", "35", "11", "35", "49"]
    found, names = pairs(titles, occupations, count=200, negatives=3, seed=0)
    of = dict(zip(titles, occupations, strict=True))
    assert "manager" not in names  # two occupations go by it
    first, second = ([of[names[i]] for i in side] for side in (found.anchor_C, found.positive_C))
    assert first == second and set(first) == {"29", "35"}
    assert not (found.anchor_C == found.positive_C).any()
    assert not any(of[names[i]] == own for row, own in zip(found.negative_CK, first, strict=True) for i in row)
    drawn = {(names[a], names[p]) for a, p in zip(found.anchor_C, found.positive_C, strict=True)}
    assert len(drawn) == 2 + 6
    assert {names[i] for i in found.negative_CK.ravel()} == {"nurse", "RN", "cook", "chef", "baker", "diver"}


def test_titles_are_numbered_after_the_texts_of_the_log() -> None:
    clicks = clicks_of(LOG, negatives=2, skipped_above=False, empty_query=0, seed=1)
    log_texts = [f"text {i}" for i in range(25)]
    config = FinetuneConfig(title_pairs=40, negatives_per_click=2)
    both, texts = finetuning.with_titles(clicks, log_texts, config)
    assert (len(both), texts[:25]) == (len(clicks) + 40, log_texts)
    assert both.take(np.arange(len(clicks))).anchor_C.tolist() == clicks.anchor_C.tolist()
    occupation = dict(zip(*(vocabulary.titles().column(name).to_pylist() for name in ("title", "occupation")), strict=True))
    for anchor, positive in zip(both.anchor_C[len(clicks) :], both.positive_C[len(clicks) :], strict=True):
        assert occupation[texts[anchor]] == occupation[texts[positive]]
    assert finetuning.with_titles(clicks, log_texts, FinetuneConfig()) == (clicks, log_texts)


def test_a_new_encoder_must_be_worse_by_no_measure() -> None:
    before = {"triplet_accuracy": 0.6, "auc_shown": 0.6, "map_shown": 0.3, "map_jobs": 0.1, "title_map": 0.5}
    assert finetuning.verdict(before, before | {"map_shown": 0.31, "title_map": 0.495}, 0.01)[0]
    assert not finetuning.verdict(before, before | {"map_shown": 0.31, "title_map": 0.48}, 0.01)[0]
    accepted, words = finetuning.verdict(before, before | {"map_shown": 0.31, "auc_shown": 0.55, "map_jobs": 0.02}, 0.01)
    assert not accepted
    assert "(AUC, shown jobs -0.0500; mAP, all jobs -0.0800)" in words
