"""What is done before a GPU is used, as far as a machine without one can show it."""

import traceback

import pytest
import torch
import torch.distributed as dist
from tritower.encoder import devices, distributed, step
from tritower.encoder.config import FinetuneConfig
from tritower.encoder.launching import _elsewhere, job
from tritower.errors import ConfigError
from tritower.processes import Node

from tests.support import gpu


def test_the_device_is_set_before_nccl_is_joined() -> None:
    """A GPU that is not there: choosing it fails, and nothing was asked of nccl yet."""
    absent = torch.device("cuda", torch.cuda.device_count() + 1)
    with pytest.raises(Exception) as caught:  # which class depends on the build of torch
        distributed.enter(Node(world=2), absent)
    called = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "set_device" in called and "init_process_group" not in called
    assert not dist.is_initialized()


def test_a_cpu_is_left_as_it_is() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    devices.make_ready(torch.device("cpu"))
    assert torch.are_deterministic_algorithms_enabled() == before


def test_cudnn_s_attention_is_used_where_all_batches_together_take_less_time() -> None:
    assert devices.cudnn_pays([0.1, 0.3], [0.2, 0.3])
    assert not devices.cudnn_pays([0.5, 0.1], [0.2, 0.3])  # it plans a shape anew each time
    assert not devices.cudnn_pays([0.2], [0.2])  # the same kernels: torch had left it out anyway


def test_the_probe_times_every_shape_on_both_sides() -> None:
    with_S, without_S = devices.attention_times(torch.device("cpu"))
    assert len(with_S) == len(without_S) == len(devices._SHAPES) == len(set(devices._SHAPES))
    assert min(*with_S, *without_S) > 0


def test_more_processes_than_gpus_are_refused_before_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ConfigError, match=r"2 process\(es\) on one machine take a GPU each, and 1 GPU\(s\) are visible"):
        step.finetune(dataset="none", model="none", config=FinetuneConfig(processes=2))
    with pytest.raises(ConfigError, match="1 GPU"):  # as does a worker that torchrun has started, in a pod
        devices.own(Node(local_world=2, world=2))


def test_what_cublas_needs_to_repeat_itself_is_there_before_cuda_starts() -> None:
    described = job("finetune", FinetuneConfig(), {}, {}, "")
    for one in (described, _elsewhere(described)):
        assert one.environment["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@gpu.needed
def test_a_gpu_is_ready_and_repeats_itself() -> None:
    device = torch.device("cuda", 0)
    devices.make_ready(device)
    assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cuda.cudnn_sdp_enabled()
    with_S, without_S = devices.attention_times(device)
    assert min(*with_S, *without_S) > 0
