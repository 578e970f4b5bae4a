"""The device of a process of the encoder, made ready before anything is computed on it."""

import logging
import os
import time
from collections.abc import Sequence

import torch
from torch.nn.functional import scaled_dot_product_attention

from tritower import gpus
from tritower.processes import Node

LOG = logging.getLogger(__name__)
_SHAPES = ((48, 7), (64, 9), (56, 11), (72, 13))
"""Texts and tokens of the batches that `cudnn_pays` times: short texts, each shape a new one, as in training."""


def own(node: Node) -> torch.device:
    """The GPU of this process's number on its node, or the CPU where there is none.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    gpus.check(node.local_world, torch.cuda.device_count())
    if torch.cuda.is_available():
        return torch.device("cuda", node.local_rank)
    why = gpus.unused(torch.version.cuda)
    if why:
        LOG.warning("%s; computing on the CPU", why)
    return torch.device("cpu")


def make_ready(device: torch.device, *, deterministic: bool = True) -> None:
    """Make a GPU the current one and choose what runs on it; a CPU is as it is.

    To be called before the process group is joined and before anything else starts CUDA: nccl, and every tensor of no device,
    would open a context on the first GPU, and cuBLAS reads its variables once.

    Args:
        deterministic: the same seed gives the same bits. torch then leaves out cuDNN's attention, which cannot promise that.
            Without, it is used where it measures faster.
    """
    if device.type != "cuda":
        return
    if deterministic:
        for name, value in gpus.REPEATABLE.items():
            os.environ.setdefault(name, value)
    torch.cuda.set_device(device)
    torch.use_deterministic_algorithms(deterministic)
    # With deterministic algorithms torch would fill all that it allocates with NaN first: help for finding faults, and a
    # kernel for each tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    used = not deterministic and cudnn_pays(*attention_times(device))
    torch.backends.cuda.enable_cudnn_sdp(used)
    LOG.info("GPU %s, %s; cuDNN's attention is %s", device.index, _named(device), "used" if used else "not used")


def cudnn_pays(with_S: Sequence[float], without_S: Sequence[float]) -> bool:
    """Whether cuDNN's attention is to be used: where batches of new shapes take less time with it, all in all.

    cuDNN plans each (texts, length) anew, which on an H100 took 3.7 times as long as the rest of a training step.

    Args:
        with_S, without_S: seconds of each of S batches, every one of a shape of its own; at least one.
    """
    return sum(with_S) < sum(without_S)


def attention_times(device: torch.device) -> tuple[list[float], list[float]]:
    """Seconds of attention, forward and backward, over short texts in bf16: with cuDNN's kernels, and without (S each).

    Less than a second on an H100; both sides see the same shapes, each for the first time.
    """
    times: dict[bool, list[float]] = {}
    for used in (True, False):
        torch.backends.cuda.enable_cudnn_sdp(used)
        _attend(device, 8, 5)  # loads the kernels
        times[used] = [_attend(device, texts, tokens) for texts, tokens in _SHAPES]
    return times[True], times[False]


def _attend(device: torch.device, texts: int, tokens: int, heads: int = 12, width: int = 32) -> float:
    query = torch.ones(texts, heads, tokens, width, device=device, dtype=torch.bfloat16, requires_grad=True)
    mask = torch.ones(texts, 1, 1, tokens, device=device, dtype=torch.bool).expand(texts, 1, tokens, tokens)
    _wait(device)
    start = time.perf_counter()
    scaled_dot_product_attention(query, query, query, attn_mask=mask).sum().backward()  # type: ignore[no-untyped-call]
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _named(device: torch.device) -> str:
    return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
