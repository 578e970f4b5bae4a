"""The processes of torchrun, as far as the encoder needs them."""

import torch.distributed as dist
from torch import cuda
from torch.distributed.rendezvous import rendezvous

from tritower import processes
from tritower.processes import Node


def rank() -> int:
    """This process's number under torchrun, 0 outside."""
    return Node.here().rank


def world() -> int:
    """How many processes torchrun started, 1 outside."""
    return Node.here().world


def join() -> Node:
    """Join torchrun's process group, where there is one: NCCL on GPUs, gloo on CPUs.

    Raises:
        StepError: not all processes have come in time; see `processes.met`.
    """
    node = processes.met(rendezvous, dist.DistError)
    if node.world > 1:
        backend = "nccl" if cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=node.store, rank=node.rank, world_size=node.world)
    return node


def wait() -> None:
    """Return when every process has come here."""
    if dist.is_initialized():
        dist.barrier()


def leave() -> None:
    """Leave the group, where one was joined."""
    if dist.is_initialized():
        dist.destroy_process_group()
