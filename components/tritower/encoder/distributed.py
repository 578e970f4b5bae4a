"""The processes of torchrun, as far as the encoder needs them."""

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from tritower import processes
from tritower.encoder import devices
from tritower.processes import Node


def rank() -> int:
    """This process's number under torchrun, 0 outside."""
    return Node.here().rank


def world() -> int:
    """How many processes torchrun started, 1 outside."""
    return Node.here().world


def join(*, deterministic: bool = True) -> tuple[Node, torch.device]:
    """This process and its device, made ready, in torchrun's process group where there is one.

    Args:
        deterministic: see `devices.make_ready`.

    Raises:
        StepError: not all processes have come in time; see `processes.met`.
        ConfigError: there are fewer GPUs than processes, or some processes have a GPU and others none.
    """
    device = devices.own(Node.here())
    node = processes.met(rendezvous, dist.DistError, device.type)
    enter(node, device, deterministic=deterministic)
    return node, device


def enter(node: Node, device: torch.device, *, deterministic: bool = True) -> None:
    """Make `device` ready, then join the group: NCCL on GPUs, gloo on CPUs. In this order: see `devices.make_ready`."""
    devices.make_ready(device, deterministic=deterministic)
    if node.world > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        own = device if device.type == "cuda" else None
        dist.init_process_group(backend, store=node.store, rank=node.rank, world_size=node.world, device_id=own)


def wait() -> None:
    """Return when every process has come here."""
    if dist.is_initialized():
        dist.barrier()


def total(value: int) -> int:
    """The sum over all processes."""
    if not dist.is_initialized():
        return value
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    summed = torch.tensor(value, device=device)
    dist.all_reduce(summed)
    return int(summed)


def leave() -> None:
    """Leave the group, where one was joined."""
    if dist.is_initialized():
        dist.destroy_process_group()
