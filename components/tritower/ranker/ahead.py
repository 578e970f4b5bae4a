"""Work that a thread does one item ahead of whoever uses it."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

K = TypeVar("K")
T = TypeVar("T")


def ahead(make: Callable[[K], T], keys: Iterable[K], device: torch.device | None = None) -> Generator[T]:
    """What `make` gives for each key, in order; while one is used, the next is made by a thread.

    An error of `make` is raised in the place of its item. Close the generator, or use it up: that ends the thread.

    Args:
        make: called by one thread, one key at a time.
        keys: asked for in the caller's thread.
        device: the thread's, where it is a GPU; a thread's own choice is the first card.
    """
    prepare = (lambda: torch.cuda.set_device(device)) if device is not None and device.type == "cuda" else None
    running: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead", initializer=prepare) as pool:
        for key in keys:
            running.append(pool.submit(make, key))
            if len(running) > 1:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
