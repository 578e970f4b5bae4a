"""What a device offers a training: memory, products, and the same bits twice."""

import os

import torch

from tritower import gpus


def may_take(device: torch.device) -> int:
    """Bytes of a GPU that this process may still take.

    What is free on the card, which other processes share, and what is left of the process's own share of it, which
    `torch.cuda.set_per_process_memory_fraction` or PYTORCH_CUDA_ALLOC_CONF=per_process_memory_fraction:0.5 caps.
    """
    free, total = torch.cuda.mem_get_info(device)
    return left(
        free=free,
        total=total,
        reserved=torch.cuda.memory_reserved(device),
        allocated=torch.cuda.memory_allocated(device),
        fraction=torch.cuda.get_per_process_memory_fraction(device),
    )


def left(*, free: int, total: int, reserved: int, allocated: int, fraction: float) -> int:
    """The smaller of what is free, with what this process holds and does not use, and of what its fraction of all leaves."""
    return max(0, min(free + reserved - allocated, int(fraction * total) - allocated))


def set_up(device: torch.device) -> None:
    """Let a GPU compute the same bits from the same seed. To be called before the process's first product on it.

    Sums by index are made in a fixed order then, at a cost of some 9 % of a step (docs/decisions/0033).
    """
    if device.type != "cuda":
        return
    for name, value in gpus.REPEATABLE.items():
        os.environ.setdefault(name, value)
    torch.cuda.set_device(device)
    torch.use_deterministic_algorithms(True)
    # Otherwise each new tensor is filled first; nothing here reads what it has not written.
    torch._C._set_deterministic_fill_uninitialized_memory(False)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether autocast to bf16 is faster than float32: on CPUs with matrix instructions for it.

    Not on a GPU: float32, whose products go through the tensor cores as tf32, was faster there (docs/decisions/0033).
    """
    if device.type == "cuda":
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
