"""Steps from tables are the eager ones: same batches, losses and weights, whatever the network and wherever the rows lie."""

import gc
import logging
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from tritower.errors import NonFiniteLossError
from tritower.ranker import loops, losses, session, tables
from tritower.ranker.ahead import ahead
from tritower.ranker.batches import COLUMNS, Shares, Source
from tritower.ranker.config import RankerConfig
from tritower.ranker.device import left
from tritower.ranker.eager import EagerSteps
from tritower.ranker.optimiser import FlatAdamW
from tritower.ranker.process_group import ProcessGroup
from tritower.ranker.tabled import TabledSteps
from tritower.ranker.training import Trainer

from tests.support import family, tabled
from tests.support.ranker_training import SMALL, killed_and_started_again, same, train
from tests.support.tabled import CONFIG, Training, with_network

LOSS = 1e-5
"""Relative difference of a step's loss that another order of sums may make; 1e-3 in bf16."""
WEIGHT = 2e-3
"""Difference of a weight after 60 steps: as between one process and two. AdamW divides by the gradient's size, so that the
last bit of a gradient near 0 decides on a whole step."""


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whatever ran ahead has ended with its test."""
    yield
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def pair(config: RankerConfig, data: Any, **more: Any) -> tuple[Training, Training]:
    return Training(config, data, tabled=False), Training(config, data, tabled=True, **more)


def alike(eager: Training, other: Training, count: int | None = None) -> None:
    """Take the same steps on both sides and compare."""
    expected = eager.take(count)
    assert len(expected) >= 60 or count is not None
    np.testing.assert_allclose(other.take(count), expected, rtol=LOSS)
    torch.testing.assert_close(other.weights(), eager.weights(), rtol=0, atol=WEIGHT)
    for training in (eager, other):
        training.close()


@pytest.mark.parametrize(
    ("knobs", "described"),
    [
        ({}, False),
        ({"descriptions": True}, True),
        ({"occupation_classes": 0}, False),
        ({"position": "none"}, False),
        ({"cross_layers": 0, "query_tower": (8, 8), "text_scale": 1.0}, False),
    ],
    ids=["defaults", "descriptions", "no classes", "no positions", "other towers"],
)
def test_steps_from_tables_are_the_eager_ones(knobs: dict[str, Any], described: bool):
    """1,000 rows in batches of 64: 40 rows of each epoch are in no batch. Windows of 6 steps: the last of an epoch has 3."""
    alike(*pair(with_network(**knobs), tabled.log(described=described), window_rows=6 * 64))


@pytest.mark.parametrize("optimiser", [{"ema_decay": 0.0, "clip_norm": 0.0}, {"warmup_ratio": 0.0, "weight_decay": 0.2}])
def test_whatever_the_optimiser(optimiser: dict[str, float]):
    config = replace(CONFIG, optimiser=replace(CONFIG.optimiser, **optimiser))
    alike(*pair(config, tabled.log()))


def test_in_bf16_too():
    config = replace(CONFIG, training=replace(CONFIG.training, precision="bf16"))
    eager, other = pair(config, tabled.log())
    np.testing.assert_allclose(other.take(), eager.take(), rtol=1e-3)


def test_probabilities_in_the_place_of_clicks():
    """As a distilled network learns: half a click and more counts for the second task."""
    rows, matrix_TD = tabled.log()
    taught = np.random.default_rng(1).random(len(rows)).astype(np.float32)
    data = replace(rows, clicked=taught), matrix_TD
    alike(*pair(CONFIG, data))
    shared = Source(rows, matrix_TD).learning(taught)
    torch.testing.assert_close(shared(np.arange(50)).clicked_B, torch.from_numpy(taught[:50]))


def test_a_training_goes_on_in_the_middle_of_a_window_to_the_same_bits():
    """The sizes of the tables are those of the first window, wherever it goes on; losses and weights have equal bits."""
    data, config = tabled.log(), CONFIG
    straight = Training(config, data, tabled=True, window_rows=6 * 64)
    told = straight.take(20)
    saved = straight.optimiser.saved()
    rest = straight.take()
    resumed = Training(config, data, tabled=True, window_rows=6 * 64)
    resumed.optimiser.load(saved)
    resumed.done = 20
    assert resumed.take() == rest and len(told) + len(rest) == 60
    assert torch.equal(resumed.weights(), straight.weights())


def test_a_window_that_needs_more_room_gets_it(monkeypatch: pytest.MonkeyPatch):
    """With no room over the first window's need and no rounding, later windows need larger tables."""
    monkeypatch.setattr(tables, "roomy", lambda sizes: sizes)
    monkeypatch.setattr(tables, "_ROUND", 1)
    eager, other = pair(CONFIG, tabled.log(), window_rows=2 * 64)
    sizes = set()
    for _ in range(60):
        np.testing.assert_allclose(other.take(1), eager.take(1), rtol=LOSS)
        sizes.add(other.steps.tables.sizes)
    assert len(sizes) > 1


def test_rows_that_do_not_fit_are_gathered_ahead():
    """Room for the embeddings only: rows are copied step by step, from a thread; the same bits come out."""
    data = tabled.log(described=True)
    config = with_network(descriptions=True)
    kinds = [Training(config, data, tabled=True, room=room, window_rows=6 * 64) for room in (None, data[1].nbytes)]
    assert [kind.steps.source.resident for kind in kinds] == [True, False]
    first, second = (kind.take() for kind in kinds)
    assert first == second and torch.equal(kinds[0].weights(), kinds[1].weights())
    eager = [Training(config, data, tabled=False, room=room) for room in (None, 0)]
    assert eager[0].take() == eager[1].take()
    for kind in (*kinds, *eager):
        kind.close()


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 20), st.integers(0, 1000))
def test_tables_hold_what_each_batch_holds(steps: int, size: int, room: int, seed: int):
    """Against `Source`, batch by batch; classes of a document with several too."""
    rows, matrix_TD = tabled.log(steps * size, described=bool(seed % 2), seed=seed)
    source = Source(rows, matrix_TD)
    index_WB = np.random.default_rng(seed).permutation(len(rows)).astype(np.int32).reshape(steps, size)
    taken = source.take(index_WB.reshape(-1))
    made = tables.make(taken, steps, (room, room))
    assert all(width in (room, tables.up(width)) for width in made.sizes)
    for step in range(steps):
        one = tables.batch(made, torch.tensor([step]), source.take(index_WB[step]), source.matrix_TD)
        expected = source(index_WB[step])
        for name in ("feature_BF", "position_B", "clicked_B", "class_B", "query_B", "document_B"):
            torch.testing.assert_close(getattr(one, name), getattr(expected, name), equal_nan=True)
        for text, place in (("query_QD", "query_B"), ("document_JD", "document_B"), ("class_J", "document_B")):
            row_B = getattr(expected, place)
            assert torch.equal(getattr(one, text)[row_B], getattr(expected, text)[row_B])
        spare = expected.document_B.max() + 1
        assert (one.class_J[spare:] == -1).all()


def test_the_class_loss_of_fixed_shape_is_the_other_one():
    rows, matrix_TD = tabled.log(300)
    source, random = Source(rows, matrix_TD), torch.Generator().manual_seed(0)
    for clicked in (rows.clicked, np.zeros(len(rows), bool)):
        batch = source.learning(clicked)(np.arange(300))
        told = [
            torch.randn(len(part), tabled.CLASSES, generator=random).log_softmax(1).requires_grad_()
            for part in (batch.query_QD, batch.document_JD)
        ]
        values = [way(*told, batch) for way in (losses.class_loss, losses.fixed_class_loss)]
        torch.testing.assert_close(*values)
        gradients = [torch.autograd.grad(value, told) for value in values]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other)


class Asked(TorchDispatchMode):
    """The operations whose result's shape or value has to come back from a device, and so cannot be recorded."""

    WAITS = ("local_scalar_dense", "nonzero", "unique", "masked_select", "bincount", "repeat_interleave.Tensor", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.waits = set[str](), set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        self.seen.add(name)
        by_mask = "index" in name and any(
            isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(args[1:2])
        )
        if by_mask or any(word in name for word in self.WAITS):
            self.waits.add(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_asks_the_device_for_nothing(precision: Any):
    """Forward, backward and update of the whole step; the eager one does ask."""
    config = with_network(descriptions=True)
    config = replace(config, training=replace(config.training, precision=precision))
    eager, other = pair(config, tabled.log(described=True))
    other.take(1)
    with Asked() as asked:
        other.steps.take(1)
    assert {"aten.nll_loss_backward.default", "aten._fused_adamw_.tensor_lr", "aten.lerp_.Scalar"} <= asked.seen
    assert not asked.waits
    with Asked() as asked:
        eager.take(1)
    assert {"aten.nonzero.default", "aten._unique2.default", "aten._local_scalar_dense.default"} <= asked.waits


def test_all_of_a_step_is_on_the_device():
    """On a pretended GPU's tensors torch refuses to mix devices, and to tell a value. Backward and AdamW need a real one."""
    config, (rows, matrix_TD), place = with_network(descriptions=True), tabled.log(described=True), torch.device("cuda:0")
    with FakeTensorMode():
        with place:
            model = tabled.ClickModel(config.network, dim=tabled.DIM, features=tabled.FEATURES)
        optimiser = FlatAdamW(model, config.optimiser)
        source = Source(rows, matrix_TD, place, room=1 << 40)
        group = ProcessGroup(device=place)
        shares = Shares(rows, seed=0, batch_size=64)
        steps = TabledSteps(model, optimiser, source, shares, config=config, steps=60, bf16=False, group=group)
        table = torch.zeros(steps.window, 64, dtype=torch.int64, device=place)
        steps.tables = tables.Tables(*[table] * 5)
        loss = steps.forward()
        steps.keep(loss)
        steps.optimiser.collect()
        assert loss.device == steps.loss_R.device == optimiser.weight_P.device == place


def test_ahead_gives_what_is_made_in_order_and_one_item_early():
    made: list[int] = []

    def make(key: int) -> int:
        made.append(key)
        return key * key

    items = ahead(make, range(5))
    assert next(items) == 0
    family.wait_for(lambda: made != [0], "the second, which nobody has asked for")
    assert made == [0, 1]  # the third is not made
    assert list(items) == [1, 4, 9, 16]


def test_ahead_ends_with_the_error_of_an_item():
    def make(key: int) -> int:
        return 6 // key

    items = ahead(make, [3, 2, 0, 1])
    assert [next(items), next(items)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(items)
    with pytest.raises(StopIteration):
        next(items)


def test_one_copy_of_rows_and_embeddings_for_all_members():
    """What sources share is the same memory."""
    rows, matrix_TD = tabled.log()
    one = Source(rows, matrix_TD)
    taught = one.learning(np.full(len(rows), 0.5, np.float32))
    validation = one.of(rows.take(np.arange(10)))
    assert taught.matrix_TD is one.matrix_TD and validation.matrix_TD is one.matrix_TD
    assert {name for name in COLUMNS if taught.columns[name] is not one.columns[name]} == {"clicked"}
    assert len(validation) == 10 and one.rows.clicked.dtype == bool


def test_what_a_process_may_take_of_a_gpu():
    card = {"free": 60, "total": 80, "reserved": 12, "allocated": 10}
    assert left(**card, fraction=1.0) == 62
    assert left(**card, fraction=0.5) == 30  # its share of 40, 10 of it in use
    assert left(**card, fraction=0.1) == 0


def trainer(config: RankerConfig, room: int | None = None) -> Trainer:
    """Validated on a log of the same shape, whose clicks have nothing to do with those that are learned from."""
    rows, matrix_TD = tabled.log()
    torch.manual_seed(0)
    model = tabled.ClickModel(config.network, dim=tabled.DIM, features=tabled.FEATURES)
    source = Source(rows, matrix_TD, room=room)
    return Trainer(
        model, train=source, validation=source.of(tabled.log(seed=1)[0]), config=config, group=ProcessGroup(), checkpoints="",
        failures="never",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("loop", "room", "kind", "told"),
    [
        ("auto", None, EagerSteps, ""),
        ("eager", None, EagerSteps, ""),
        ("tables", None, TabledSteps, ""),
        ("graph", None, TabledSteps, "steps are taken from tables without a graph: there is no GPU"),
        ("tables", 0, EagerSteps, "steps are taken one by one: the embeddings do not fit on the device"),
    ],
)
def test_one_line_says_why_steps_are_not_taken_as_wanted(
    caplog: pytest.LogCaptureFixture, loop: Any, room: int | None, kind: type, told: str
):
    caplog.set_level(logging.INFO, "tritower.ranker")
    made = trainer(replace(CONFIG, launch=replace(CONFIG.launch, loop=loop)), room)
    steps = loops.chosen(
        made.config, made.model, made.optimiser, made.train, made.shares, steps=made.steps, group=made.group, bf16=False
    )  # fmt: skip
    assert isinstance(steps, kind)
    assert [record.getMessage() for record in caplog.records] == ([told] if told else [])


def test_what_cannot_be_recorded_is_run_one_by_one(caplog: pytest.LogCaptureFixture):
    """On a machine without a GPU nothing can be recorded: one line, the weights are those from before the try."""
    caplog.set_level(logging.INFO, "tritower.ranker")
    training = Training(CONFIG, tabled.log(), tabled=True)
    training.steps.ways = [(True, False)]
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: test_on_a_gpu.py records")
    alike(Training(CONFIG, tabled.log(), tabled=False), training, 20)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and lines[0].startswith("steps go on one by one: ")


def test_both_loops_validate_and_stop_alike(caplog: pytest.LogCaptureFixture):
    """The whole Trainer: validations, log lines of the loss, early stopping."""
    caplog.set_level(logging.INFO, "tritower.ranker")
    config = replace(CONFIG, training=replace(CONFIG.training, epochs=12, patience=2))
    runs = [
        trainer(replace(config, launch=replace(config.launch, loop=loop, log_every_s=1e-9))) for loop in ("eager", "tables")
    ]
    eager, other = (run.run() for run in runs)
    assert len(eager.history) == len(other.history) and eager.step == other.step < runs[0].steps
    for one, two in zip(eager.history, other.history, strict=True):
        assert two == pytest.approx(one, rel=1e-3)
    told = [record.getMessage() for record in caplog.records if "rows/s" in record.getMessage()]
    assert len(told) > 2 and all("loss nan" not in line for line in told)


def test_a_loss_that_is_not_finite_names_its_step(tmp_path: Path):
    """Seen some steps later, the batch is that of the first such loss all the same, and no checkpoint has it."""
    rows, matrix_TD = tabled.log()
    config = replace(
        CONFIG, launch=replace(CONFIG.launch, loop="tables"), training=replace(CONFIG.training, evaluations_per_epoch=1)
    )
    order = Shares(rows, seed=config.training.seed, batch_size=64)(7)
    clicked = rows.clicked.astype(np.float32)
    clicked[order[3]] = np.nan
    torch.manual_seed(0)
    run = Trainer(
        tabled.ClickModel(config.network, dim=tabled.DIM, features=tabled.FEATURES),
        train=Source(rows, matrix_TD).learning(clicked), validation=Source(rows, matrix_TD), config=config,
        group=ProcessGroup(), checkpoints="", failures=str(tmp_path),
    )  # fmt: skip
    with pytest.raises(NonFiniteLossError, match="at step 7; not finite in the batch: clicked_B") as caught:
        run.run()
    assert Path(caught.value.where).exists()


@pytest.mark.slow
def test_two_processes_from_tables_learn_what_one_learns_eagerly(log: Any, one: Path, tmp_path: Path):
    """Gradients are averaged between the two parts of a step."""
    same(one, train(log, tmp_path, replace(SMALL, launch=replace(SMALL.launch, processes=2, loop="tables"))))


def test_members_from_tables_are_those_of_the_eager_loop(log: Any, tmp_path: Path):
    torch.set_num_threads(1)
    for loop in ("eager", "tables"):
        config = replace(
            SMALL, training=replace(SMALL.training, members=2, distil=True), launch=replace(SMALL.launch, loop=loop)
        )
        session.train(
            features=log.features, embeddings=log.embeddings, model=tmp_path / loop, work=tmp_path / "work",
            failures="never", config=config, group=ProcessGroup(),
        )  # fmt: skip
    same(tmp_path / "eager", tmp_path / "tables")


@pytest.mark.slow
def test_a_killed_training_from_tables_resumes_to_the_identical_weights(log: Any, tmp_path: Path):
    launch = replace(SMALL.launch, loop="tables", checkpoint_every_steps=3, checkpoints=str(tmp_path / "checkpoints"))
    torch.set_num_threads(1)
    session.train(
        features=log.features, embeddings=log.embeddings, model=tmp_path / "straight", work=tmp_path / "work",
        failures="never", config=replace(SMALL, launch=replace(SMALL.launch, loop="tables")), group=ProcessGroup(),
    )  # fmt: skip

    killed_and_started_again(log, tmp_path, replace(SMALL, launch=launch), patience_s=250)
    assert (tmp_path / "model/model.safetensors").read_bytes() == (tmp_path / "straight/model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU by g++")
def test_the_compiled_loss_is_the_eager_one():
    """What the graph has in it on a GPU, compiled for the CPU."""
    config = with_network(descriptions=True)
    data = tabled.log(described=True)
    compiled = Training(config, data, tabled=True, graph=False, compiled=True, window_rows=6 * 64)
    assert compiled.steps.ways == [(False, True)]
    alike(Training(config, data, tabled=False), compiled)
    assert compiled.steps.ways == [(False, True)] and compiled.steps.compiled is None
