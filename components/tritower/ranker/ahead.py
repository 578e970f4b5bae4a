"""Work that a thread does one item ahead of whoever uses it, on a GPU of the caller's choice."""

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

import torch

from tritower import threads

K = TypeVar("K")
T = TypeVar("T")


def ahead(make: Callable[[K], T], keys: Iterable[K], device: torch.device | None = None) -> Generator[T]:
    """See `threads.ahead`.

    Args:
        device: the thread's, where it is a GPU; a thread's own choice is the first card.
    """
    prepare = (lambda: torch.cuda.set_device(device)) if device is not None and device.type == "cuda" else None
    return threads.ahead(make, keys, prepare)
