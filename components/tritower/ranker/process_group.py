"""A process among those of one training: its rank and device, and what they tell each other. The model knows none of it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from tritower import gpus, processes
from tritower.processes import Node
from tritower.ranker.device import set_up


@dataclass(frozen=True)
class ProcessGroup:
    """One process of a training: `rank` of `world_size`, on `device` of `node`."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    node: Node = field(default_factory=Node)

    def all_reduce_mean(self, gradient_P: Tensor) -> None:
        """Put the mean over all processes in the place of each one's gradients.

        All of them in one message: for a network this small that costs less than the buckets and hooks of torch's
        DistributedDataParallel. Every process gets the same sum, so their weights stay the same.
        """
        if self.world_size > 1:
            dist.all_reduce(gradient_P)
            gradient_P /= self.world_size

    def all_gather(self, share_N: NDArray[np.float32]) -> NDArray[np.float32]:
        """The concatenation of every process's array; all must have the same length."""
        if self.world_size == 1:
            return share_N
        mine = torch.from_numpy(share_N).to(self.device)
        whole = torch.empty(self.world_size * len(share_N), dtype=mine.dtype, device=self.device)
        _gather(whole, mine)
        return whole.cpu().numpy()

    def mean(self, value: float) -> float:
        """The mean of a number over all processes."""
        return float(self.all_gather(np.array([value], dtype=np.float32)).mean())

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            dist.barrier()


@contextlib.contextmanager
def joined(device: str) -> Iterator[ProcessGroup]:
    """Join the process group that torchrun's environment describes (none outside torchrun), and leave it at the end.

    Args:
        device: `auto`, `cpu` or `cuda`; nccl connects GPUs, gloo CPUs.

    Raises:
        StepError: not all processes have come in time; see `processes.met`.
        ConfigError: there are fewer GPUs than processes, or some processes have a GPU and others none.
    """
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    check_gpus(device, Node.here().local_world)
    node = processes.met(rendezvous, dist.DistError, "cuda" if use_cuda else "cpu")
    own = torch.device("cuda", node.local_rank) if use_cuda else torch.device("cpu")
    set_up(own)
    if node.world > 1:
        more: dict[str, Any] = {"device_id": own} if use_cuda else {}
        backend = "nccl" if use_cuda else "gloo"
        dist.init_process_group(backend, store=node.store, rank=node.rank, world_size=node.world, **more)
    try:
        yield ProcessGroup(node.rank, node.world, own, node)
    finally:
        if node.world > 1:
            dist.destroy_process_group()


def check_gpus(device: str, processes: int) -> None:
    """Refuse more processes on this machine than it has GPUs for; see `gpus.check`.

    Args:
        device: the knob: `auto`, `cpu` or `cuda`.
        processes: on this machine.
    """
    if device != "cpu":
        gpus.check(processes, torch.cuda.device_count(), needed=device == "cuda", where="launch.processes")


# torch 2.13 gave the function another name, and warns at every call of the old one.
_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
