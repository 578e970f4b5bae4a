"""What only a GPU shows: graphs are the eager steps, the same seed gives the same bits, memory is shared."""

import gc
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from tritower.config import to_dict
from tritower.ranker import device as devices
from tritower.ranker import losses
from tritower.ranker import tabled as steps_from_tables
from tritower.ranker.batches import Source
from tritower.ranker.device import may_take
from tritower.ranker.process_group import ProcessGroup
from tritower.ranker.training import Trainer

from tests.support import gpu, tabled
from tests.support.ranker_training import SMALL
from tests.support.tabled import CONFIG, Training, with_network

CUDA = "cuda:0"
NETWORKS = [
    ({}, False),
    ({"descriptions": True}, True),
    ({"occupation_classes": 0}, False),
    ({"position": "none", "cross_layers": 0}, False),
]


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    """As `process_group.joined` sets a GPU up; other tests of this process get their settings back."""
    devices.set_up(torch.device(CUDA))
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(precision)
    torch.use_deterministic_algorithms(False)


def on_gpu(config: Any, data: Any, **more: Any) -> Training:
    return Training(config, data, device=CUDA, **more)


@gpu.needed
@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "compiled"])
@pytest.mark.parametrize(("knobs", "described"), NETWORKS)
def test_graphs_are_the_eager_steps(caplog: pytest.LogCaptureFixture, knobs: dict[str, Any], described: bool, compiled: bool):
    caplog.set_level(logging.INFO, "tritower.ranker")
    config, data = with_network(**knobs), tabled.log(described=described)
    eager = on_gpu(config, data, tabled=False)
    graph = on_gpu(config, data, tabled=True, compiled=compiled, window_rows=6 * 64)
    np.testing.assert_allclose(graph.take(10), eager.take(10), rtol=1e-5)
    np.testing.assert_allclose(graph.take(), eager.take(), rtol=1e-4)
    torch.testing.assert_close(graph.weights(), eager.weights(), rtol=0, atol=2e-3)
    assert not caplog.records  # nothing fell back
    graph.close()


@gpu.needed
@pytest.mark.parametrize("tabled_too", [False, True], ids=["eager", "graph"])
def test_the_same_seed_gives_the_same_bits(tabled_too: bool):
    data = tabled.log(described=True)
    runs = [on_gpu(with_network(descriptions=True), data, tabled=tabled_too) for _ in range(2)]
    assert runs[0].take() == runs[1].take()
    assert torch.equal(runs[0].weights(), runs[1].weights())


@gpu.needed
def test_it_goes_on_in_the_middle_of_a_window_to_the_same_bits():
    data = tabled.log()
    straight = on_gpu(CONFIG, data, tabled=True, window_rows=6 * 64)
    straight.take(20)
    saved = straight.optimiser.saved()
    rest = straight.take()
    resumed = on_gpu(CONFIG, data, tabled=True, window_rows=6 * 64)
    resumed.optimiser.load(saved)
    resumed.done = 20
    assert resumed.take() == rest and torch.equal(resumed.weights(), straight.weights())


@gpu.needed
def test_rows_on_the_host_give_the_same_bits():
    data = tabled.log(described=True)
    runs = [on_gpu(with_network(descriptions=True), data, tabled=True, room=room) for room in (None, data[1].nbytes)]
    assert [run.steps.source.resident for run in runs] == [True, False]
    assert runs[0].take() == runs[1].take() and torch.equal(runs[0].weights(), runs[1].weights())


class OneOfOne(ProcessGroup):
    """A group of one process that sends its gradients through nccl all the same."""

    def all_reduce_mean(self, gradient_P: torch.Tensor) -> None:
        dist.all_reduce(gradient_P)


@gpu.needed
def test_nccl_between_two_graphs_gives_what_one_graph_gives():
    data = tabled.log()
    one = on_gpu(CONFIG, data, tabled=True)
    expected = one.take()
    dist.init_process_group(
        "nccl", store=dist.HashStore(), rank=0, world_size=1, device_id=torch.device(CUDA)
    )  # fmt: skip
    try:
        group = OneOfOne(device=torch.device(CUDA))
        two = on_gpu(CONFIG, data, tabled=True, group=group, apart=True)
        assert two.take() == expected and len(two.steps.run) == 2
        assert torch.equal(two.weights(), one.weights())
    finally:
        dist.destroy_process_group()


@gpu.needed
def test_what_cannot_be_recorded_goes_on_one_by_one(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """The eager class loss asks the device how many clicks there are."""
    caplog.set_level(logging.INFO, "tritower.ranker")
    data = tabled.log()
    expected = on_gpu(CONFIG, data, tabled=False).take(20)
    monkeypatch.setattr(steps_from_tables, "fixed_class_loss", losses.class_loss)
    training = on_gpu(CONFIG, data, tabled=True)
    np.testing.assert_allclose(training.take(20), expected, rtol=1e-5)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and lines[0].startswith("steps go on one by one: ")


@gpu.needed
def test_three_members_take_the_memory_of_one():
    rows, matrix_TD = tabled.log(400_000)
    config = replace(
        CONFIG, training=replace(CONFIG.training, epochs=1, batch_size=8192), launch=replace(CONFIG.launch, loop="graph")
    )
    device = torch.device(CUDA)

    def peak(members: int) -> int:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        source = Source(rows, matrix_TD, device)
        validation = source.of(rows.take(np.arange(1000)))
        kept = []
        for seed in range(members):
            torch.manual_seed(seed)
            model = tabled.ClickModel(config.network, dim=tabled.DIM, features=tabled.FEATURES)
            run = Trainer(
                model, train=source, validation=validation, config=config, group=ProcessGroup(device=device), checkpoints="",
                failures="never",
            )  # fmt: skip
            run.run()
            kept.append(run)
        return torch.cuda.max_memory_allocated() - before

    peak(1)  # workspaces of the libraries stay
    one, three = peak(1), peak(3)
    assert three <= 1.1 * one, (one, three)


@gpu.needed
def test_a_cap_on_the_process_is_seen():
    """And what is above it is not put on the card."""
    device = torch.device(CUDA)
    _, total = torch.cuda.mem_get_info(device)
    fraction = (torch.cuda.memory_allocated(device) + (64 << 20)) / total
    torch.cuda.set_per_process_memory_fraction(fraction, device)
    try:
        assert may_take(device) <= 64 << 20
        rows, matrix_TD = tabled.log()
        large = np.zeros((200_000, 128), np.float16)  # 51 MB of the 45 that the rows and the embeddings may have
        assert not Source(rows, large, device).embedded
        assert Source(rows, matrix_TD, device).resident
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@gpu.needed
@pytest.mark.parametrize("loop", ["eager", "graph"])
def test_killed_and_resumed_it_ends_with_the_same_bits(log: Any, tmp_path: Path, loop: Any):
    def command(folder: Path, **launch: Any) -> subprocess.Popen[str]:
        config = replace(SMALL, launch=replace(SMALL.launch, loop=loop, device="cuda", **launch))
        return subprocess.Popen(
            [sys.executable, "-m", "tritower.ranker", f"--features={log.features}", f"--embeddings={log.embeddings}",
             f"--model={folder / 'model'}", f"--config={json.dumps(to_dict(config))}"],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    straight = command(tmp_path / "straight")
    _, told = straight.communicate(timeout=200)
    assert straight.returncode == 0, told
    kept = {"checkpoint_every_steps": 3, "checkpoints": str(tmp_path / "checkpoints")}
    first = command(tmp_path, **kept)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "checkpoints").glob("*/slot-1/state.json")):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.002)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = command(tmp_path, **kept)
    _, told = second.communicate(timeout=200)
    assert second.returncode == 0 and "resumed at step" in told, told
    assert (tmp_path / "model/model.safetensors").read_bytes() == (tmp_path / "straight/model/model.safetensors").read_bytes()
