"""Batches: every row once, whole searches, equal shards, texts gathered by index."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tritower.ranker import batches
from tritower.ranker.config import NetworkConfig
from tritower.ranker.losses import class_loss, click_loss
from tritower.ranker.network import ClickModel
from tritower.ranker.rows import Rows


def make(lengths: list[int], seed: int = 0, described: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    n = sum(lengths)
    return Rows(
        query=random.integers(0, 9, n).astype(np.int32),
        document=random.integers(0, 30, n).astype(np.int32),
        description=random.integers(-1, 30, (n, described)).astype(np.int32),
        request=np.repeat(np.arange(len(lengths)), lengths).astype(np.int32),
        position=random.integers(0, 5, n).astype(np.int16),
        clicked=random.random(n) < 0.5,
        randomised=random.random(n) < 0.5,
        feature=random.normal(size=(n, 3)).astype(np.float16),
        occupation=random.integers(-1, 5, n).astype(np.int16),
    )


@given(st.lists(st.integers(1, 6), min_size=1, max_size=30), st.integers(0, 3))
def test_an_epoch_has_every_row_once(lengths: list[int], epoch: int):
    rows = make(lengths)
    order = batches.epoch_order(rows, seed=1, epoch=epoch)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(rows)))
    changes = np.count_nonzero(np.diff(rows.request[order]))
    assert changes == len(lengths) - 1  # each search is one run


def test_epochs_differ_and_repeat_by_seed():
    rows = make([3] * 40)
    first, again, second = (batches.epoch_order(rows, seed=5, epoch=e) for e in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_shards_are_equal_and_make_up_the_global_batch(world: int):
    order = np.random.default_rng(0).permutation(100).astype(np.int32)
    for step in range(batches.steps_per_epoch(100, 24)):
        shards = [batches.shard(order, step, batch_size=24, rank=rank, world=world) for rank in range(world)]
        assert {len(shard) for shard in shards} == {24 // world}
        np.testing.assert_array_equal(np.concatenate(shards), order[step * 24 : step * 24 + 24])


def test_gather_returns_each_rows_own_texts_and_each_text_once():
    rows = make([4] * 10)
    matrix_TD = np.random.default_rng(1).normal(size=(30, 5)).astype(np.float16)
    index = np.array([31, 2, 2, 17])
    batch = batches.Source(rows, matrix_TD)(index)
    np.testing.assert_array_equal(batch.query_QD[batch.query_B], matrix_TD[rows.query[index]])
    np.testing.assert_array_equal(batch.document_JD[batch.document_B], matrix_TD[rows.document[index]])
    assert len(set(batch.query_B.tolist())) == len(set(rows.query[index]))
    np.testing.assert_array_equal(batch.class_B, rows.occupation[index])
    assert batch.class_J[batch.document_B[3]] == rows.occupation[17]
    assert (batch.class_J[len(set(rows.document[index])) :] == -1).all()
    np.testing.assert_array_equal(batch.clicked_B, rows.clicked[index])
    np.testing.assert_array_equal(batch.position_B, rows.position[index])


def test_few_shapes_occur_and_texts_that_no_row_picks_change_nothing():
    rows = make([4] * 60)
    matrix_TD = np.random.default_rng(1).normal(size=(30, 5)).astype(np.float16)
    shapes = {batches.Source(rows, matrix_TD)(np.arange(n, dtype=np.int32)).document_JD.shape for n in (1, 7, 100, 240)}
    assert shapes == {(64, 5)}
    model = ClickModel(NetworkConfig(occupation_classes=5, descriptions=False), dim=5, features=3)
    gradients = []
    for extra in (0, 64):
        batch = batches.Source(rows, matrix_TD)(np.arange(240, dtype=np.int32))
        grown = torch.cat([batch.document_JD, torch.randn(extra, 5)])
        batch = replace(batch, document_JD=grown, class_J=torch.cat([batch.class_J, torch.full((extra,), -1)]))
        said = model(*batch.inputs())
        loss = click_loss(said.click_B, said.skip_B, batch.clicked_B) + class_loss(said.query_QC, said.document_JC, batch)
        gradients.append(torch.autograd.grad(loss, model.relevance.document_tower.tower[0].weight)[0])
    torch.testing.assert_close(*gradients)


def test_a_document_is_a_pair_of_text_and_description():
    rows = make([4] * 60, described=1)
    matrix_TD = np.random.default_rng(1).normal(size=(30, 5)).astype(np.float16)
    index = np.arange(200, dtype=np.int32)
    batch = batches.Source(rows, matrix_TD)(index)
    seen = batch.document_JD[batch.document_B].numpy()
    for place, row in enumerate(index):
        text = rows.description[row, 0]
        offered = matrix_TD[text] if text >= 0 else np.zeros(5)
        np.testing.assert_array_equal(seen[place], np.r_[matrix_TD[rows.document[row]], offered])
    pairs = set(zip(rows.document[index].tolist(), rows.description[index, 0].tolist(), strict=True))
    assert len(set(batch.document_B.tolist())) == len(pairs) > 30
