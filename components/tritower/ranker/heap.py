"""Memory during a training: what one step leaves is what the next one takes."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEEP = 512 << 20
_LARGEST = 32 << 20  # more is refused


@contextmanager
def steady() -> Iterator[None]:
    """Inside the block the collector leaves older objects alone, and glibc does not hand freed memory back.

    By default glibc maps each tensor of a step anew, or cuts the heap's end off after it, depending on what lay there before:
    clearing the pages took up to a quarter of a step. Walking all modules' objects took a twentieth. What was given to
    mallopt stays: its old values cannot be read.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # other C libraries have none
            mallopt(_MMAP_THRESHOLD, _LARGEST)
            mallopt(_TRIM_THRESHOLD, _KEEP)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
